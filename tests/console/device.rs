//! The console without a browser: who gets in, what every answer says, and the HTTP API.

use std::time::Duration;

use crate::http::Client;
use crate::process::{Place, Running};
use fieldkeep_device::Device;
use fieldkeep_model::{Edit, RecordKey};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]
[type.customer.field.visits]
kind = "counter"

[type.order]
online_only = "before.status == 'confirmed'"
[type.order.field.customer]
ref = "customer"
[type.order.field.discount]
schema = { type = "integer" }
[type.order.field.status]
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"

[action.rename]
description = "Give a customer another name"
who = "everyone"
input.customer = { required = true, ref = "customer" }
input.name = { required = true }
record.customer = "customer/{input.customer}"
[[action.rename.effect]]
type = "customer"
id = "input.customer"
fields = { name = "input.name" }
[query.names]
who = "everyone"
sql = "SELECT id, name FROM customer ORDER BY id"
"#;

/// A device that serves its console, in an organisation with a relay.
struct Served {
    place: Place,
    serving: Running,
    _relay: Running,
    /// The one-time URL that it printed.
    url: String,
}

impl Served {
    fn new() -> Self {
        Self::after(|_| ())
    }

    /// One that serves after something was done to its directory.
    fn after(prepare: impl FnOnce(&Place)) -> Self {
        let place = Place::new();
        let relay = place.relay(CATALOG);
        place.device("ann", &[]);
        prepare(&place);
        let serving = place.start("ann", &["serve", "--console", "127.0.0.1:0", "--no-nearby"]);
        let line = serving.line();
        let url = line.strip_prefix("console ").expect("it says where").to_owned();
        Self { place, serving, _relay: relay, url }
    }

    /// How long its threads have worked in all, by the kernel's account: what else the machine does is
    /// no matter of theirs.
    fn worked(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.serving.id()));
        let nanos = tasks.expect("Linux lists them").filter_map(|task| {
            let account = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            account.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    fn stranger(&self) -> Client {
        Client::stranger(&self.url)
    }

    /// What a browser shows after it has followed the URL.
    fn browser(&self) -> Client {
        let path = &self.url[self.url.find("/enter").expect("a path")..];
        let entered = self.stranger().get(path);
        assert_eq!(entered.status, 200, "{entered:?}");
        let cookie = entered.header("set-cookie").expect("a session").to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let session = cookie.split(';').next().expect("a value");
        self.stranger().with("Cookie", session)
    }

    /// A program with a session of its own.
    fn program(&self) -> Client {
        let opened = self.place.run("ann", &["console", "--json"]).json();
        let token = opened["token"].as_str().expect("a session");
        self.stranger().with("Authorization", &format!("Bearer {token}"))
    }
}

#[test]
fn an_address_opens_the_console_once_and_nothing_opens_without() {
    let served = Served::new();
    let browser = served.browser();
    assert_eq!(browser.get("/").status, 200);
    let path = &served.url[served.url.find("/enter").expect("a path")..];
    let again = served.stranger().get(path);
    assert_eq!(again.status, 401);
    assert!(again.body.contains("fieldkeep console"), "{again:?}");
    for path in ["/", "/data", "/records/order", "/settings", "/events", "/peers/code.svg"] {
        let refused = served.stranger().get(path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(!refused.body.contains("acme"), "{path}: {}", refused.body);
    }
    let refused = served.stranger().get("/api/v1/status");
    assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("denied")));
    let port = served.stranger().host.rsplit_once(':').expect("a port").1.to_owned();
    let guessed = served.stranger().with("Cookie", &format!("fieldkeep-{port}=guessed"));
    assert_eq!(guessed.get("/").status, 401);
    let fresh = served.place.run("ann", &["console"]).ok();
    let fresh = fresh.trim();
    assert_eq!(served.stranger().get(&fresh[fresh.find("/enter").expect("a path")..]).status, 200);
}

#[test]
fn another_site_can_neither_speak_for_the_user_nor_point_a_name_here() {
    let served = Served::new();
    let browser = served.browser();
    let own = format!("http://{}", browser.host);
    let paused =
        || served.place.run("ann", &["status", "--json"]).json()["types"][0]["status"] == "paused";
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let refused = browser.clone().with("Origin", origin).post("/do/pause", "back=/");
        assert_eq!(refused.status, 403, "{origin}");
    }
    assert_eq!(browser.post("/do/pause", "back=/").status, 403, "no origin at all");
    let api = browser.clone().with("Origin", "https://evil.example");
    assert_eq!(api.ask("POST", "/api/v1/pause", None).status, 403);
    assert!(!paused());
    let named = browser.clone().with("Host", "evil.example").get("/");
    assert_eq!(named.status, 421);
    // Nothing changes by a mere visit.
    for path in ["/do/pause", "/do/sync", "/do/clear", "/leave", "/api/v1/pause", "/api/v1/sync"] {
        assert_eq!(browser.get(path).status, 405, "{path}");
    }
    assert!(!paused());
    let done = browser.clone().with("Origin", &own).post("/do/pause", "back=//evil.example/");
    assert_eq!((done.status, done.header("location")), (303, Some("/")), "never to another site");
    assert!(paused());
}

