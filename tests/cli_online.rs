//! What needs a connection, by the command line: alone and through `serve`, with and without a relay,
//! and with a host that an action calls.

#[path = "support/process.rs"]
mod process;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use fieldkeep_model::{PublicKey, Signature};
use fieldkeep_relay::HOST_CONTEXT;
use process::{Place, Ran, Running};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.lead.field]
name = { required = true }
status = {}
[type.customer.field]
name = { required = true }
[type.order]
online_only = "before.status == 'confirmed'"
[type.order.field]
status = {}
seller = {}
total = { schema = { type = "integer" } }
[type.leave.field]
person = {}
days = { schema = { type = "integer" } }

[action.convert_lead]
who = "everyone"
input.lead = { required = true, ref = "lead" }
record.lead = "lead/{input.lead}"
[[action.convert_lead.require]]
cel = "!has(records.lead.status)"
reason = "this lead is a customer already"
[[action.convert_lead.effect]]
type = "lead"
id = "input.lead"
fields = { status = "'converted'" }
[[action.convert_lead.effect]]
type = "customer"
id = "input.lead"
fields = { name = "records.lead.name" }

[action.close]
who = ["boss"]
[[action.close.effect]]
type = "leave"
fields = { person = "caller.name" }

[action.request_leave]
who = "everyone"
input.days = { required = true, schema = { type = "integer", minimum = 1, maximum = 30 } }
call = { host = "office", path = "/leave" }
[[action.request_leave.effect]]
type = "leave"
fields = { person = "caller.name", days = "input.days" }

[action.elsewhere]
who = "everyone"
call = { host = "nobody", path = "/" }

[query.leaderboard]
who = "everyone"
organisation_wide = true
param.least = { schema = { type = "integer" } }
sql = '''SELECT seller, sum(total) AS total FROM "order"
WHERE total >= coalesce(:least, 0) GROUP BY seller ORDER BY total DESC'''
"#;

/// What is typed, one after the other, and the code that it ends with.
const SCRIPT: &[(&str, i32)] = &[
    ("put lead/l1 name=Pier", 0),
    ("call convert_lead lead=l1", 0),
    ("get lead/l1", 0),
    ("get customer/l1", 0),
    ("call convert_lead lead=l1", 4),
    ("call convert_lead lead=none", 3),
    ("call convert_lead", 4),
    ("call convert_lead boat=l1", 2),
    ("call nothing", 2),
    ("call close", 6),
    ("call elsewhere", 1),
    ("put order/o1 seller=ann total=5 status=confirmed", 0),
    ("put order/o1 total=7", 0),
    ("put order/o1 total=x", 4),
    ("put order/o1 total=7 --strict", 0),
    ("get order/o1", 0),
    ("delete order/o1", 0),
    ("put order/o1 --undelete", 0),
    ("ask leaderboard", 0),
    ("ask leaderboard least=100", 0),
    ("ask leaderboard least=x", 4),
    ("ask nothing", 2),
    ("calls", 0),
];

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

    fn run(&self, args: &str, json: bool) -> Ran {
        self.place.run("ann", &["sync"]).ok();
        let mut args: Vec<&str> = args.split(' ').collect();
        args.extend(json.then_some("--json"));
        self.place.run("ann", &args)
    }
}

/// What was said without times, ids of calls, and how the relay is reached.
fn said(ran: &Ran) -> String {
    let text = format!("{}\n{}", ran.out, ran.err);
    let words = text.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "-:._".contains(c)));
    let same = words.map(|word| {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let time = bare.len() > 18 && bare.contains('T') && bare.contains(':');
        let hash = bare.len() >= 8 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        if time || hash { format!("SOME{}", &word[bare.len()..]) } else { word.to_owned() }
    });
    same.collect()
}

#[test]
fn what_needs_a_connection_is_the_same_alone_and_through_serve() {
    for json in [false, true] {
        let (alone, served) = (Desk::new(false), Desk::new(true));
        for (args, code) in SCRIPT {
            let [one, other] = [&alone, &served].map(|desk| desk.run(args, json));
            assert_eq!(one.code, *code, "{args}: {} {}", one.out, one.err);
            assert_eq!((one.code, said(&one)), (other.code, said(&other)), "{args}");
        }
        let order = alone.run("get order/o1", true).json();
        assert_eq!(order["fields"]["total"], 7);
        let board = alone.run("ask leaderboard", true).json();
        assert_eq!(board["schema"], "fieldkeep/ask/1");
        assert_eq!(board["rows"], json!([["ann", 7]]));
        drop(served.serving);
    }
}

