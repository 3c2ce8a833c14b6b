//! The console of a relay without a browser: who comes in and what he may do there, what every answer says,
//! and that what is done by a form is done in the relay's store, under the operator's name.

use std::time::{Duration, Instant};

use crate::http::{Answer, Client};
use crate::process::{self, Place, Running};
use fieldkeep_store::backup::BackupFolder;
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.order]
scope = "outlet"
[type.order.field.outlet]
[type.order.field.discount]
schema = { type = "integer" }
[type.order.field.note]
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
[type.visit.field.order]
ref = "order"
"#;

const PASSWORD: &str = "correct horse battery";
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay with a console and three operators: vic may view, jon judge, eve administer.
struct Office {
    place: Place,
    serving: Running,
    /// Where the console is.
    origin: String,
}

/// Somebody who is signed in.
struct Operator {
    client: Client,
    token: String,
}

impl Office {
    fn new() -> Self {
        let place = Place::founded(CATALOG);
        for (name, role) in [("vic", "view"), ("jon", "judge"), ("eve", "administer")] {
            let args = ["relay", "operator", "add", name, "--role", role];
            place.run_with_input("relay", &args, &format!("{PASSWORD}\n")).ok();
        }
        let serving = place.start(
            "relay",
            &["relay", "serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"],
        );
        let origin = serving.line_beginning("console ").trim_start_matches("console ").to_owned();
        Self { place, serving, origin }
    }

    /// One with records: Ann's order was valid once and is held, and a visit refers to it; Ben's never was.
    fn busy() -> Self {
        let office = Self::new();
        let place = &office.place;
        place.device("ann", &[]);
        place.device("ben", &[]);
        place.run("ann", &["put", "order/o1", "outlet=41", "discount=10", "note=Harbour"]).ok();
        place.run("ann", &["put", "visit/v1", "order=o1"]).ok();
        place.run("ann", &["sync"]).ok();
        place.run("ann", &["put", "order/o1", "discount=45"]).ok();
        place.run("ben", &["put", "order/o2", "outlet=42", "discount=50"]).ok();
        place.run("ann", &["sync"]).ok();
        place.run("ben", &["sync"]).ok();
        office
    }

    fn stranger(&self) -> Client {
        Client::stranger(&self.origin)
    }

    /// What a sign-in gets.
    fn tries(&self, name: &str, password: &str) -> Answer {
        let page = self.stranger().get("/sign-in");
        let before = cookies(&page);
        let client = self.stranger().with("Cookie", &before).with("Origin", &self.origin);
        let token = field(&page.body, "token");
        let password = password.replace(' ', "+");
        client.post("/sign-in", &format!("token={token}&name={name}&password={password}&to=/"))
    }

    fn signed_in(&self, name: &str) -> Operator {
        let entered = self.tries(name, PASSWORD);
        assert_eq!((entered.status, entered.header("location")), (303, Some("/")), "{entered:?}");
        let client = self.stranger().with("Cookie", &cookies(&entered));
        let page = client.get("/");
        assert_eq!(page.status, 200, "{page:?}");
        let client = client.with("Origin", &self.origin);
        Operator { token: field(&page.body, "token"), client }
    }

    fn relay(&self, words: &str) -> Value {
        let args: Vec<&str> = ["relay"].into_iter().chain(words.split(' ')).collect();
        self.place.run("relay", &[&args[..], &["--json"]].concat()).json()
    }

    /// What was decided: who, what, of which record, why; newest first.
    fn decided(&self) -> Vec<[String; 4]> {
        rows(&self.relay("quarantine trail"), ["who", "act", "record", "note"])
    }

    /// What operators did: who, what, and to whom.
    fn deeds(&self) -> Vec<[String; 3]> {
        rows(&self.relay("operator trail"), ["who", "act", "note"])
    }
}

impl Operator {
    fn get(&self, path: &str) -> Answer {
        self.client.get(path)
    }

    fn post(&self, path: &str, form: &str) -> Answer {
        self.client.post(path, &format!("token={}&{form}", self.token))
    }