#[test]
fn every_answer_says_what_a_page_may_do_and_every_value_is_escaped() {
    let served = Served::new();
    let browser = served.browser();
    let script = "<script>alert(1)</script>\"'";
    served.place.run("ann", &["put", "customer/c1", &format!("name={script}")]).ok();
    let pages = [
        "/",
        "/data",
        "/data/customer",
        "/records/customer",
        "/records/customer/c1",
        "/records/customer/c1/history",
        "/edit/customer/c1",
        "/new/customer",
        "/attention",
        "/peers",
        "/settings",
        "/clear",
        "/clear/customer",
        "/records?q=%3Cscript%3E",
        "/records/order/none",
        "/nowhere",
    ];
    for path in pages {
        browser.get(path).is_closed(path);
    }
    assert!(browser.get("/records/customer/c1").body.contains("&#60;script&#62;"));
    assert_eq!(browser.get("/records/order/none").status, 404);
    assert_eq!(browser.get("/nowhere").status, 404);
}

#[test]
fn a_program_reads_writes_and_controls_by_the_api() {
    let served = Served::new();
    let api = served.program();
    let made = api.send("POST", "/api/v1/records/customer", &json!({"name": "Kiosk", "visits": 2}));
    assert_eq!(made.status, 201);
    let id = made.json()["id"].as_str().expect("a fresh id").to_owned();
    let path = format!("/api/v1/records/customer/{id}");
    let edited = api.send("PATCH", &path, &json!({"visits": 3, "name": null})).ok();
    assert_eq!(edited["fields"], json!({"visits": 5}));
    assert_eq!(api.get(&path).ok()["schema"], "fieldkeep/get/1");
    let likely =
        api.send("POST", "/api/v1/records/order/o1/what-if", &json!({"discount": 45})).ok();
    assert_eq!(likely["state"], "likely_held");
    assert_eq!(api.get("/api/v1/records/order/o1").status, 404, "nothing was written");
    api.send("PATCH", "/api/v1/records/order/o1", &json!({"discount": 45})).ok();
    let synced = api.ask("POST", "/api/v1/sync", None).ok();
    assert_eq!(synced["held"], 1);
    let attention = api.get("/api/v1/attention").ok();
    assert_eq!(
        attention["records"][0]["verdict"]["reasons"],
        json!(["the discount is above 30 percent"])
    );
    api.send("POST", "/api/v1/records/order/o1/dismiss", &json!({"note": "later"})).ok();
    api.ask("POST", "/api/v1/records/order/o1/reopen", None).ok();
    api.send("POST", "/api/v1/records/order/o1/pin", &json!({"owner": "till"})).ok();
    assert_eq!(api.get("/api/v1/pins").ok()["records"][0]["owner"], "till");
    let history = api.get(&format!("{path}/history")).ok();
    assert_eq!((&history["changes"], &history["next"]), (&json!(2), &Value::Null));
    let first = history["history"][1]["change"].as_str().expect("a change").to_owned();
    let newest = api.get(&format!("{path}/history?limit=1")).ok();
    let before = newest["next"].as_str().expect("there is one before");
    let older = api.get(&format!("{path}/history?limit=1&before={before}")).ok();
    assert_eq!(older["history"][0]["change"], json!(first));
    let writes = newest["history"][0]["writes"].as_array().expect("a list");
    let name = writes.iter().find(|write| write["field"] == "name").expect("it was cleared");
    assert_eq!((&name["before"], &name["after"]), (&json!("Kiosk"), &Value::Null));
    let reverted = api.send("POST", &format!("{path}/revert"), &json!({"to": first})).ok();
    assert_eq!(reverted["fields"], json!({"name": "Kiosk", "visits": 2}));
    let shared = api.get(&format!("{path}/share")).ok();
    assert_eq!(shared["schema"], "fieldkeep/share/1");
    assert!(shared["text"].as_str().is_some_and(|text| text.starts_with("customer: Kiosk\n")));
    assert_eq!(api.get(&format!("{path}/at/{first}")).ok()["fields"]["visits"], 2);
    api.ask("DELETE", &path, None).ok();
    assert_eq!(api.get("/api/v1/records/customer").ok()["records"], json!([]));
    api.ask("POST", "/api/v1/pause?type=order", None).ok();
    assert_eq!(api.ask("POST", "/api/v1/resume", None).ok()["all"], false);
    assert_eq!(api.ask("POST", "/api/v1/resync?type=order", None).ok()["records"], 1);
    let status = api.get("/api/v1/status").ok();
    assert_eq!(
        (&status["schema"], &status["synced"]),
        (&json!("fieldkeep/status/1"), &json!(true))
    );
    // The same as the command line prints.
    let printed = served.place.run("ann", &["get", "order/o1", "--json"]).json();
    assert_eq!(api.get("/api/v1/records/order/o1").ok(), printed);
}

