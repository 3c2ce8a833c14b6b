//! The relay of a measurement: a process of its own, and what it costs there.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A relay that serves until this is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Serving {
    /// Serves a relay's directory on loopback.
    pub(crate) fn start(program: &Path, directory: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["relay", "serve", "--listen", "127.0.0.1:0", "--dir"]).arg(directory);
        Self::run(command)
    }

    /// Starts a program that says `listening ADDRESS` once it serves.
    pub(crate) fn run(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        out.read_line(&mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix("listening ").and_then(|text| text.parse().ok());
        // What it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(drop));
        Self { child, address: address.expect("it says where it listens") }
    }

    /// The processor time that it has used so far.
    pub(crate) fn processor_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let tasks = tasks.into_iter().flatten().flatten();
        let times = tasks.filter_map(|task| {
            // A thread may end while it is looked at.
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
        });
        times.sum()
    }

    /// The memory that is its own and resident, in bytes: what its files have in memory is left out.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) * 1_024
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Whatever it acknowledged is durable: it may end at any moment.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