    /// Sends a form as one with a file is sent.
    fn post_parts(&self, path: &str, parts: &[(&str, &str)]) -> Answer {
        let token = [("token", &*self.token)];
        let parts = token.iter().chain(parts).map(|(name, value)| {
            let file = if *name == "file" { "; filename=\"c.toml\"" } else { "" };
            format!(
                "--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
            )
        });
        let body = parts.collect::<String>() + "--x--\r\n";
        self.client.ask("POST", path, Some(("multipart/form-data; boundary=x", &body)))
    }

    /// A page, once it says that.
    #[track_caller]
    fn waits_for(&self, path: &str, text: &str) -> Answer {
        let began = Instant::now();
        loop {
            let page = self.get(path);
            if page.body.contains(text) {
                return page;
            }
            assert!(began.elapsed() < PATIENCE, "{path} never says {text}: {}", page.body);
            std::thread::yield_now();
        }
    }
}

/// The cookies that an answer sets, as a browser sends them.
fn cookies(answer: &Answer) -> String {
    let set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
    let set = set.filter_map(|(_, value)| value.split(';').next());
    let set: Vec<_> = set.filter(|pair| !pair.ends_with('=')).collect();
    set.join("; ")
}

/// The value of a hidden field.
#[track_caller]
fn field(page: &str, name: &str) -> String {
    let beginning = format!("name=\"{name}\" value=\"");
    let at = page.find(&beginning).unwrap_or_else(|| panic!("no {name}: {page}"));
    page[at + beginning.len()..].split('"').next().expect("it ends").to_owned()
}

fn rows<const N: usize>(list: &Value, fields: [&str; N]) -> Vec<[String; N]> {
    let records = list["records"].as_array().expect("a list").iter();
    let text = |record: &Value, field| record[field].as_str().expect("a text").to_owned();
    records.map(|record| fields.map(|field| text(record, field))).collect()
}

#[test]
fn nobody_comes_in_without_an_account_and_its_password() {
    let office = Office::new();
    for path in
        ["/", "/quarantine?type=order", "/records/order/o1", "/devices", "/catalog", "/access"]
    {
        let refused = office.stranger().get(path);
        assert_eq!(refused.status, 303, "{path}");
        assert!(refused.header("location").is_some_and(|to| to.starts_with("/sign-in?to=")));
        assert!(!refused.body.contains("acme"), "{path}");
    }
    assert_eq!(office.stranger().get("/events").status, 401);
    let guessed = office.stranger().with("Cookie", "fieldkeep-operator-1=guessed").get("/");
    assert_eq!(guessed.status, 303);
    let wrong = office.tries("eve", "another horse battery");
    let unknown = office.tries("mallory", "another horse battery");
    for refused in [&wrong, &unknown] {
        assert_eq!(refused.status, 403);
        assert!(refused.body.contains("do not belong together"), "{refused:?}");
    }
    let entered = office.tries("eve", PASSWORD);
    let cookie = entered.header("set-cookie").expect("a session");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let eve = office.signed_in("eve");
    assert_eq!(eve.post("/sign-out", "").status, 303);
    assert_eq!(eve.get("/").status, 303, "it has ended");
    let told = [
        ["eve", "sign_out", ""],
        ["eve", "sign_in", ""],
        ["eve", "sign_in", ""],
        ["mallory", "refused", "wrong name or password"],
        ["eve", "refused", "wrong name or password"],
    ];
    assert_eq!(office.deeds()[..5], told.map(|row| row.map(str::to_owned)));
}

#[test]
fn who_guesses_passwords_is_slowed_down_and_others_come_in() {
    let office = Office::new();
    for _ in 0..5 {
        assert_eq!(office.tries("eve", "a guess of twelve").status, 403);
    }
    let refused = office.tries("eve", PASSWORD);
    assert_eq!(refused.status, 429, "also with the right one");
    assert!(refused.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok()));
    office.tries("eve", "another guess of it");
    office.signed_in("jon");
    let refused: Vec<_> = office.deeds().into_iter().filter(|deed| deed[1] == "refused").collect();
    assert_eq!(refused.len(), 6, "that it was too often is told once: {refused:?}");
}

