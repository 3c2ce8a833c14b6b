//! Every command of a device, alone and through `serve`: it says the same, ends with the same code, and
//! what it did is the same.

#[path = "support/process.rs"]
mod process;

use process::{Place, Ran, Running};

const CATALOG: &str = r#"
catalog = 1

[type.customer]
share = "{{ record.name }} in {{ record.city }}"
[type.customer.field.name]
[type.customer.field.city]

[type.order]
[type.order.field.customer]
ref = "customer"
[type.order.field.discount]
schema = { type = "integer" }
[type.order.field.boxes]
kind = "counter"
[type.order.field.lines]
kind = "set"
[type.order.field.lines.field.product]
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
"#;

/// What is typed, one after the other.
const SCRIPT: &[&str] = &[
    "status",
    "put customer/c1 name=Kiosk city=Riga",
    "put order/o1 customer=c1 discount=10 boxes+=2 lines[1].product=tea",
    "put order/o1 discount=x",
    "put ordre/o1 discount=1",
    "put order/o2 customer=c1 discount=45 --what-if",
    "put order/o2 customer=c1 discount=45 --strict",
    "put order/o2 customer=c1 discount=45 --await judged",
    "put visit/v1 outlet=41",
    "get order/o1",
    "get order/o1 --history",
    "get order/o2 --last-valid",
    "get order/none",
    "list order",
    "list order --where discount=45",
    "list nothing",
    "history order/o1",
    "history order/o1 --limit 1",
    "history order/o1 --before zz",
    "history order/none",
    "revert order/o1 --to 2001-01-01T00:00:00Z",
    "revert order/o1 colour --to 2099-01-01T00:00:00Z",
    "revert order/o1 --to 2099-01-01T00:00:00Z",
    "revert order/none --to 2099-01-01T00:00:00Z",
    "share customer/c1",
    "share order/o2",
    "share order/none",
    "conflicts order/o1",
    "resolve order/o1 discount=2",
    "at order/o1 2001-01-01T00:00:00Z",
    "search kios",
    "search nowhere",
    "explain order/o2",
    "explain order/none",
    "advice",
    "attention list",
    "attention show order/o2",
    "attention retry order/o2",
    "attention dismiss order/o2 --note later",
    "attention list",
    "attention reopen order/o2",
    "pin customer/c1 --reason open --owner till",
    "pin",
    "unpin --owner till",
    "pause order",
    "status",
    "put order/o3 customer=c1",
    "resync order",
    "resume",
    "pause nothing",
    "subscribe visit=41",
    "unsubscribe visit=42",
    "subscribe visit=*",
    "subscribe order=1",
    "clear --dry-run",
    "clear customer --yes",
    "resync order",
    "delete customer/c1",
    "get customer/c1",
    "put customer/c1 city=Tartu",
    "put customer/c1 --undelete city=Tartu",
    "export order",
    "export order --format csv",
    "import customer /nowhere/rows.csv --dry-run",
    "bundle export /nowhere/bundle --for relay",
    "bundle export /nowhere/bundle --for ann",
    "bundle import /nowhere/bundle",
    "doctor",
    "doctor --repair",
    "status",
];

/// An organisation of one device, which has its commands executed by a process or not.
struct Desk {
    place: Place,
    _relay: Running,
    serving: Option<Running>,
}

impl Desk {
    fn new(serves: bool) -> Self {
        let place = Place::new();
        let relay = place.relay(CATALOG);
        place.device("ann", &[]);
        let serve = ["serve", "--console", "127.0.0.1:0", "--no-nearby"];
        let serving = serves.then(|| place.start("ann", &serve));
        if let Some(serving) = &serving {
            serving.line_beginning("console");
        }
        Self { place, _relay: relay, serving }
    }

    /// Runs a command once all that was done before is exchanged.
    fn run(&self, args: &str, json: bool) -> Ran {
        self.place.run("ann", &["sync"]).ok();
        let mut args: Vec<&str> = args.split(' ').collect();
        args.extend(json.then_some("--json"));
        self.place.run("ann", &args)
    }
}

/// What a command said, without what differs from run to run: times, hashes, folders, and how the relay
/// is reached at the moment.
fn said(desk: &Desk, ran: &Ran) -> (i32, String) {
    let folder = desk.place.path("ann").display().to_string();
    let text = format!("{}\n{}", ran.out, ran.err).replace(&folder, "FOLDER");
    let text = text.replace("\"online\"", "\"offline\"").replace("\"connecting\"", "\"offline\"");
    let text = text.replace("Online", "Offline").replace("Connecting", "Offline");
    let words = text.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "-:._".contains(c)));
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

#[test]
fn every_command_says_and_does_the_same_alone_and_through_serve() {
    for json in [false, true] {
        let (alone, served) = (Desk::new(false), Desk::new(true));
        for args in SCRIPT {
            let [one, other] = [&alone, &served].map(|desk| said(desk, &desk.run(args, json)));
            assert_eq!(one, other, "{args} (json: {json})");
        }
        let serving = served.serving.expect("it serves");
        assert_eq!(serving.stop("INT"), 130);
    }
}