#[test]
fn a_program_is_told_what_happens_whoever_brings_it_about() {
    let served = Served::new();
    let refused = served.stranger().get("/api/v1/events");
    assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("denied")));
    let api = served.program();
    let mut events = api.listen("/api/v1/events");
    api.send("PATCH", "/api/v1/records/order/o1", &json!({"discount": 45})).ok();
    assert_eq!(events.next("changed"), json!({"records": ["order/o1"]}));
    api.ask("POST", "/api/v1/sync", None).ok();
    api.send("PATCH", "/api/v1/records/customer/c1", &json!({"name": "Kiosk"})).ok();
    while events.next("changed") != json!({"records": ["customer/c1"]}) {}
    // Nothing else happens to the order.
    served.place.run("ann", &["attention", "dismiss", "order/o1", "--note", "later"]).ok();
    while events.next("changed") != json!({"records": ["order/o1"]}) {}
    for args in [&["pause", "order"][..], &["resume"], &["pin", "order/o1"], &["unpin", "order/o1"]]
    {
        served.place.run("ann", args).ok();
        assert_eq!(events.next("status"), json!({}), "{args:?}");
    }
}

#[test]
fn what_needs_a_connection_works_by_the_api_and_by_the_pages() {
    let served = Served::new();
    let api = served.program();
    api.send("PATCH", "/api/v1/records/customer/c1", &json!({"name": "<b>Kiosk</b>"})).ok();
    api.send("PATCH", "/api/v1/records/order/o1", &json!({"status": "confirmed"})).ok();
    let edited = api.send("PATCH", "/api/v1/records/order/o1", &json!({"discount": 5})).ok();
    assert_eq!((&edited["state"], &edited["unsaved"]), (&json!("valid"), &json!(false)));
    let answer = api.send("POST", "/api/v1/queries/names", &json!({})).ok();
    assert_eq!(answer["rows"], json!([["c1", "<b>Kiosk</b>"]]));
    let input = json!({"customer": "c1", "name": "Pier"});
    let called = api.send("POST", "/api/v1/actions/rename", &input).ok();
    assert_eq!(called["records"], json!(["customer/c1"]));
    assert_eq!(api.get("/api/v1/records/customer/c1").ok()["fields"]["name"], "Pier");
    let absent = json!({"customer": "none", "name": "Pier"});
    let refused = api.send("POST", "/api/v1/actions/rename", &absent);
    assert_eq!((refused.status, &refused.json()["code"]), (404, &json!("not_found")));
    let calls = api.get("/api/v1/calls").ok();
    let states = calls["calls"].as_array().expect("a list").iter();
    let states: Vec<&Value> = states.map(|call| &call["state"]).collect();
    assert_eq!(states, [&json!("refused"), &json!("done"), &json!("done")]);
    let browser = served.browser();
    let own = format!("http://{}", browser.host);
    let browser = browser.with("Origin", &own);
    let page = browser.get("/actions");
    assert!(page.body.contains("Give a customer another name"), "{}", page.body);
    let form = "f%3Acustomer=c1&f%3Aname=%3Ci%3E";
    assert_eq!(browser.post("/actions/rename", form).status, 303);
    let answer = browser.post("/queries/names", "");
    assert!(
        answer.body.contains("&#60;i&#62;") || answer.body.contains("&lt;i&gt;"),
        "{}",
        answer.body
    );
    let form = "f%3Acustomer=none&f%3Aname=kept";
    let refused = browser.post("/actions/rename", form);
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("there is no record customer/none"), "{}", refused.body);
    assert!(refused.body.contains("value=\"kept\""), "{}", refused.body);
}