#[test]
fn a_session_ends_with_any_change_of_its_account() {
    let office = Office::new();
    let change = |words: &[&str]| {
        let args = [&["relay", "operator"], words].concat();
        office.place.run_with_input("relay", &args, &format!("{PASSWORD}\n")).ok();
    };
    for words in [
        &["password", "jon"][..],
        &["role", "jon", "view"],
        &["role", "jon", "judge"],
        &["remove", "jon"],
    ] {
        let jon = office.signed_in("jon");
        assert_eq!(jon.get("/quarantine").status, 200);
        change(words);
        assert_eq!(jon.get("/quarantine").status, 303, "{words:?}");
    }
    assert_eq!(office.tries("jon", PASSWORD).status, 403, "he has no account any more");
    let roles = rows(&office.relay("operator list"), ["name", "role"]);
    assert_eq!(roles, [["eve", "administer"], ["vic", "view"]].map(|row| row.map(str::to_owned)));
}

#[test]
fn each_role_may_what_it_says_and_no_more() {
    let office = Office::busy();
    let [vic, jon, eve] = ["vic", "jon", "eve"].map(|name| office.signed_in(name));
    let dismissed =
        || office.relay("quarantine list --dismissed")["records"].as_array().map(Vec::len);
    for path in [
        "/",
        "/quarantine",
        "/quarantine/order/o1",
        "/records",
        "/devices",
        "/catalog",
        "/limits",
        "/backup",
    ] {
        assert_eq!(vic.get(path).status, 200, "{path}");
    }
    let page = vic.get("/quarantine/order/o1").body;
    assert!(!page.contains("id=\"dismiss\"") && !page.contains("id=\"rejudge\""), "{page}");
    for (path, form) in [
        ("/quarantine/order/o1/dismiss", "note=x"),
        ("/quarantine/order/o1/assign", "person=x"),
        ("/quarantine/rejudge", ""),
        ("/catalog/publish", "tried=x&confirmed=yes"),
    ] {
        let refused = vic.post(path, form);
        assert_eq!(refused.status, 403, "{path}");
        assert!(refused.body.contains("needs the role"), "{refused:?}");
    }
    assert_eq!((vic.get("/access").status, jon.get("/access").status), (403, 403));
    assert_eq!(dismissed(), Some(0));
    assert_eq!(jon.post("/quarantine/order/o1/dismiss", "note=x").status, 303);
    assert_eq!(dismissed(), Some(1));
    assert_eq!(jon.post("/catalog/try", "source=catalog+%3D+1").status, 403);
    assert!(!jon.get("/catalog").body.contains("id=\"try\""));
    assert_eq!(eve.get("/access").status, 200);
    let denied = ["jon", "denied", "POST /catalog/try"].map(str::to_owned);
    assert!(office.deeds().contains(&denied), "{:?}", office.deeds());
}

#[test]
fn a_form_needs_the_token_of_its_session_and_comes_from_the_consoles_own_page() {
    let office = Office::busy();
    let [jon, eve] = ["jon", "eve"].map(|name| office.signed_in(name));
    let path = "/quarantine/order/o1/dismiss";
    for form in ["note=x".to_owned(), "token=&note=x".to_owned(), format!("token={}", eve.token)] {
        assert_eq!(jon.client.post(path, &form).status, 403, "{form}");
    }
    let cookie = jon.client.headers.iter().find(|(name, _)| name == "Cookie").expect("a session");
    let form = format!("token={}&note=x", jon.token);
    let elsewhere = office.stranger().with("Cookie", &cookie.1);
    assert_eq!(elsewhere.post(path, &form).status, 403, "no origin at all");
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(
            elsewhere.clone().with("Origin", origin).post(path, &form).status,
            403,
            "{origin}"
        );
    }
    assert_eq!(jon.client.clone().with("Host", "evil.example").get("/").status, 421);
    for path in [path, "/quarantine/rejudge", "/catalog/publish", "/sign-out", "/seen"] {
        assert_eq!(jon.get(path).status, 405, "{path}: nothing changes by a mere visit");
    }
    assert_eq!(jon.client.ask("DELETE", "/quarantine/order/o1", None).status, 405);
    assert_eq!(office.decided(), Vec::<[String; 4]>::new());
    let done = jon.post("/seen", "back=//evil.example/");
    assert_eq!((done.status, done.header("location")), (303, Some("/")), "never to another site");
    let large = jon.post(path, &format!("note={}", "x".repeat(3_000_000)));
    assert_eq!(large.status, 413);
}

