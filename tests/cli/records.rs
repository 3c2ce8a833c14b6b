//! What can be asked of records from the command line: history, the past, concurrent values, words,
//! why one looks as it does; and writing with care.

use std::os::unix::fs::FileExt as _;

use crate::process::{Place, Running};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1

[type.customer]
share = "{{ record.name }}: {% for n in range(record.city | length) %}{% for m in range(100000) %}{% endfor %}{% endfor %}"
[type.customer.field.name]
[type.customer.field.city]

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

fn organisation() -> (Place, Running) {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.device("ben", &[]);
    (place, relay)
}

/// A customer for whom both have written a city at the same time; ann knows of it.
fn two_cities() -> (Place, Running) {
    let (place, relay) = organisation();
    place.run("ann", &["put", "customer/c1", "city=Riga"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ben", &["sync"]).ok();
    place.run("ann", &["put", "customer/c1", "city=Tartu"]).ok();
    place.run("ben", &["put", "customer/c1", "city=Tallinn"]).ok();
    for device in ["ann", "ben", "ann"] {
        place.run(device, &["sync"]).ok();
    }
    (place, relay)
}

#[test]
fn the_past_of_a_record_can_be_read_by_change_and_by_time() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "customer/c1", "name=Kiosk", "city=Riga"]).ok();
    place.run("ann", &["put", "customer/c1", "city=Tartu"]).ok();
    let history = place.run("ann", &["history", "customer/c1", "--json"]).json();
    let changes = history["history"].as_array().expect("a list");
    assert_eq!(changes.len(), 2);
    let first = changes[1]["change"].as_str().expect("a hash");
    let was = place.run("ann", &["at", "customer/c1", &first[..8], "--json"]).json();
    assert_eq!(was["fields"], json!({"city": "Riga", "name": "Kiosk"}));
    let time = changes[1]["time"].as_str().expect("a time");
    assert!(place.run("ann", &["at", "customer/c1", time]).ok().contains("Riga"));
    let before = place.run("ann", &["at", "customer/c1", "2001-01-01T00:00:00Z"]);
    assert_eq!(before.code, 3, "{}", before.err);
    assert!(before.err.contains("fieldkeep history customer/c1"), "{}", before.err);
}

#[test]
fn a_history_is_told_page_by_page_and_a_record_goes_back_to_what_it_was() {
    let (place, _relay) = organisation();
    for discount in [10, 12, 14, 16] {
        place.run("ann", &["put", "order/o1", &format!("discount={discount}")]).ok();
    }
    let page = place.run("ann", &["history", "order/o1", "--limit", "2"]).ok();
    assert!(page.contains("  discount: 14 → 16\n") && page.contains("  discount: 12 → 14\n"));
    assert!(!page.contains("10 → 12"), "{page}");
    let next = page.lines().last().and_then(|line| line.split("fieldkeep ").nth(1));
    let next: Vec<_> = next.expect("the way on").split(' ').collect();
    let rest = place.run("ann", &next).ok();
    assert!(rest.contains("  discount: none → 10\n") && !rest.contains("14 → 16"), "{rest}");
    let told = place.run("ann", &["history", "order/o1", "--limit", "3", "--json"]).json();
    assert_eq!((&told["schema"], &told["changes"]), (&json!("fieldkeep/history/1"), &json!(4)));
    let write = &told["history"][2]["writes"][0];
    assert_eq!((&write["before"], &write["after"]), (&json!(10), &json!(12)));
    assert_eq!(told["next"], told["history"][2]["change"]);

    let change = told["history"][2]["change"].as_str().expect("a hash");
    let back = place.run("ann", &["revert", "order/o1", "--to", &change[..10]]).ok();
    assert_eq!(back, "order/o1: written as it was then, by an ordinary edit\n");
    let discount =
        || place.run("ann", &["get", "order/o1", "--json"]).json()["fields"]["discount"].clone();
    assert_eq!(discount(), json!(12));
    let again = place.run("ann", &["revert", "order/o1", "discount", "--to", change]).ok();
    assert_eq!(again, "order/o1: it is as it was then already\n");
    let unknown = place.run("ann", &["revert", "order/o1", "--to", "2001-01-01T00:00:00Z"]);
    assert_eq!(unknown.code, 3, "{}", unknown.err);
    assert!(unknown.err.contains("was not there then: nothing was saved"), "{}", unknown.err);
    let several = place.run("ann", &["revert", "order/o1", "--to", ""]);
    assert_eq!(several.code, 2, "{}", several.err);
    assert_eq!(place.run("ann", &["history", "order/o1", "--before", "zz"]).code, 3);
    assert_eq!(place.run("ann", &["history", "order/o1", "--limit", "0"]).code, 2);
    assert_eq!(discount(), json!(12));
    // A relay's directory has the past too, of what it was sent.
    place.run("ann", &["sync"]).ok();
    let there = place.run("relay", &["history", "order/o1", "--limit", "1"]).ok();
    assert!(there.contains("ann on ann") && there.contains("discount: 16 → 12"), "{there}");
}