#[test]
fn without_a_relay_it_says_so_at_once_and_changes_nothing() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "order/o1", "status=confirmed", "total=5"]).ok();
    place.run("ann", &["sync"]).ok();
    relay.stop("INT");
    for args in [
        &["call", "convert_lead", "lead=l1", "--json"][..],
        &["ask", "leaderboard", "--json"],
        &["put", "order/o1", "total=6", "--json"],
        &["delete", "order/o1", "--json"],
    ] {
        let ran = place.run("ann", args);
        assert_eq!(ran.code, 5, "{args:?}: {} {}", ran.out, ran.err);
        let failure: Value = serde_json::from_str(&ran.out).expect("a failure as JSON");
        let message = failure["message"].as_str().expect("a sentence");
        assert!(message.starts_with("this needs a connection"), "{message}");
    }
    let order = place.run("ann", &["get", "order/o1", "--json"]).json();
    assert_eq!((&order["fields"]["total"], &order["deleted"]), (&json!(5), &json!(false)));
    let calls = place.run("ann", &["calls", "--json"]).json();
    assert_eq!(calls["calls"], json!([]));
}

/// A host that says the same to everybody, and what it was asked.
fn host(answers: Vec<&'static str>) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("it is bound").port();
    let (asked, requests) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let (mut request, mut piece) = (String::new(), [0; 4096]);
            while !request.contains("\r\n\r\n{") || !request.ends_with('}') {
                let read = stream.read(&mut piece).unwrap_or(0);
                if read == 0 {
                    break;
                }
                request.push_str(&String::from_utf8_lossy(&piece[..read]));
            }
            let _ = asked.send(request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, requests)
}

fn header<'r>(request: &'r str, name: &str) -> &'r str {
    let line = request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {request}"))
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex");
    std::array::from_fn(byte)
}

#[test]
fn an_action_calls_a_host_once_signed_and_writes_when_it_has_answered() {
    let place = Place::new();
    let catalog = place.file("catalog.toml", CATALOG);
    let catalog = catalog.to_str().expect("a plain path");
    place.run("relay", &["relay", "init", "--catalog", catalog, "--name", "acme"]).ok();
    let (port, requests) = host(vec![
        "HTTP/1.0 503 Busy\r\n\r\nlater",
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngranted",
        "HTTP/1.0 422 No\r\n\r\nno days left",
        "HTTP/1.0 302 Found\r\nLocation: http://elsewhere/\r\n\r\n",
    ]);
    let config =
        format!("[host.office]\nurl = \"http://127.0.0.1:{port}/api\"\ntimeout = \"5s\"\n");
    place.file("relay/relay.toml", &config);
    let _relay = place.serve();
    place.device("ann", &[]);
    let called = place.run("ann", &["call", "request_leave", "days=3", "--json"]).json();
    assert_eq!(called["answer"], "granted");
    let record = called["records"][0].as_str().expect("a record");
    let leave = place.run("ann", &["get", record, "--json"]).json();
    assert_eq!(leave["fields"], json!({ "days": 3, "person": "ann" }));
    let asked: Vec<String> = requests.try_iter().collect();
    assert_eq!(asked.len(), 2, "once, and once more after it was busy");
    for request in &asked {
        assert!(request.starts_with("POST /api/leave HTTP/1.0\r\n"), "{request}");
        assert_eq!(header(request, "Idempotency-Key"), called["id"]);
        let body = &request[request.find("\r\n\r\n").expect("a body") + 4..];
        let said: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&said["caller"], &said["input"]["days"]), (&json!("ann"), &json!(3)));
        let key = PublicKey(bytes(header(request, "Fieldkeep-Key")));
        let signature = Signature(bytes(header(request, "Fieldkeep-Signature")));
        assert!(key.verifies(HOST_CONTEXT, body.as_bytes(), &signature));
    }
    for why in ["no days left", "redirects"] {
        let refused = place.run("ann", &["call", "request_leave", "days=3"]);
        assert_eq!(refused.code, 1, "{}", refused.err);
        assert!(refused.err.contains(why), "{}", refused.err);
    }
    let all = place.run("ann", &["list", "leave", "--json"]).json();
    assert_eq!(all["records"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_relay_whose_configuration_means_nothing_does_not_start() {
    let place = Place::new();
    drop(place.relay(CATALOG));
    place.file("relay/relay.toml", "[host.office]\nurl = \"https://office\"\n");
    let ran = place.run("relay", &["relay", "serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("only http:// is spoken"), "{}", ran.err);
}