#[test]
fn every_answer_says_what_a_page_may_do_and_every_value_is_escaped() {
    let office = Office::busy();
    let script = "<script>alert(1)</script>\"'";
    let place = &office.place;
    place.run("ann", &["put", "order/o3", "discount=99", &format!("note={script}")]).ok();
    place.run("ann", &["sync"]).ok();
    let eve = office.signed_in("eve");
    assert_eq!(eve.post("/quarantine/order/o3/assign", "person=%3Cscript%3E").status, 303);
    let pages = [
        "/",
        "/?span=day",
        "/quarantine",
        "/quarantine?text=%3Cscript%3E&scope=%3Cscript%3E",
        "/quarantine?type=%3Cscript%3E",
        "/quarantine/order/o3",
        "/quarantine/trail",
        "/records",
        "/records?record=%3Cscript%3E",
        "/records/order",
        "/records/order/o3",
        "/records/order/o3/history",
        "/records/order/none",
        "/devices",
        "/catalog",
        "/limits",
        "/backup",
        "/access",
        "/sign-in",
        "/nowhere",
    ];
    for path in pages {
        eve.get(path).is_closed(path);
    }
    assert!(eve.get("/quarantine/order/o3").body.contains("&#60;script&#62;"));
    assert_eq!(eve.get("/quarantine/order/none").status, 404);
    assert_eq!(eve.get("/quarantine?type=ordre").status, 400);
    assert_eq!(eve.get("/nowhere").status, 404);
}