#[test]
fn a_template_that_does_not_end_is_stopped_and_changes_nothing() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "customer/c1", "name=Kiosk"]).ok();
    let shared = place.run("ann", &["share", "customer/c1"]).ok();
    assert_eq!(shared, "Kiosk:\n\n[unsaved: it is not on the relay yet]\n");
    place.run("ann", &["put", "customer/c1", "city=Tallinn"]).ok();
    let before = place.run("ann", &["get", "customer/c1", "--json"]).json();
    let endless = place.run("ann", &["share", "customer/c1"]);
    assert_eq!((endless.code, endless.out.as_str()), (4, ""), "{}", endless.err);
    assert!(endless.err.contains("the template takes more than 50000 steps"), "{}", endless.err);
    assert!(endless.err.contains("nothing was changed"), "{}", endless.err);
    assert_eq!(place.run("ann", &["get", "customer/c1", "--json"]).json(), before);
    place.run("ann", &["put", "order/o1", "customer=c1", "discount=45"]).ok();
    let order = place.run("ann", &["share", "order/o1", "--json"]).json();
    let text = "order: o1\ncustomer: c1\ndiscount: 45\n\n\
                [likely to be held: the discount is above 30 percent]\n\
                [unsaved: it is not on the relay yet]";
    assert_eq!((&order["schema"], &order["text"]), (&json!("fieldkeep/share/1"), &json!(text)));
    assert_eq!(place.run("ann", &["share", "order/none"]).code, 3);
    assert_eq!(place.run("relay", &["share", "order/o1"]).code, 2);
}

#[test]
fn one_of_several_values_is_chosen_by_an_ordinary_edit() {
    let (place, _relay) = two_cities();
    let said = place.run("ann", &["conflicts", "customer/c1"]).ok();
    assert!(said.contains("  1  ") && said.contains("  2  ") && said.contains("by ben"), "{said}");
    let absent = place.run("ann", &["resolve", "customer/c1", "city=7"]);
    assert_eq!(absent.code, 3, "{}", absent.err);
    // The one that is not shown, and then the other: both ways settle it.
    place.run("ann", &["resolve", "customer/c1", "city=2"]).ok();
    let conflicts = place.run("ann", &["conflicts", "customer/c1"]).ok();
    assert_eq!(conflicts, "no field has concurrent values\n");
    place.run("ann", &["sync"]).ok();
    place.run("ben", &["sync"]).ok();
    let [here, there] = ["ann", "ben"].map(|d| place.run(d, &["get", "customer/c1"]).ok());
    assert_eq!(here, there);
}

#[test]
fn the_value_that_is_shown_can_be_chosen_too() {
    let (place, _relay) = two_cities();
    place.run("ann", &["resolve", "customer/c1", "city=1"]).ok();
    let conflicts = place.run("ann", &["conflicts", "customer/c1"]).ok();
    assert_eq!(conflicts, "no field has concurrent values\n");
    place.run("ann", &["put", "order/o1", "discount=10", "--await", "judged"]).ok();
    place.run("ann", &["put", "order/o1", "discount=45", "--await", "judged"]).ok();
    place.run("ann", &["resolve", "order/o1", "discount=last_valid"]).ok();
    assert!(place.run("ann", &["get", "order/o1"]).ok().contains("discount  10"));
}

