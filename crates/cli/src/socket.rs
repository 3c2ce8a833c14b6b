//! The owner's socket: one request a connection, as a JSON line; the answer is JSON lines.
//!
//! The socket lies in the directory and only its user may open it. It is bound under a private name
//! and moved into place, so that it is never open to others and a stale one never in the way.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fieldkeep_store::home;

use crate::access::Owner;
use crate::execute::{self, Sink};
use crate::request::Request;
use crate::response::{Line, Response};
use fieldkeep_console::{Code, Failure, Trouble};

/// The longest line, in bytes: a batch of an import, or one record.
const LINE: u64 = 32 * 1024 * 1024;
/// How long a process may take to say what it wants, or to read what it is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at a time.
const REQUESTS: usize = 32;
/// Addresses of sockets are this long at most; the limit is 108 on Linux, 104 elsewhere.
const ADDRESS: usize = 100;

/// A socket that is served; it goes when this goes.
#[derive(Debug)]
pub(crate) struct Server(PathBuf);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Serves an owned directory's socket, on threads of its own, until the process ends.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn serve(owner: Arc<Owner>) -> io::Result<Server> {
    let path = home::socket(owner.directory());
    let private = owner.directory().join(format!(".owner-{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&private)?;
    let made = make(&private.join("s"), &path);
    let _ = fs::remove_dir_all(&private);
    let listener = made?;
    std::thread::Builder::new()
        .name("owner-socket".into())
        .spawn(move || accept(&listener, &owner))?;
    Ok(Server(path))
}

fn make(private: &Path, path: &Path) -> io::Result<UnixListener> {
    let listener = reachable(private, |address| UnixListener::bind(address))?;
    fs::set_permissions(private, Permissions::from_mode(0o600))?;
    fs::rename(private, path)?;
    Ok(listener)
}

fn accept(listener: &UnixListener, owner: &Arc<Owner>) {
    let busy = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if busy.fetch_add(1, Ordering::SeqCst) >= REQUESTS {
            busy.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (owner, slot) = (Arc::clone(owner), Arc::clone(&busy));
        let spawned = std::thread::Builder::new().name("owner-request".into()).spawn(move || {
            if let Err(error) = answer(&stream, &owner) {
                tracing::debug!(%error, "a request was not answered");
            }
            slot.fetch_sub(1, Ordering::SeqCst);
        });
        if spawned.is_err() {
            busy.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn answer(stream: &UnixStream, owner: &Owner) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let line = read_line(&mut BufReader::new(stream))?;
    let mut writer = BufWriter::new(stream);
    if line.is_empty() {
        return Ok(());
    }
    let result = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => execute::execute(owner, request, &mut |record| {
            Ok(write_line(&mut writer, &Line::Record(Box::new(record)))?)
        }),
        Err(error) => Err(misunderstood(&error).into()),
    };
    let last = match result {
        Ok(response) => Line::Done(Box::new(response)),
        Err(Trouble::Failed(failure)) => Line::Failed(failure),
        Err(Trouble::Output(error)) => return Err(error),
    };
    write_line(&mut writer, &last)?;
    writer.flush()
}

fn misunderstood(error: &serde_json::Error) -> Failure {
    let message = format!("the owner of the directory does not understand this command ({error})");
    Failure::new(Code::Failure, message, "it may be another version: stop it, and start this one")
}

/// Asks the owner. Nothing if nobody listens.
///
/// # Errors
/// What the owner says, or that it ended before it said it.
pub(crate) fn ask(
    directory: &Path,
    request: &Request,
    sink: Sink<'_>,
) -> Result<Option<Response>, Trouble> {
    let Ok(stream) = connect(directory) else { return Ok(None) };
    let cut = |error: io::Error| {
        let message = format!("the owner of the directory ended before it answered ({error})");
        Failure::new(Code::Failure, message, "see what was done, and try again")
    };
    let mut text = serde_json::to_string(request).map_err(io::Error::from).map_err(cut)?;
    text.push('\n');
    if text.len() as u64 > LINE {
        let remedy = "write less at once";
        return Err(Failure::new(Code::Held, "this is too much for one command", remedy).into());
    }
    (&stream).write_all(text.as_bytes()).map_err(cut)?;
    let mut reader = BufReader::new(&stream);
    loop {
        let line = read_line(&mut reader).map_err(cut)?;
        match serde_json::from_slice(&line).map_err(io::Error::from).map_err(cut)? {
            Line::Record(record) => sink(*record)?,
            Line::Done(response) => return Ok(Some(*response)),
            Line::Failed(failure) => return Err(failure.into()),
        }
    }
}

/// Whether a long-running owner answers there.
pub(crate) fn is_answering(directory: &Path) -> bool {
    connect(directory).is_ok()
}

fn connect(directory: &Path) -> io::Result<UnixStream> {
    reachable(&home::socket(directory), |address| UnixStream::connect(address))
}

fn write_line(writer: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, line)?;
    writer.write_all(b"\n")
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(LINE).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Calls with an address for a socket that the system takes: a path that is too long is reached
/// through the opened directory that it ends in.
fn reachable<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= ADDRESS {
        return act(path);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let opened = File::open(parent)?;
    act(&Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_deep_down_is_reached() {
        let root = tempfile::tempdir().expect("a directory");
        let deep = root.path().join("a-rather-long-name-of-a-folder".repeat(5));
        fs::create_dir_all(&deep).expect("it is made");
        let path = deep.join("owner.sock");
        let _listener = reachable(&path, |address| UnixListener::bind(address)).expect("it binds");
        assert!(reachable(&path, |address| UnixStream::connect(address)).is_ok());
    }
}