#[test]
fn what_is_held_is_found_and_shown_beside_what_was_valid() {
    let office = Office::busy();
    let vic = office.signed_in("vic");
    let found = |query: &str| -> Vec<&str> {
        let page = vic.get(&format!("/quarantine?{query}")).body;
        ["o1", "o2"]
            .into_iter()
            .filter(|id| page.contains(&format!("id=\"row-order-{id}\"")))
            .collect()
    };
    let number = |name: &str| {
        let page = vic.get("/devices").body;
        let at = page.find(&format!("<strong>{name}</strong>")).expect("the device is listed");
        let row = page[..at].rfind("device-").expect("a row");
        page[row + 7..].split('"').next().expect("a number").to_owned()
    };
    let (ben, ann) = (format!("device={}", number("ben")), format!("device={}", number("ann")));
    for (query, ids) in [
        ("", &["o1", "o2"][..]),
        ("type=order", &["o1", "o2"]),
        ("type=visit", &[]),
        ("rule=discount", &["o1", "o2"]),
        ("rule=unique", &[]),
        ("scope=41", &["o1"]),
        (&ben, &["o2"]),
        (&ann, &["o1"]),
        ("text=HARB", &["o1"]),
        ("older=1h", &[]),
        ("state=open", &["o1", "o2"]),
        ("state=aside", &[]),
        ("assigned=nobody", &[]),
    ] {
        assert_eq!(found(query), ids, "{query}");
    }
    let page = vic.get("/quarantine/order/o1").body;
    for text in [
        "the discount is above 30 percent",
        "data-side=\"As merged\">45<",
        "data-side=\"Last valid\">10<",
        "<tr class=\"differs blamed\"><td>Discount</td>",
        "<strong>discount</strong>",
        "visit/v1",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let page = vic.get("/records/order/o1").body;
    for text in ["order:41", "discount: 10 → 45", "/quarantine/order/o1", "ann, ben"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let go = vic.get("/records?record=order/o1");
    assert_eq!(go.header("location"), Some("/records/order/o1"));
}

#[test]
fn what_lies_aside_and_what_no_catalog_has_any_more_is_found_too() {
    let office = Office::new();
    let (place, vic) = (&office.place, office.signed_in("vic"));
    place.device("kim", &["--scope", "order=41"]);
    place.run("kim", &["put", "order/k1", "outlet=43"]).ok();
    place.run("kim", &["put", "order/k2", "outlet=41"]).ok();
    place.run("kim", &["sync"]).ok();
    place.run("kim", &["sync"]).ok();
    let page = vic.get("/records/order/k1").body;
    for text in ["it lies aside", "1 change lies aside: not permitted"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let page = vic.get("/devices").body;
    assert!(page.contains("\"not sent\">1 change <"), "what was not taken: {page}");
    assert!(page.contains("\"holds\">2 records<"), "{page}");
    let table = vic.get("/quarantine/export.csv").body;
    assert!(table.contains("order,k1,aside,not_permitted,"), "{table}");
    let lines = vic.get("/quarantine/export.jsonl?rule=not_permitted").body;
    let line = lines.lines().find(|line| line.starts_with('{')).expect("in a chunk");
    let line: Value = serde_json::from_str(line).expect("a line");
    assert_eq!((&line["state"], &line["records"]), (&json!("aside"), &json!(["k1"])));
    for format in ["csv", "jsonl"] {
        let printed = place.run("relay", &["relay", "quarantine", "export", "--format", format]);
        assert!(printed.ok().contains("not_permitted"), "{format}");
    }

    let next = format!("{CATALOG}[type.lead.field]\nname = {{}}\n");
    let next = place.file("next.toml", &next);
    office.relay(&format!("publish {}", next.to_str().expect("a plain path")));
    place.run("kim", &["sync"]).ok();
    place.run("kim", &["put", "lead/l1", "name=Kiosk"]).ok();
    place.run("kim", &["sync"]).ok();
    office.relay("catalog rollback");
    let page = vic.waits_for("/quarantine?type=lead", "id=\"row-lead-l1\"").body;
    assert!(page.contains("<option value=\"lead\" selected"), "{page}");
    assert_eq!(vic.get("/quarantine?type=leed").status, 400);
}

#[test]
fn what_is_decided_is_in_the_store_under_the_operators_name() {
    let office = Office::busy();
    let jon = office.signed_in("jon");
    let found = |words: &str| {
        let list = office.relay(&format!("quarantine list {words}"));
        rows(&list, ["id"]).concat().join(" ")
    };
    for (act, form) in
        [("dismiss", "note=a+test"), ("reopen", ""), ("assign", "person=mia"), ("rejudge", "")]
    {
        let done = jon.post(&format!("/quarantine/order/o1/{act}"), form);
        assert_eq!(done.header("location"), Some("/quarantine/order/o1"), "{act}: {done:?}");
        match act {
            "dismiss" => {
                assert_eq!((found("--dismissed"), found("--open")), ("o1".into(), "o2".into()))
            }
            "reopen" => assert_eq!(found("--dismissed"), ""),
            "assign" => assert_eq!(found("--assigned mia"), "o1"),
            _ => {}
        }
    }
    assert!(jon.get("/").body.contains("it is not valid"), "he is told what came of it");
    assert_eq!(jon.post("/quarantine/order/o1/assign", "person=").status, 303);
    assert_eq!(found("--assigned mia"), "");
    assert_eq!(jon.post("/quarantine/rejudge", "scope=42").status, 303);
    jon.waits_for("/quarantine", "1 record judged again: 0 valid by now");
    assert_eq!(jon.post("/quarantine/order/none/dismiss", "").status, 404);
    let told = [
        ["jon", "rejudge", "order/o2", ""],
        ["jon", "assign", "order/o1", "nobody"],
        ["jon", "rejudge", "order/o1", ""],
        ["jon", "assign", "order/o1", "mia"],
        ["jon", "reopen", "order/o1", ""],
        ["jon", "dismiss", "order/o1", "a test"],
    ];
    assert_eq!(office.decided(), told.map(|row| row.map(str::to_owned)));
    assert!(office.deeds().contains(&["jon", "rejudge", "scope=42"].map(str::to_owned)));
    let only = jon.get("/quarantine/trail?act=assign").body;
    assert!(only.contains("to mia") && !only.contains("a test"), "{only}");
    let trail = jon.get("/quarantine/trail").body;
    assert!(trail.contains("a test") && trail.contains("took up again"), "{trail}");
}

#[test]
fn what_is_sought_is_exported_as_the_command_line_does() {
    let office = Office::busy();
    let vic = office.signed_in("vic");
    for (file, kind, format) in [
        ("csv", "text/csv; charset=utf-8", "csv"),
        ("jsonl", "application/x-ndjson; charset=utf-8", "jsonl"),
    ] {
        let sent = vic.get(&format!("/quarantine/export.{file}?scope=41"));
        assert_eq!((sent.status, sent.header("content-type")), (200, Some(kind)));
        let args = ["relay", "quarantine", "export", "--scope", "41", "--format", format];
        let printed = office.place.run("relay", &args).ok();
        assert!(sent.body.contains(printed.trim_end()), "{}\n{printed}", sent.body);
    }
    let exported = ["vic", "export", "quarantine.csv scope=41"].map(str::to_owned);
    assert!(office.deeds().contains(&exported), "{:?}", office.deeds());
}

#[test]
fn a_catalog_is_tried_against_all_the_data_and_what_was_tried_is_published() {
    let office = Office::busy();
    let eve = office.signed_in("eve");
    let in_force = || {
        let catalogs = office.relay("catalog list");
        let kept = &catalogs["catalogs"][0];
        (
            kept["number"].as_u64().expect("a number"),
            kept["note"].as_str().expect("a text").to_owned(),
        )
    };
    let refused =
        eve.post_parts("/catalog/try", &[("file", ""), ("source", "catalog = 1\n[type.Ordre]")]);
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("[type.Ordre]") && refused.body.contains("Nothing was compared"));
    let looser = CATALOG.replace("<= 30", "<= 48");
    let begun = eve.post_parts("/catalog/try", &[("file", &looser), ("source", "")]);
    assert_eq!(begun.header("location"), Some("/catalog"), "{begun:?}");
    let page = eve.waits_for("/catalog", "id=\"trial\"").body;
    assert!(page.contains("1 would be released"), "{page}");
    assert!(page.contains("rule discount of order"), "{page}");
    assert_eq!(in_force().0, 1, "nothing was published");
    let tried = field(&page, "tried");
    for form in [format!("tried={tried}&note=x"), "tried=another&confirmed=yes".to_owned()] {
        assert_eq!(eve.post("/catalog/publish", &form).status, 422, "{form}");
    }
    assert_eq!(in_force().0, 1);
    let form = format!("tried={tried}&confirmed=yes&note=a+spring+sale");
    assert_eq!(eve.post("/catalog/publish", &form).status, 303);
    assert_eq!(in_force(), (2, "a spring sale".to_owned()));
    assert_eq!(eve.post("/catalog/publish", &form).status, 422, "it is published once");
    eve.waits_for("/catalog", "Everything is judged by it");
    let order =
        || office.place.run("relay", &["get", "order/o1", "--json"]).json()["state"].clone();
    assert_eq!(order(), json!("valid"));
    assert_eq!(eve.post("/catalog/try", "number=1").status, 303);
    let page = eve.waits_for("/catalog", "Going back to catalog 1").body;
    let form = format!("tried={}&confirmed=yes&note=", field(&page, "tried"));
    assert_eq!(eve.post("/catalog/publish", &form).status, 303);
    assert_eq!(in_force(), (3, "back to catalog 1".to_owned()));
    eve.waits_for("/catalog", "Everything is judged by it");
    assert_eq!(order(), json!("held"));
    let told = [["eve", "roll_back", "catalog 1, as number 3"], ["eve", "publish", "catalog 2"]];
    assert_eq!(office.deeds()[..2], told.map(|row| row.map(str::to_owned)));
}

#[test]
fn limits_are_shown_with_what_a_device_uses_of_them_and_cannot_be_changed_here() {
    let office = Office::new();
    office.place.device("ann", &[]);
    let vic = office.signed_in("vic");
    let row = |id: &str| {
        let page = vic.get("/limits").body;
        let at = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}: {page}"));
        page[at..].split("</tr>").next().expect("it ends").to_owned()
    };
    let number = office.relay("limits")["devices"][0]["number"].as_u64().expect("a number");
    let uses = || row(&format!("use-{number}"));
    let cell = |label: &str, value: &str| format!("data-label=\"{label}\">{value}</td>");
    for label in ["changes", "connections"] {
        assert!(uses().contains(&cell(label, "0")), "{}", uses());
    }
    office.place.run("ann", &["put", "order/o1", "outlet=41"]).ok();
    office.place.run("ann", &["sync"]).ok();
    let used = uses();
    assert!(used.contains("<strong>ann</strong>"), "{used}");
    assert!(used.contains(&cell("changes", "1")), "{used}");
    assert!(!used.contains(&cell("connections", "0")), "{used}");
    assert!(!used.contains(&cell("read", "0 B")) && !used.contains(&cell("log", "0 B")), "{used}");
    let limit = row("limit-bytes_a_minute");
    assert!(limit.contains("256 MiB") && limit.contains("2 GiB"), "{limit}");
    assert!(!limit.contains("default"), "{limit}");
    let page = vic.get("/limits").body;
    assert!(page.contains("Nobody was slowed down or refused") && page.contains("relay.toml"));
    assert_eq!(vic.post("/limits", "").status, 403);
    let configured = "[limits.device]\nchanges_a_minute = 1234\n";
    std::fs::write(office.place.path("relay").join("relay.toml"), configured)
        .expect("it is written");
    process::signal(office.serving.id(), "HUP");
    vic.waits_for("/limits", "1,234 <span class=\"soft small\">default 300,000</span>");
}

#[test]
fn a_backup_that_is_asked_for_lies_on_the_disk_and_is_on_the_trail() {
    let office = Office::busy();
    let [vic, jon, eve] = ["vic", "jon", "eve"].map(|name| office.signed_in(name));
    let folder = office.place.path("backups");
    let shown = folder.to_str().expect("a plain path");
    let form = format!("folder={}&confirmed=yes", shown.replace('/', "%2F"));
    assert!(vic.get("/backup").body.contains("No backup is known"));
    for other in [&vic, &jon] {
        assert!(!other.get("/backup").body.contains("id=\"make\""));
        assert_eq!(other.post("/backup", &form).status, 403);
    }
    for form in [format!("folder={shown}"), "folder=backups&confirmed=yes".to_owned()] {
        let refused = eve.post("/backup", &form);
        assert_eq!(refused.status, 422, "{form}");
        assert!(refused.body.contains("Nothing was begun"), "{refused:?}");
    }
    assert!(!folder.exists(), "nothing was begun");
    assert_eq!(eve.post("/backup", &form).header("location"), Some("/backup"));
    eve.waits_for("/backup", "Backup 1 is made");
    let page = vic.get("/backup").body;
    assert!(page.contains("<dt>Number</dt><dd>1</dd>") && page.contains(shown), "{page}");
    assert!(!page.contains("No backup is known") && !page.contains("id=\"old\""), "{page}");
    assert!(eve.get("/backup").body.contains(&format!("name=\"folder\" value=\"{shown}\"")));
    let kept = BackupFolder::open(&folder).expect("a folder of backups").backups();
    let numbers: Vec<_> =
        kept.iter().map(|(_, manifest)| (manifest.number, &*manifest.name)).collect();
    assert_eq!(numbers, [(1, "acme")]);
    let made = ["eve", "back_up", shown].map(str::to_owned);
    assert!(office.deeds().contains(&made), "{:?}", office.deeds());
    let denied = ["vic", "denied", "POST /backup"].map(str::to_owned);
    assert!(office.deeds().contains(&denied), "{:?}", office.deeds());
    let file = office.place.file("taken", "");
    let form = format!("folder={}&confirmed=yes", file.to_str().expect("a plain path"));
    assert_eq!(eve.post("/backup", &form).status, 303);
    let page = eve.waits_for("/backup", "cannot be worked in").body;
    assert!(page.contains("name a folder that can be made"), "{page}");
    let failed = ["eve", "back_up_failed", file.to_str().expect("a plain path")].map(str::to_owned);
    assert!(office.deeds().contains(&failed), "{:?}", office.deeds());
    let within = office.place.path("relay").join("backups");
    let form = format!("folder={}&confirmed=yes", within.to_str().expect("a plain path"));
    assert_eq!(eve.post("/backup", &form).status, 303);
    let page = eve.waits_for("/backup", "would be lost with it").body;
    assert!(page.contains("name another folder"), "{page}");
    assert!(page.contains("<dt>Number</dt><dd>1</dd>"), "the one before is as good: {page}");
}

#[test]
fn passwords_cross_no_network_without_a_proxy_that_speaks_tls() {
    let office = Office::new();
    assert_eq!(office.serving.stop("TERM"), 0);
    let serve = ["relay", "serve", "--listen", "127.0.0.1:0", "--console"];
    let refused = office.place.run("relay", &[&serve[..], &["0.0.0.0:0"]].concat());
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("--behind-proxy"), "{}", refused.err);
    let plain = ["0.0.0.0:0", "--behind-proxy", "http://relay.example"];
    let refused = office.place.run("relay", &[&serve[..], &plain].concat());
    assert_eq!(refused.code, 2, "a proxy that speaks no TLS: {}", refused.err);
    let proxied = ["127.0.0.1:0", "--behind-proxy", "https://relay.example"];
    let proxied = office.place.start("relay", &[&serve[..], &proxied].concat());
    assert_eq!(proxied.line_beginning("console "), "console https://relay.example");
    let port = listening_tcp(proxied.id());
    let client = Client::stranger(&format!("http://127.0.0.1:{port}"));
    assert_eq!(client.get("/sign-in").status, 421, "only the proxy's name is its own");
    let client = client.with("Host", "relay.example");
    let page = client.get("/sign-in");
    let before = page.header("set-cookie").expect("a cookie").to_owned();
    assert!(before.starts_with("__Host-") && before.contains("; Secure"), "{before}");
    let form =
        format!("token={}&name=eve&password=correct+horse+battery", field(&page.body, "token"));
    let client = client.with("Cookie", before.split(';').next().expect("a pair"));
    assert_eq!(
        client.clone().with("Origin", "http://relay.example").post("/sign-in", &form).status,
        403
    );
    let entered = client.with("Origin", "https://relay.example").post("/sign-in", &form);
    assert_eq!(entered.status, 303, "{entered:?}");
    assert!(
        entered.headers.iter().any(|(_, value)| value.starts_with("__Host-fieldkeep-operator="))
    );
}

