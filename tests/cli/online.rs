//! What needs a connection, by the command line: alone and through `serve`, with and without a relay,
//! and with a host that an action calls.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use crate::desk::Desk;
use crate::process::Place;
use fieldkeep_model::{PublicKey, Signature};
use fieldkeep_relay::HOST_CONTEXT;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
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
slips = { kind = "attachment", media = ["text/plain"] }
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
    ("put order/o1 total=7 --what-if", 0),
    ("put order/o1 total=7", 0),
    ("put order/o1 total=x", 4),
    ("put order/o1 total=7 --strict", 0),
    ("attach order/o1 slips SLIP", 0),
    ("attachments list order/o1", 0),
    ("revert order/o1 total --to 2099-01-01T00:00:00Z", 0),
    ("revert order/o1 --to 2000-01-01T00:00:00Z", 3),
    ("get order/o1", 0),
    ("delete order/o1", 0),
    ("put order/o1 --undelete", 0),
    ("ask leaderboard", 0),
    ("ask leaderboard least=100", 0),
    ("ask leaderboard least=x", 4),
    ("ask nothing", 2),
    ("calls", 0),
];

#[test]
fn what_needs_a_connection_is_the_same_alone_and_through_serve() {
    for json in [false, true] {
        let (alone, served) = (Desk::new(CATALOG, false), Desk::new(CATALOG, true));
        for (args, code) in SCRIPT {
            let [one, other] = [&alone, &served].map(|desk| {
                let slip = desk.place.file("slip.txt", "signed");
                desk.run(&args.replace("SLIP", slip.to_str().expect("a plain path")), json)
            });
            assert_eq!(one.code, *code, "{args}: {} {}", one.out, one.err);
            assert_eq!(alone.said(&one), served.said(&other), "{args}");
        }
        let order = alone.run("get order/o1", true).json();
        assert_eq!(order["fields"]["total"], 7);
        assert_eq!(order["fields"]["slips"][0]["name"], "slip.txt");
        let history = alone.run("history order/o1", true).json();
        let first = history["history"].as_array().and_then(|all| all.last()).expect("changes");
        let back = format!("revert order/o1 --to {}", first["change"].as_str().expect("a hash"));
        alone.run(&back, json).ok();
        let order = alone.run("get order/o1", true).json();
        assert_eq!((&order["fields"]["total"], &order["unsaved"]), (&json!(5), &json!(false)));
        alone.run("put order/o1 total=7", json).ok();
        let leaves = alone.run("list leave", true).json();
        assert_eq!(leaves["records"], json!([]), "who may not call writes nothing");
        let board = alone.run("ask leaderboard", true).json();
        assert_eq!(board["schema"], "fieldkeep/ask/1");
        assert_eq!(board["rows"], json!([["ann", 7]]));
        served.close();
    }
}

#[test]
fn without_a_relay_it_says_so_at_once_and_changes_nothing() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "order/o1", "total=3"]).ok();
    place.run("ann", &["put", "order/o1", "status=confirmed", "total=5"]).ok();
    place.run("ann", &["sync"]).ok();
    relay.stop("INT");
    let slip = place.file("slip.txt", "signed");
    let slip = slip.to_str().expect("a plain path");
    let history = place.run("ann", &["history", "order/o1", "--json"]).json();
    let first = history["history"][1]["change"].as_str().expect("a hash").to_owned();
    for args in [
        &["attach", "order/o1", "slips", slip, "--json"][..],
        &["revert", "order/o1", "--to", &first, "--json"],
        &["call", "convert_lead", "lead=l1", "--json"],
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
    let tried = place.run("ann", &["put", "order/o1", "total=6", "--what-if"]).ok();
    assert!(tried.contains("to write it needs a connection"), "{}", tried);
    let order = place.run("ann", &["get", "order/o1", "--json"]).json();
    assert_eq!((&order["fields"]["total"], &order["deleted"]), (&json!(5), &json!(false)));
    assert_eq!(place.run("ann", &["attachments", "list", "order/o1"]).ok(), "no files\n");
    let kept = std::fs::read_dir(place.path("ann/blobs")).map_or(0, Iterator::count);
    assert_eq!(kept, 0, "no bytes of it are kept");
    let calls = place.run("ann", &["calls", "--json"]).json();
    assert_eq!(calls["calls"], json!([]));
}

/// What a host says that never answers, and does not hang up either.
const HANGS: &str = "";

/// A host that says this, one answer to each that asks, and what it was asked; over TLS where it has
/// keys.
fn host(answers: Vec<&'static str>, keys: Option<ServerConfig>) -> (u16, Receiver<String>) {
    let keys = keys.map(Arc::new);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("it is bound").port();
    let (asked, requests) = channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for answer in answers {
            let Ok((tcp, _)) = listener.accept() else { return };
            let mut stream: Box<dyn Stream> = match &keys {
                None => Box::new(tcp),
                Some(keys) => {
                    let tls = ServerConnection::new(Arc::clone(keys)).expect("keys of a host");
                    Box::new(StreamOwned::new(tls, tcp))
                }
            };
            let (mut request, mut piece) = (String::new(), [0; 4096]);
            while !request.contains("\r\n\r\n{") || !request.ends_with('}') {
                let read = stream.read(&mut piece).unwrap_or(0);
                if read == 0 {
                    break;
                }
                request.push_str(&String::from_utf8_lossy(&piece[..read]));
            }
            let _ = asked.send(request);
            if answer == HANGS {
                held.push(stream);
                continue;
            }
            let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.flush());
        }
        while !held.is_empty() {
            std::thread::park();
        }
    });
    (port, requests)
}

