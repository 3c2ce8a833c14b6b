//! What an operator sees who runs a collector: sessions of devices, what takes time in them, and nothing of
//! anybody's records; and that a collector which is not there, or is of no use, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use crate::process::{Place, Running, start_logged};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

const CATALOG: &str = r#"
catalog = 1
[type.customer.field]
name = {}
[type.order.field]
discount = { schema = { type = "integer" } }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
"#;

/// A relay that has its traces sent there.
fn traced(to: SocketAddr) -> (Place, Running, Receiver<String>) {
    let place = Place::founded(CATALOG);
    place.file("relay/relay.toml", &format!("[traces]\nendpoint = \"http://{to}\"\n"));
    let serve = ["relay", "serve", "--listen", "127.0.0.1:0"];
    let (relay, logs) = start_logged(place.command("relay", &serve));
    relay.line_beginning("listening ");
    (place, relay, logs)
}

/// A device writes, and syncs.
fn works(place: &Place) {
    place.device("ann", &[]);
    place.run("ann", &["put", "customer/kiosk-7", "name=Moonlight Bakery"]).ok();
    place.run("ann", &["put", "order/order-4711", "discount=45"]).ok();
    place.run("ann", &["sync"]).ok();
    let held = place.run("relay", &["relay", "quarantine", "list"]).ok();
    assert!(held.contains("order-4711"), "{held}");
}

/// Publishes a catalog, and waits until everything is judged by it.
fn is_judged_anew(place: &Place, catalog: &str) {
    let file = place.file("next.toml", catalog);
    let file = file.to_str().expect("a plain path");
    place.run("relay", &["relay", "catalog", "publish", file]).ok();
    let standing = || place.run("relay", &["relay", "catalog", "status", "--json"]).json();
    while standing()["left"] != 0 {}
}

/// A port at which somebody answers whatever is posted; what is posted.
fn collector(answer: &'static [u8]) -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let (sender, posted) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = sender.send(read(&stream));
            let _ = (&stream).write_all(answer);
        }
    });
    (address, posted)
}

/// Reads one request to the end, if it is one of traces.
fn read(stream: &TcpStream) -> Vec<u8> {
    let mut request = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(request.read_line(&mut head).expect("it is read") > 0, "a request: {head}");
    }
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect("a length").parse().expect("a number")];
    request.read_exact(&mut body).expect("all of it comes");
    body
}

fn texts(of: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |value: Option<&AnyValue>| match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    of.iter().map(|pair| (pair.key.as_str(), text(pair.value.as_ref()))).collect()
}

/// Spans by name, each with the name of its parent.
#[derive(Debug, Default)]
struct Seen {
    spans: Vec<Span>,
}

impl Seen {
    fn of(posted: &[Vec<u8>]) -> Self {
        let mut spans = Vec::new();
        for body in posted {
            let request = ExportTraceServiceRequest::decode(&**body).expect("it is OTLP");
            for of in request.resource_spans {
                let resource = of.resource.expect("who sends them");
                let named = texts(&resource.attributes);
                assert_eq!(named["service.name"], "fieldkeep-relay");
                spans.extend(of.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        Self { spans }
    }

    /// What it says where spans of that name are: the names of all parents, and "" for none.
    fn within(&self, name: &str) -> BTreeSet<&str> {
        let of = self.spans.iter().filter(|span| span.name == name);
        of.map(|span| {
            let parent = self.spans.iter().find(|other| other.span_id == span.parent_span_id);
            assert!(parent.is_some() || span.parent_span_id.is_empty(), "{name} has a parent");
            let same = parent.is_none_or(|parent| parent.trace_id == span.trace_id);
            assert!(same, "{name} is in the trace of its parent");
            parent.map_or("", |parent| parent.name.as_str())
        })
        .collect()
    }
}

#[test]
fn a_collector_hears_of_a_session_and_its_parts_and_of_no_record() {
    let (address, posted) = collector(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let (place, relay, logs) = traced(address);
    works(&place);
    place.run("ann", &["attention", "retry", "order/order-4711"]).ok();
    place.run("ann", &["sync"]).ok();
    is_judged_anew(&place, &CATALOG.replace("<= 30", "<= 40"));
    let folder = place.path("backup");
    place.run("relay", &["relay", "backup", folder.to_str().expect("a plain path")]).ok();
    assert_eq!(relay.stop("TERM"), 0);

    // What had not left is sent before the process ends.
    let posted: Vec<_> = posted.try_iter().collect();
    let seen = Seen::of(&posted);
    for (name, parents) in [
        ("session", [""]),
        ("Push", ["session"]),
        ("unpack", ["Push"]),
        ("vouch", ["Push"]),
        ("admit", ["Push"]),
        ("commit", ["session"]),
        ("save", ["commit"]),
        ("fan-out", ["commit"]),
        ("slice", ["session"]),
        ("merge", ["slice"]),
        ("project", ["slice"]),
        ("tidy", ["slice"]),
        ("judge", ["slice"]),
        ("re-judge", ["session"]),
        ("judge anew", [""]),
        ("backup", [""]),
        ("reading it back", ["backup"]),
    ] {
        assert_eq!(seen.within(name), BTreeSet::from(parents), "{name}");
    }
    let session = seen.spans.iter().find(|span| span.name == "session").expect("a session");
    let said = texts(&session.attributes);
    assert_eq!((&*said["device.name"], &*said["part"]), ("ann", "0"));
    assert!(said["device.number"].parse::<u64>().is_ok_and(|number| number > 0), "{said:?}");
    let push = seen.spans.iter().find(|span| span.name == "Push").expect("a push");
    let whole = session.start_time_unix_nano..=session.end_time_unix_nano;
    let lasts = push.start_time_unix_nano..=push.end_time_unix_nano;
    assert!(push.trace_id != session.trace_id || whole.contains(lasts.start()), "{lasts:?}");
    assert!(lasts.start() < lasts.end(), "it took some time");

    let numbers = ["connection", "device.number", "part", "inputs", "changes", "segments"];
    for span in &seen.spans {
        assert!(span.events.is_empty(), "no log goes there: {span:?}");
        for (key, value) in texts(&span.attributes) {
            let number = numbers.contains(&key) && value.parse::<u64>().is_ok();
            let name = key == "device.name" && value == "ann";
            let of = key == "type" && ["customer", "order"].contains(&&*value);
            assert!(number || name || of, "{} says {key} = {value}", span.name);
        }
    }
    let bytes = posted.concat();
    for secret in ["Moonlight", "kiosk-7", "order-4711", "discount", "fieldkeep1"] {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} leaves the relay");
    }
    assert_eq!(logs.iter().find(|line| line.contains("span")), None);
}

#[test]
fn a_collector_that_is_not_there_or_answers_nonsense_is_told_in_the_log_and_changes_nothing() {
    let nobody = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("it is bound")
    };
    for address in [nobody(), collector(b"nonsense\r\n\r\n").0, collector(b"").0] {
        let (place, relay, logs) = traced(address);
        works(&place);
        assert_eq!(relay.stop("TERM"), 0);
        let lost: Vec<_> = logs.iter().filter(|line| line.contains("spans were lost")).collect();
        assert!((1..=2).contains(&lost.len()), "once a minute, and at the end: {lost:?}");
    }
}

#[test]
fn a_collector_that_never_answers_keeps_the_relay_from_stopping_for_two_seconds_at_most() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (place, relay, logs) = traced(silent.local_addr().expect("it is bound"));
    works(&place);
    let began = std::time::Instant::now();
    assert_eq!(relay.stop("TERM"), 0);
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    assert!(logs.iter().any(|line| line.contains("spans were lost")));
}
