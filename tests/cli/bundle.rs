//! Carrying by hand through the command line: the files, what is said, the exit codes; alone and
//! through a process that serves.

use crate::process::{Place, Ran, Running};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]
[type.customer.field.photos]
kind = "attachment"
media = ["image/*"]
max_size = "1 MB"

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

/// A photo of Ann's goes to Ben, and by him to the office.
fn the_photo(country: &Country) {
    country.place.file("front.png", "pixels");
    let here = |dir: &str, country: &Country| {
        let listed = country.run(dir, "attachments list customer/c3 --json").json();
        listed["records"][0]["state"].as_str().unwrap_or("not known").to_owned()
    };
    country.run("ann", "put customer/c3 name=Harbour").ok();
    country.run("ann", "attach customer/c3 photos @front.png").ok();
    let told = country.run("ann", "bundle export @plain --for ben --without-attachments").ok();
    assert!(told.contains(" changes for ben in "), "{told}");
    let told = country.run("ann", "bundle export @p --for ben").ok();
    assert!(told.contains(" changes and 1 file of 6 bytes for ben in "), "{told}");
    country.run("ben", "bundle import @plain").ok();
    assert_eq!(here("ben", country), "elsewhere");
    let told = country.run("ben", "bundle import @p").ok();
    assert_eq!(told, "from ann: 0 new changes, 1 new file\n");
    assert_eq!(country.run("ben", "bundle import @p").ok(), "from ann: 0 new changes\n");
    country.run("ben", "attachments get customer/c3 front.png --out @copy").ok();
    assert_eq!(std::fs::read_to_string(country.place.path("copy")).expect("written"), "pixels");

    let told = country.run("ben", "bundle export @po --for relay --json").json();
    assert_eq!((&told["files"], &told["file_bytes"]), (&json!(1), &json!(6)));
    let told = country.run("relay", "bundle import @po").ok();
    assert_eq!(told, "from ben: 2 new changes, 1 new file\n");
    assert_eq!(country.run("relay", "bundle import @po --json").json()["files"], json!(0));
    // Ben's own bundle shows that he has it; of Ann the office knows nothing.
    for (dir, since, files) in [("ben", " --since @po", 0), ("ann", "", 1)] {
        assert_eq!(here(dir, country), "waiting_for_record", "{dir}");
        let told = country.run("relay", &format!("bundle export @back --for {dir}{since} --json"));
        assert_eq!(told.json()["files"], json!(files), "{dir}");
        let told = country.run(dir, "bundle import @back").ok();
        assert!(told.contains("1 of the files on the relay"), "{told}");
        assert!(!told.contains("new file"), "{told}");
        assert_eq!(here(dir, country), "here", "{dir}");
    }
}

/// What Ann puts aside is aside at the office.
fn the_wish(country: &Country) {
    country.run("ann", "put order/o9 discount=50").ok();
    country.run("ann", "attention dismiss order/o9 --note agreed").ok();
    country.run("ann", "bundle export @w --for relay").ok();
    country.run("relay", "bundle import @w").ok();
    let aside = || {
        let list = country.run("relay", "relay quarantine list --json").json();
        let records = list["records"].as_array().expect("a list").clone();
        let o9 = records.into_iter().find(|record| record["id"] == "o9").expect("it is held");
        o9["dismissed"]["note"].as_str().map(str::to_owned)
    };
    assert_eq!(aside().as_deref(), Some("agreed"));
    country.run("ann", "attention reopen order/o9").ok();
    country.run("ann", "bundle export @again --for relay").ok();
    country.run("relay", "bundle import @again").ok();
    country.run("relay", "bundle import @w").ok();
    assert_eq!(aside(), None, "what is old is not heard again");
}

#[test]
fn a_photo_and_what_was_put_aside_go_by_hand_too() {
    let country = Country::new();
    the_photo(&country);
    the_wish(&country);
}

#[test]
fn a_photo_and_what_was_put_aside_go_through_processes_that_serve() {
    let mut country = Country::new();
    country.serve();
    the_photo(&country);
    the_wish(&country);
}

#[test]
fn a_photo_that_was_damaged_on_its_way_is_refused_and_the_rest_is_taken() {
    let country = Country::new();
    country.place.file("front.png", "these are the pixels");
    country.run("ann", "put customer/c1 name=Kiosk").ok();
    country.run("ann", "attach customer/c1 photos @front.png").ok();
    for (to, dir) in [("ben", "ben"), ("relay", "relay")] {
        country.run("ann", &format!("bundle export @sound --for {to}")).ok();
        let mut file = std::fs::read(country.place.path("sound")).expect("it is there");
        let at = file.windows(10).position(|bytes| bytes == b"the pixels");
        file[at.expect("it is not encrypted")] ^= 1;
        std::fs::write(country.place.path("damaged"), file).expect("it is written");
        let ran = country.run(dir, "bundle import @damaged");
        assert_eq!(ran.code, 4, "{}", ran.err);
        assert!(ran.out.contains("from ann: 2 new changes\n"), "{}", ran.out);
        assert!(ran.out.contains("not taken: what came from byte 0 on"), "{}", ran.out);
        assert!(ran.out.contains("1 part not taken, everything else was"), "{}", ran.out);
        let told = country.run(dir, "bundle import @sound").ok();
        assert_eq!(told, "from ann: 0 new changes, 1 new file\n", "{dir}");
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
fn a_bundle_holds_what_its_receiver_may_read_and_one_of_a_stranger_is_refused() {
    let place = Place::new();
    let scoped = "catalog = 1\n[type.visit]\nscope = \"outlet\"\n[type.visit.field.outlet]\n";
    let _relay = place.relay(scoped);
    place.device("ann", &[]);
    place.device("ben", &["--scope", "visit=41"]);
    let country = Country { place, serving: Vec::new() };
    for name in ["ann", "ben"] {
        country.run(name, "sync").ok();
    }
    country.run("ann", "put visit/v1 outlet=41").ok();
    country.run("ann", "put visit/elsewhere outlet=42").ok();
    country.run("ann", "bundle export @scoped --for ben").ok();
    let bytes = std::fs::read(country.place.path("scoped")).expect("it is there");
    // As long as no signature can hold by chance.
    let named = bytes.windows(9).any(|window| window == b"elsewhere");
    assert!(!named, "nothing of another outlet is in it");
    let told = country.run("ben", "bundle import @scoped --json").json();
    assert_eq!(told["changes"], json!(1));
    assert_eq!(
        country.run("ben", "list visit --json").json()["records"].as_array().map(Vec::len),
        Some(1)
    );

    // Another organisation, and somebody of it who is nobody here.
    let other = Country::new();
    other.run("ann", "put customer/c1 name=Kiosk").ok();
    other.run("ann", "bundle export @strange --for relay").ok();
    let strange = other.place.path("strange");
    std::fs::copy(&strange, country.place.path("strange")).expect("it is copied");
    let before = country.run("relay", "status --json").json()["types"].clone();
    for dir in ["relay", "ben"] {
        let refused = country.run(dir, "bundle import @strange");
        assert_eq!(refused.code, 6, "{dir}: {} {}", refused.out, refused.err);
        assert!(refused.err.contains("organisation"), "{dir}: {}", refused.err);
    }
    assert_eq!(country.run("relay", "status --json").json()["types"], before);
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