/// The port of loopback at which a process listens for TCP, by the kernel's account.
fn listening_tcp(id: u32) -> u16 {
    let sockets = std::fs::read_dir(format!("/proc/{id}/fd")).expect("its files");
    let sockets = sockets.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    let sockets: Vec<_> = sockets.map(|link| link.to_string_lossy().into_owned()).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let listens = |line: &&str| {
        let cells: Vec<_> = line.split_whitespace().collect();
        cells.get(3) == Some(&"0A") && sockets.contains(&format!("socket:[{}]", cells[9]))
    };
    let line = table.lines().skip(1).find(listens).expect("it listens");
    let (_, port) =
        line.split_whitespace().nth(1).and_then(|own| own.split_once(':')).expect("a port");
    u16::from_str_radix(port, 16).expect("hexadecimal")
}

#[test]
fn accounts_are_given_on_the_relays_machine_and_their_trail_cannot_be_altered() {
    let place = Place::new();
    place.run("relay", &["relay", "init", "--name", "acme"]).ok();
    let add = |name: &str, password: &str| {
        let args = ["relay", "operator", "add", name, "--role", "view"];
        place.run_with_input("relay", &args, password)
    };
    let weak = add("eve", "too short\n");
    assert_eq!(weak.code, 2, "{}", weak.err);
    assert!(weak.err.contains("12"), "{}", weak.err);
    assert_eq!(add("<eve>", "correct horse battery\n").code, 2);
    add("eve", "correct horse battery\n").ok();
    assert_eq!(add("eve", "correct horse battery\n").code, 2, "the name is taken");
    let absent = place.run("relay", &["relay", "operator", "remove", "jon"]);
    assert_eq!(absent.code, 3, "{}", absent.err);
    place.run("relay", &["relay", "operator", "remove", "eve"]).ok();
    let store =
        rusqlite::Connection::open(place.path("relay").join("fieldkeep.db")).expect("it opens");
    let passwords: i64 = store
        .query_row("SELECT count(*) FROM operator WHERE password LIKE '%horse%'", [], |row| {
            row.get(0)
        })
        .expect("it counts");
    assert_eq!(passwords, 0);
    for statement in ["DELETE FROM deed", "UPDATE deed SET who = 'nobody'"] {
        let refused = store.execute(statement, []).expect_err("a trigger refuses it");
        assert!(refused.to_string().contains("what was done"), "{refused}");
    }
    drop(store);
    let trail = place.run("relay", &["relay", "operator", "trail"]).ok();
    assert!(trail.contains("remove: eve") && trail.contains("add: eve: view"), "{trail}");
}