#[test]
fn records_are_found_by_their_words() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "customer/c1", "name=Café Österreich", "city=Riga"]).ok();
    place.run("ann", &["put", "customer/c2", "name=Harbour Kiosk"]).ok();
    let found = |words: &[&str]| -> Vec<String> {
        let found = place.run("ann", &[&["search", "--json"], words].concat()).json();
        let records = found["records"].as_array().expect("a list").iter();
        records.map(|record| record["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(found(&["osterr"]), ["c1"], "the beginning of a word, without its marks");
    assert_eq!(found(&["kiosk", "harb"]), ["c2"]);
    assert_eq!(found(&["riga", "kiosk"]), Vec::<String>::new(), "all of the words");
    assert_eq!(found(&["c1"]), ["c1"], "the id is a word");
    assert_eq!(found(&["\"; DROP", "TABLE"]), Vec::<String>::new());
    place.run("ann", &["put", "customer/c1", "name=Bakery"]).ok();
    place.run("ann", &["delete", "customer/c2"]).ok();
    assert_eq!(found(&["bakery"]), ["c1"]);
    assert_eq!(found(&["kiosk"]), Vec::<String>::new());
    assert_eq!(place.run("ann", &["search", "x", "--type", "nothing"]).code, 2);
}

#[test]
fn a_write_can_be_tried_refused_and_awaited() {
    let (place, _relay) = organisation();
    let tried = place.run("ann", &["put", "order/o1", "discount=45", "--what-if"]).ok();
    assert!(tried.contains("likely held: the discount is above 30 percent"), "{tried}");
    assert!(tried.ends_with("nothing was written\n"), "{tried}");
    assert_eq!(place.run("ann", &["get", "order/o1"]).code, 3);
    let strict = place.run("ann", &["put", "order/o1", "discount=45", "--strict"]);
    assert_eq!(strict.code, 4, "{}", strict.err);
    assert_eq!(place.run("ann", &["get", "order/o1"]).code, 3);
    place.run("ann", &["put", "order/o1", "discount=20", "--strict"]).ok();
    let saved = place.run("ann", &["put", "order/o1", "discount=25", "--await", "relay", "--json"]);
    assert_eq!(saved.json()["unsaved"], false);
    let judged = place.run("ann", &["put", "order/o1", "discount=50", "--await", "judged"]).ok();
    assert!(judged.starts_with("order/o1  held\n"), "{judged}");
    // A trial between two writes does not make the directory look like a copy.
    let chained = place.run("ann", &["put", "order/o1", "discount=5", "--await", "judged"]).ok();
    assert!(chained.starts_with("order/o1  valid\n"), "{chained}");
}

#[test]
fn a_record_is_explained() {
    let (place, relay) = organisation();
    place.run("ann", &["put", "order/o1", "discount=10"]).ok();
    let said = place.run("ann", &["explain", "order/o1"]).ok();
    assert!(said.contains("order/o1 is here: likely valid"), "{said}");
    assert!(said.contains("1 change has no receipt of the relay yet"), "{said}");
    place.run("ann", &["put", "order/o1", "discount=45", "--await", "judged"]).ok();
    let said = place.run("ann", &["explain", "order/o1"]).ok();
    assert!(said.contains("order/o1 is here: held"), "{said}");
    assert!(said.contains("the rule objects to discount: ann on ann"), "{said}");
    assert!(said.contains("proven equal"), "{said}");
    let known = place.run("ann", &["explain", "order/o1", "--json"]).json();
    assert_eq!((&known["scope"], &known["proven"]), (&json!(""), &json!(true)));
    assert_eq!(known["writers"][0]["changes"], 2);
    let absent = place.run("ann", &["explain", "order/o9"]);
    assert_eq!((absent.code, absent.out.contains("is not here")), (3, true));
    place.run("ann", &["pause", "order"]).ok();
    assert!(place.run("ann", &["explain", "order/o9"]).out.contains("syncing of order is paused"));
    drop(relay);
}

#[test]
fn the_doctor_finds_what_is_wrong_and_derives_it_again() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "customer/c1", "name=Kiosk"]).ok();
    place.run("ann", &["sync"]).ok();
    let fine = place.run("ann", &["doctor"]).ok();
    assert!(!fine.contains("WRONG") && fine.contains("each what its changes come to"), "{fine}");
    let tamper = |statement: &str| {
        let database = rusqlite::Connection::open(place.path("ann").join("fieldkeep.db"));
        database.expect("it opens").execute(statement, []).expect("it writes");
    };
    tamper(r#"UPDATE record SET json = '{"name":"forged"}' WHERE id = 'c1'"#);
    tamper("UPDATE tally SET unsaved = 7");
    let wrong = place.run("ann", &["doctor"]);
    assert_eq!(wrong.code, 7, "{}", wrong.out);
    assert!(wrong.out.contains("WRONG  records") && wrong.out.contains("WRONG  counts"));
    assert!(wrong.out.contains("doctor --repair"));
    // What was found is not forgotten: nothing is called synced before it is mended and proven.
    let standing = || {
        let status = place.run("ann", &["status", "--json"]).json();
        let mut types = status["types"].as_array().into_iter().flatten();
        let customer = types.find(|row| row["type"] == "customer").expect("it is there");
        (status["synced"].clone(), customer["status"].clone())
    };
    assert_eq!(standing(), (json!(false), json!("incomplete")));
    let advice = place.run("ann", &["advice"]).ok();
    assert!(advice.contains("are not what its changes say"), "{advice}");
    assert!(advice.contains("  fieldkeep resync\n"), "{advice}");
    let repaired = place.run("ann", &["doctor", "--repair"]).ok();
    assert!(
        repaired.starts_with("derived 1 segment again; changes were not touched"),
        "{repaired}"
    );
    assert!(place.run("ann", &["get", "customer/c1"]).ok().contains("Kiosk"));
    assert!(place.run("ann", &["search", "kiosk"]).ok().contains("customer/c1"));
    assert_eq!(
        standing(),
        (json!(false), json!("incomplete")),
        "derived again, and not proven yet"
    );
    assert!(place.run("ann", &["advice"]).ok().ends_with("  fieldkeep sync\n"));
    place.run("ann", &["sync"]).ok();
    assert_eq!(standing(), (json!(true), json!("fully_synced")));
    // Changes are not what can be derived: the relay has them.
    tamper("UPDATE change SET bytes = CAST(bytes || x'00' AS BLOB)");
    let wrong = place.run("ann", &["doctor", "--repair"]);
    assert_eq!(wrong.code, 7, "{}", wrong.out);
    assert!(wrong.out.contains("resync customer"), "{}", wrong.out);
    place.run("ann", &["resync", "customer"]).ok();
    assert_eq!(place.run("ann", &["doctor"]).code, 0);
}

