//! The real binary in tests: run to its end, or running with its output read line by line. Nothing
//! here sleeps; whatever does not answer within a minute or two is ended by its id, and the test
//! fails.

// Each test file uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The output, of a command that went well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "out: {}\nerr: {}", self.out, self.err);
        self.out
    }

    /// The output as JSON, of a command that went well.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// A folder with a relay and devices.
pub struct Place {
    root: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a directory") }
    }

    /// One with a relay that was founded with a catalog, and that nobody serves yet.
    pub fn founded(catalog: &str) -> Self {
        let place = Self::new();
        place.found(catalog);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("it is written");
        path
    }

    /// A command on one of the directories.
    pub fn command<S: AsRef<OsStr>>(&self, dir: &str, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldkeep"));
        command
            .args(args)
            .env("FIELDKEEP_DIR", self.path(dir))
            .env("XDG_STATE_HOME", self.path("state"));
        command.env_remove("FIELDKEEP_LOG").env("COLUMNS", "120");
        command
    }

    /// Runs a command on one of the directories to its end.
    pub fn run<S: AsRef<OsStr>>(&self, dir: &str, args: &[S]) -> Ran {
        finish(self.command(dir, args), "")
    }

    /// Runs a command that reads its standard input.
    pub fn run_with_input<S: AsRef<OsStr>>(&self, dir: &str, args: &[S], input: &str) -> Ran {
        finish(self.command(dir, args), input)
    }

    /// Starts a command that does not end by itself.
    pub fn start<S: AsRef<OsStr>>(&self, dir: &str, args: &[S]) -> Running {
        start(self.command(dir, args))
    }

    /// Founds a relay with a catalog and serves it.
    pub fn relay(&self, catalog: &str) -> Running {
        self.found(catalog);
        self.serve()
    }

    fn found(&self, catalog: &str) {
        let catalog = self.file("catalog.toml", catalog);
        let catalog = catalog.to_str().expect("a plain path");
        self.run("relay", &["relay", "init", "--catalog", catalog, "--name", "acme"]).ok();
    }

    /// Serves the relay.
    pub fn serve(&self) -> Running {
        self.serve_at("127.0.0.1:0").0
    }

    /// Serves the relay at an address; tells which it is.
    pub fn serve_at(&self, address: &str) -> (Running, String) {
        let relay = self.start("relay", &["relay", "serve", "--listen", address]);
        let line = relay.line();
        let listens = line.strip_prefix("listening ").expect("it says where").to_owned();
        let (host, _) = address.split_once(':').expect("host and port");
        assert_eq!(listens.split_once(':').map(|(host, _)| host), Some(host));
        (relay, listens)
    }

    /// Makes a device, with more arguments for the invitation.
    pub fn device(&self, name: &str, more: &[&str]) {
        let invite = [&["relay", "invite", "--name", name], more].concat();
        let ticket = self.run("relay", &invite).ok();
        assert_eq!(ticket.lines().count(), 1);
        self.run(name, &["join", ticket.trim()]).ok();
    }
}

/// Starts a command that does not end by itself.
pub fn start(mut command: Command) -> Running {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("the binary starts");
    let lines = lines(child.stdout.take().expect("it is piped"));
    Running { child, lines }
}

/// Starts a command that does not end by itself, and reads its logs.
pub fn start_logged(mut command: Command) -> (Running, Receiver<String>) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let logs = lines(child.stderr.take().expect("it is piped"));
    let lines = lines(child.stdout.take().expect("it is piped"));
    (Running { child, lines }, logs)
}

/// What a process writes, line by line.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Runs a command to its end.
pub fn finish(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let id = child.id();
    let mut stdin = child.stdin.take().expect("it is piped");
    // A command that does not read its input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let (sender, done) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = done.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        signal(id, "KILL");
        panic!("{command:?} did not end");
    });
    let Output { status, stdout, stderr } = output.expect("its output is read");
    Ran {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).expect("text"),
        err: String::from_utf8(stderr).expect("text"),
    }
}

/// A process that goes on until it is told to stop.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// The next line of its output.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("it says something")
    }

    /// A line of its output that is there already.
    pub fn has_said(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Reads on until a line begins like that.
    #[track_caller]
    pub fn line_beginning(&self, with: &str) -> String {
        loop {
            let line = self.line();
            if line.starts_with(with) {
                return line;
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has it stop, and returns its exit code.
    pub fn stop(mut self, by: &str) -> i32 {
        signal(self.child.id(), by);
        self.child.wait().expect("it ends").code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to a process that a test started.
pub fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "{name} is sent to {id}");
}

/// The folder of the real data, if it is here. Loudly absent; under CI that is a failure.
pub fn data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let path = std::env::var_os("FIELDKEEP_DATA").map_or_else(beside, PathBuf::from);
    if path.join("northwind").is_dir() && path.join("squirrels").is_dir() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "the test data is not at {}", path.display());
    let text = format!("SKIPPED: no test data at {}: set FIELDKEEP_DATA", path.display());
    let _ = writeln!(std::io::stderr(), "{text}");
    None
}