#[test]
fn what_the_api_cannot_do_it_says_as_the_command_line_does() {
    let served = Served::new();
    let api = served.program();
    api.send("PATCH", "/api/v1/records/customer/c1", &json!({"name": "Kiosk"})).ok();
    let cases: [(&str, &str, Value, u16, &str); 9] = [
        ("POST", "/api/v1/records/customer/c1/revert", json!({"to": "ffff"}), 404, "not_found"),
        ("POST", "/api/v1/records/customer/c1/revert", json!({"field": "name"}), 422, "usage"),
        ("GET", "/api/v1/records/customer/c1/history?before=zz", json!({}), 404, "not_found"),
        ("POST", "/api/v1/records/ordre", json!({}), 400, "usage"),
        ("PATCH", "/api/v1/records/order/o1", json!({"discuont": 1}), 400, "usage"),
        ("PATCH", "/api/v1/records/order/o1", json!({"discount": [1]}), 422, "held"),
        ("PATCH", "/api/v1/records/order/a%2Fb", json!({"discount": 1}), 400, "usage"),
        ("POST", "/api/v1/records/order/o9/retry", json!({}), 404, "not_found"),
        ("POST", "/api/v1/nothing", json!({}), 404, "not_found"),
    ];
    for (method, path, body, status, code) in cases {
        let refused = api.send(method, path, &body);
        assert_eq!(refused.status, status, "{method} {path}: {refused:?}");
        let said = refused.json();
        assert_eq!(said["schema"], "fieldkeep/error/1", "{method} {path}");
        assert_eq!(said["code"], code, "{method} {path}: {said}");
    }
    let broken = api.ask("PATCH", "/api/v1/records/order/o1", Some(("application/json", "{")));
    assert_eq!((broken.status, &broken.json()["code"]), (400, &json!("usage")));
    let large = json!({"name": "x".repeat(2_000_000)});
    assert_eq!(api.send("PATCH", "/api/v1/records/customer/c1", &large).status, 413);
    assert_eq!(api.get("/api/v1/records/order").ok()["records"], json!([]), "nothing was saved");
}

#[test]
fn the_document_of_the_api_names_what_there_is() {
    let served = Served::new();
    let api = served.program();
    let document = api.get("/api/v1/openapi.json").ok();
    assert_eq!(document["info"]["title"], "Fieldkeep");
    let paths = document["paths"].as_object().expect("paths");
    let count: usize = paths.values().map(|path| path.as_object().expect("methods").len()).sum();
    assert!(count >= 31, "{count}");
    for (path, methods) in paths {
        let path = format!("/api/v1{path}").replace("{type}", "order").replace("{id}", "none");
        for method in methods.as_object().expect("methods").keys() {
            if path.ends_with("/events") || path.ends_with("/sync") {
                continue;
            }
            let answer = api.ask(&method.to_uppercase(), &path, Some(("application/json", "{}")));
            let nowhere = answer.body.contains("nothing at this address");
            assert!(answer.status != 405 && !nowhere, "{method} {path}: {answer:?}");
        }
    }
}

#[test]
fn the_page_of_a_record_with_a_thousand_changes_takes_less_than_fifty_milliseconds() {
    let served = Served::after(|place| {
        // This process keeps its state elsewhere, so that the directory passes for a copy: no matter here.
        let device = Device::open(&place.path("ann")).expect("it opens");
        let key: RecordKey = "customer/c1".parse().expect("a key");
        let visit = || (key.clone(), vec![Edit::Add("visits".into(), 1)].into());
        let visits: Vec<_> = (0..1_000).map(|_| visit()).collect();
        device.put_all(&visits).expect("they are saved");
    });
    let browser = served.browser();
    for path in ["/records/customer/c1", "/records/customer/c1/history"] {
        let mut best = Duration::MAX;
        for _ in 0..8 {
            let began = served.worked();
            let page = browser.get(path);
            best = (served.worked() - began).min(best);
            assert!(page.body.contains("1,000 changes"), "{path}");
            assert!(page.body.contains("visits: 999 → 1000"), "{path}");
        }
        println!("{path}, of 1,000 changes: {best:?}");
        assert!(best < Duration::from_millis(50), "{path}: {best:?}");
    }
}

#[test]
fn a_second_one_names_the_first_and_ends() {
    let served = Served::new();
    let second = served.place.run("ann", &["serve", "--console", "127.0.0.1:0"]);
    assert_eq!(second.code, 1, "{}", second.err);
    assert!(second.err.contains(&served.serving.id().to_string()), "{}", second.err);
    let taken = Client::stranger(&served.url).host;
    served.place.device("ben", &[]);
    let elsewhere = served.place.run("ben", &["serve", "--console", &taken]);
    assert_eq!(elsewhere.code, 1, "{}", elsewhere.err);
    assert!(elsewhere.err.contains("--console 127.0.0.1:0"), "{}", elsewhere.err);
    let none = served.place.run("ben", &["console"]);
    assert_eq!(none.code, 1, "{}", none.err);
    assert!(none.err.contains("fieldkeep serve"), "{}", none.err);
    assert_eq!(served.serving.stop("INT"), 130);
}