/// What a host is reached by.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// The keys of a host at 127.0.0.1, which the authority in `ca.pem` vouches for.
fn keys() -> ServerConfig {
    let file = |name: &str| format!("{}/tests/support/host/{name}", env!("CARGO_MANIFEST_DIR"));
    let chain = CertificateDer::pem_file_iter(file("certificate.pem")).expect("it is there");
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).expect("a key");
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    let config = versions.expect("it has versions").with_no_client_auth();
    config.with_single_cert(chain, key).expect("they belong together")
}

fn header<'r>(request: &'r str, name: &str) -> &'r str {
    let pairs = request.lines().filter_map(|line| line.split_once(": "));
    let mut found = pairs.filter(|(other, _)| other.eq_ignore_ascii_case(name));
    found.next().unwrap_or_else(|| panic!("no {name} in {request}")).1
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex");
    std::array::from_fn(byte)
}

#[test]
fn an_action_calls_a_host_once_signed_and_writes_when_it_has_answered() {
    let place = Place::founded(CATALOG);
    let answers = vec![
        "HTTP/1.0 503 Busy\r\n\r\nlater",
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngranted",
        "HTTP/1.0 422 No\r\n\r\nno days left",
        "HTTP/1.0 302 Found\r\nLocation: http://elsewhere/\r\n\r\n",
    ];
    let (port, requests) = host(answers, None);
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
        assert!(request.starts_with("POST /api/leave HTTP/1.1\r\n"), "{request}");
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
fn a_relay_that_was_killed_asks_its_host_again_under_the_same_key() {
    let place = Place::founded(CATALOG);
    let answers =
        vec![HANGS, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngranted", HANGS, HANGS, HANGS];
    let (port, requests) = host(answers, None);
    let config = |timeout| {
        format!("[host.office]\nurl = \"http://127.0.0.1:{port}\"\ntimeout = \"{timeout}s\"\n")
    };
    place.file("relay/relay.toml", &config(300));
    let (relay, address) = place.serve_at("127.0.0.1:0");
    place.device("ann", &[]);
    // Who calls is gone as well, before there is an answer.
    let calling = place.start("ann", &["call", "request_leave", "days=3"]);
    let patience = std::time::Duration::from_secs(60);
    let first = requests.recv_timeout(patience).expect("the host is asked");
    calling.stop("KILL");
    relay.stop("KILL");
    place.file("relay/relay.toml", &config(1));
    let (_relay, _) = place.serve_at(&address);
    let second = requests.recv_timeout(patience).expect("the host is asked again");
    assert_eq!(header(&first, "Idempotency-Key"), header(&second, "Idempotency-Key"));
    let leaves = || {
        place.run("ann", &["sync"]).ok();
        let all = place.run("ann", &["list", "leave", "--json"]).json();
        all["records"].as_array().map_or(0, Vec::len)
    };
    // The answer may come behind the sync.
    let began = std::time::Instant::now();
    while leaves() == 0 {
        assert!(began.elapsed() < patience, "nothing was written");
    }
    assert_eq!(leaves(), 1);
    let calls = place.run("ann", &["calls", "--json"]).json();
    assert_eq!(calls["calls"].as_array().map(Vec::len), Some(1), "{calls}");

    // As long as the configuration gives it, and three times.
    let late = place.run("ann", &["call", "request_leave", "days=3"]);
    assert_eq!(late.code, 1, "{}", late.err);
    let words = ["asked 3 times", "no answer within 1 s", "it may have done it all the same"];
    assert!(words.iter().all(|word| late.err.contains(word)), "{}", late.err);
    assert_eq!(leaves(), 1, "nothing was written");
}

#[test]
fn a_host_is_asked_over_tls_only_where_its_authority_is_trusted() {
    let place = Place::founded(CATALOG);
    let answers = vec!["HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngranted"; 4];
    let (port, requests) = host(answers, Some(keys()));
    let url = format!("url = \"https://127.0.0.1:{port}\"\n");
    place.file("relay/ca.pem", include_str!("../support/host/ca.pem"));
    let mut address = "127.0.0.1:0".to_owned();
    // The authorities that browsers trust do not know this one.
    for (ca, code) in [("", 1), ("ca = \"ca.pem\"\n", 0)] {
        place.file("relay/relay.toml", &format!("[host.office]\n{url}{ca}"));
        let (_relay, listens) = place.serve_at(&address);
        if address != listens {
            place.device("ann", &[]);
            address = listens;
        }
        let called = place.run("ann", &["call", "request_leave", "days=3"]);
        assert_eq!(called.code, code, "{}", called.err);
    }
    let understood = requests.try_iter().filter(|request| request.starts_with("POST /leave"));
    assert_eq!(understood.count(), 1);
}

#[test]
fn a_relay_whose_configuration_means_nothing_does_not_start() {
    let place = Place::new();
    drop(place.relay(CATALOG));
    place.file("relay/relay.toml", "[host.office]\nurl = \"ftp://office\"\n");
    let ran = place.run("relay", &["relay", "serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("https:// or http://"), "{}", ran.err);
}
