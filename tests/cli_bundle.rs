//! Carrying by hand through the command line: the files, what is said, the exit codes; alone and
//! through a process that serves.

#[path = "support/process.rs"]
mod process;

use process::{Place, Ran, Running};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]

[type.order]
[type.order.field.customer]
ref = "customer"
[type.order.field.discount]
schema = { type = "integer" }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
"#;

/// Two devices that have synced once, and a relay that is not reached any more.
struct Country {
    place: Place,
    serving: Vec<Running>,
}

impl Country {
    fn new() -> Self {
        let place = Place::new();
        let relay = place.relay(CATALOG);
        for name in ["ann", "ben"] {
            place.device(name, &[]);
        }
        for name in ["ann", "ben"] {
            place.run(name, &["sync"]).ok();
        }
        assert_eq!(relay.stop("INT"), 0);
        Self { place, serving: Vec::new() }
    }

    /// Everything is executed by processes that serve from now on. The relay's address is another one.
    fn serve(&mut self) {
        self.serving.push(self.place.serve());
        for name in ["ann", "ben"] {
            let serve = ["serve", "--console", "127.0.0.1:0", "--no-nearby"];
            let serving = self.place.start(name, &serve);
            serving.line_beginning("console");
            self.serving.push(serving);
        }
    }

    fn run(&self, dir: &str, words: &str) -> Ran {
        let path = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.place.path(name).to_str().expect("a plain path").to_owned(),
            None => word.to_owned(),
        };
        self.place.run(dir, &words.split(' ').map(path).collect::<Vec<_>>())
    }

    fn fails(&self, dir: &str, words: &str, code: i32, with: &str) {
        let ran = self.run(dir, words);
        assert_eq!(ran.code, code, "{words}: {} {}", ran.out, ran.err);
        assert!(ran.err.contains(with), "{words}: {}", ran.err);
    }

    fn unsaved(&self, dir: &str) -> u64 {
        let status = self.run(dir, "status --json").json();
        let types = status["types"].as_array().expect("a list");
        let of = |ty: &Value| ty["unsaved"].as_u64().zip(ty["carried"].as_u64());
        types.iter().filter_map(of).map(|(own, carried)| own + carried).sum()
    }
}

/// From Ann to Ben, from Ben to the office, and back.
fn the_round(country: &Country) {
    country.run("ann", "put customer/c1 name=Kiosk").ok();
    country.run("ann", "put order/o1 customer=c1 discount=45").ok();
    country.run("ben", "put customer/c2 name=Pier").ok();
    let told = country.run("ann", "bundle export @a --for ben").ok();
    assert!(told.starts_with("2 changes for ben in "), "{told}");
    assert!(told.contains("it is not encrypted"), "{told}");
    assert_eq!(country.run("ben", "bundle import @a").ok(), "from ann: 2 new changes\n");
    assert_eq!(country.run("ben", "bundle import @a").ok(), "from ann: 0 new changes\n");
    assert_eq!((country.unsaved("ann"), country.unsaved("ben")), (2, 3));

    let told = country.run("ben", "bundle export @b --for relay --json").json();
    assert_eq!(
        (&told["schema"], &told["changes"], &told["encrypted"]),
        (&json!("fieldkeep/bundle-export/1"), &json!(3), &json!(false))
    );
    let told = country.run("relay", "bundle import @b --json").json();
    assert_eq!((&told["from"], &told["changes"]), (&json!("ben"), &json!(3)));
    country.run("relay", "bundle export @back --for ben --since @b").ok();
    let told = country.run("ben", "bundle import @back --json").json();
    assert_eq!((&told["saved"], &told["proven"]), (&json!(3), &json!(2)));
    country.run("ben", "bundle export @home --for ann --since @a").ok();
    let told = country.run("ann", "bundle import @home").ok();
    assert_eq!(told, "from ben: 1 new change, 3 saved by the relay\n");
    assert_eq!((country.unsaved("ann"), country.unsaved("ben")), (0, 0));
    let held = country.run("ann", "get order/o1 --json").json();
    assert_eq!(held["state"], json!("held"));
    assert!(country.run("ann", "attention list").ok().contains("above 30 percent"));
    country.run("relay", "bundle export @last --for ann").ok();
    country.run("ann", "bundle import @last").ok();
    for dir in ["ann", "ben"] {
        let status = country.run(dir, "status --json").json();
        for ty in status["types"].as_array().expect("a list") {
            assert_eq!(ty["status"], json!("fully_synced"), "{dir}: {ty}");
        }
        country.run(dir, "doctor").ok();
        let exported =
            ["customer", "order"].map(|ty| country.run(dir, &format!("export {ty}")).ok());
        let at_relay =
            ["customer", "order"].map(|ty| country.run("relay", &format!("export {ty}")).ok());
        assert_eq!(exported, at_relay, "{dir}");
    }
}

#[test]
fn what_was_captured_without_any_network_reaches_the_office_and_its_verdicts_come_back() {
    the_round(&Country::new());
}

#[test]
fn bundles_work_through_processes_that_serve() {
    let mut country = Country::new();
    // They look for the relay where it was, so only files pass between them.
    country.serve();
    the_round(&country);
}

#[test]
fn a_bundle_that_does_not_fit_is_refused_with_its_exit_code_and_what_to_do() {
    let country = Country::new();
    country.run("ann", "put customer/c1 name=Kiosk").ok();
    country.run("ann", "bundle export @a --for ben").ok();
    country.fails("ann", "bundle import @a", 6, "was written for ben");
    country.fails("relay", "bundle import @a", 6, "was written for ben");
    country.fails("ann", "bundle export @x --for ann", 2, "for somebody else");
    country.fails("ann", "bundle export @x --for dan", 3, "no device is called");
    country.fails("ann", "bundle export @x --for relay --since @a", 2, "--since");
    country.fails("ann", "bundle export @x --for ben --since @none", 3, "none");
    country.fails("ann", "bundle import @none", 3, "none");
    assert!(!country.place.path("x").exists(), "a file is written whole or not at all");
    let file = std::fs::read(country.place.path("a")).expect("it is there");
    std::fs::write(country.place.path("cut"), &file[..file.len() / 2]).expect("it is written");
    country.fails("ben", "bundle import @cut", 7, "cut short");
    let mut altered = file.clone();
    altered[file.len() / 2] ^= 1;
    std::fs::write(country.place.path("altered"), altered).expect("it is written");
    country.fails("ben", "bundle import @altered", 7, "nothing was changed");
    std::fs::write(country.place.path("text"), "what is this?").expect("it is written");
    country.fails("ben", "bundle import @text", 4, "no bundle");
    // One that builds on another, which never came.
    country.run("ann", "put customer/c1 name=Pier").ok();
    country.run("ann", "bundle export @b --for ben --since @a").ok();
    let early = country.run("ben", "bundle import @b");
    assert_eq!(early.code, 4, "{}", early.out);
    assert!(early.out.contains("without --since"), "{}", early.out);
    assert_eq!(country.run("ben", "export customer").ok(), "");
    country.run("ben", "bundle import @a").ok();
    country.run("ben", "bundle import @b").ok();
    assert!(country.run("ben", "export customer").ok().contains("Pier"));
}
