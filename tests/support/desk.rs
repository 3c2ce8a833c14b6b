//! A device, its relay, and the commands that somebody types: executed by the command itself, or by a
//! process that serves the device.

#![allow(dead_code, unreachable_pub)]

use crate::process::{Place, Ran, Running};

/// An organisation of one device, which has its commands executed by a process or not.
pub struct Desk {
    pub place: Place,
    _relay: Running,
    serving: Option<Running>,
}

impl Desk {
    pub fn new(catalog: &str, serves: bool) -> Self {
        let place = Place::new();
        let relay = place.relay(catalog);
        place.device("ann", &[]);
        let serve = ["serve", "--console", "127.0.0.1:0", "--no-nearby"];
        let serving = serves.then(|| place.start("ann", &serve));
        if let Some(serving) = &serving {
            serving.line_beginning("console");
        }
        Self { place, _relay: relay, serving }
    }

    /// Where the directories are.
    fn folder(&self) -> String {
        self.place.path("").display().to_string().trim_end_matches('/').to_owned()
    }

    /// Runs a command once all that was done before is exchanged; PLACE is the folder of all directories.
    pub fn run(&self, args: &str, json: bool) -> Ran {
        self.place.run("ann", &["sync"]).ok();
        let args = args.replace("PLACE", &self.folder());
        let mut args: Vec<&str> = args.split(' ').collect();
        args.extend(json.then_some("--json"));
        self.place.run("ann", &args)
    }

    /// What a command said and its code, without what differs from run to run: times, hashes, folders,
    /// and how the relay is reached at the moment.
    pub fn said(&self, ran: &Ran) -> (i32, String) {
        let text = format!("{}\n{}", ran.out, ran.err).replace(&self.folder(), "PLACE");
        let text =
            text.replace("\"online\"", "\"offline\"").replace("\"connecting\"", "\"offline\"");
        let text = text.replace("Online", "Offline").replace("Connecting", "Offline");
        let words =
            text.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "-:._".contains(c)));
        let same = words.map(|word| {
            let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let end = &word[bare.len()..];
            let time = bare.len() > 18 && bare.contains('T') && bare.contains(':');
            let hash = bare.len() >= 8 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
            match (time, hash) {
                (true, _) => format!("TIME{end}"),
                (_, true) => format!("HASH{end}"),
                _ => word.to_owned(),
            }
        });
        (ran.code, same.collect())
    }

    /// Ends the process that serves, if there is one, as somebody would by hand.
    pub fn close(self) {
        if let Some(serving) = self.serving {
            assert_eq!(serving.stop("INT"), 130);
        }
    }
}
