//! What is told to the supervisor that started this process, where there is one: `sd_notify` of systemd, a
//! datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What a supervisor hears.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice<'n> {
    /// The relay serves at that address.
    Ready(&'n str),
    /// It stops.
    Stopping,
}

/// Tells the supervisor, if there is one. Failing to stops nothing.
pub(crate) fn notify(notice: Notice<'_>) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let text = match notice {
        Notice::Ready(address) => format!("READY=1\nSTATUS=serves devices at {address}\n"),
        Notice::Stopping => "STOPPING=1\nSTATUS=tells devices when to come back\n".to_owned(),
    };
    if let Err(error) = send(&socket, &text) {
        tracing::warn!(%error, "the supervisor could not be told how far this process is");
    }
}

fn send(socket: &OsString, text: &str) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address(socket)?)?;
    Ok(())
}

/// A path, or after an `@` a name that is no file.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(socket)
}