#[test]
fn the_doctor_notices_what_no_repair_derives_again() {
    let place = Place::new();
    place.run("relay", &["relay", "init", "--name", "acme"]).ok();
    let (_relay, _) = place.serve_at("127.0.0.1:0");
    place.device("ann", &[]);
    let publish = |catalog: &str| {
        let file = place.file("catalog.toml", catalog);
        place.run("relay", &["relay", "publish", file.to_str().expect("plain")]).ok();
        place.run("ann", &["sync"]).ok();
    };
    let doctor = || place.run("ann", &["doctor"]);
    let said = doctor().ok();
    assert!(said.contains("note   catalog     there is no catalog here yet\n"), "{said}");
    publish("catalog = 1\n[type.customer.field.name]\n");
    publish(CATALOG);
    place.run("ann", &["put", "order/o1", "discount=10"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("relay", &["relay", "catalog", "rollback"]).ok();
    place.run("ann", &["sync"]).ok();
    let said = doctor().ok();
    assert!(said.contains("note   catalog     the catalog has no order, of which"), "{said}");

    let database = place.path("ann").join("fieldkeep.db");
    let opened = rusqlite::Connection::open(&database).expect("it opens");
    opened.execute("UPDATE segment SET records = 6000", []).expect("it writes");
    let said = doctor().out;
    assert!(said.contains("note   segments    order has 6000 records"), "{said}");
    // A page of the file that nothing else reads.
    let index = "SELECT rootpage FROM sqlite_master WHERE name = 'decision_by_record'";
    let page: i64 = opened.query_row(index, [], |row| row.get(0)).expect("it is there");
    let size: i64 = opened.query_row("PRAGMA page_size", [], |row| row.get(0)).expect("it reads");
    opened.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("it is folded in");
    drop(opened);
    let file = std::fs::File::options().write(true).open(&database).expect("it opens");
    let at = u64::try_from((page - 1) * size).expect("behind the first");
    file.write_all_at(&[0xff; 64], at).expect("it writes");
    let wrong = doctor();
    assert_eq!(wrong.code, 7, "{}", wrong.err);
    assert!(wrong.out.contains("WRONG  file"), "{}", wrong.out);
    assert!(wrong.out.contains("put a backup of the directory back"), "{}", wrong.out);
}

#[test]
fn records_are_told_of_as_they_change() {
    let (place, _relay) = organisation();
    for alone in [true, false] {
        let keeper = (!alone).then(|| place.start("ann", &["sync", "--watch"]));
        keeper.iter().for_each(|keeper| drop(keeper.line_beginning("synced")));
        let watch = place.start("ann", &["watch", "customer", "--json"]);
        // Once it is told of a write here, it hears of all that come after.
        let mut told = Value::Null;
        for n in 0..100 {
            place.run("ben", &["put", "order/o1", &format!("discount={}", n % 30)]).ok();
            place.run("ben", &["put", "customer/c1", &format!("name=from {alone} {n}")]).ok();
            place.run("ben", &["sync"]).ok();
            if let Some(line) = watch.has_said() {
                told = serde_json::from_str(&line).expect("an object");
                break;
            }
        }
        assert_eq!((&told["type"], &told["id"]), (&json!("customer"), &json!("c1")), "{alone}");
        assert_eq!(watch.stop("INT"), 130);
        if let Some(keeper) = keeper {
            keeper.stop("INT");
        }
    }
}

#[test]
fn shells_and_readers_of_manuals_are_served() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run("", &["completions", shell]).ok().contains("clear"), "{shell}");
    }
    let page = place.run("", &["man", "clear"]).ok();
    assert!(page.contains(".TH fieldkeep-clear") && page.contains("dry"), "{page}");
    assert_eq!(place.run("", &["man", "nothing"]).code, 2);
}
