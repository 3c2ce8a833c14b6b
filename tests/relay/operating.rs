//! What whoever runs a relay relies on: what it tells of itself, how it stops, what it takes over while it
//! runs, and that the documents say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::http::Client;
use crate::process::{Place, Running, finish, signal, start, start_logged};
use crate::support::lab::{committed, document};
use crate::support::town::address;
use crate::support::wire::{Answer, Raw};
use crate::support::{Connected, PATIENCE, Site, length, put, reaches, soon, state, sync};
use automerge::transaction::Transactable as _;
use automerge::{ObjType, ROOT};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::frame::{Frame, GoAway};
use fieldkeep_relay::Directory;
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer.field]
name = {}
[type.order.field]
customer = { ref = "customer" }
discount = { schema = { type = "integer" } }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"

[action.order_ink]
who = "everyone"
call = { host = "shop", path = "/ink" }
"#;

const HEALTH: [&str; 6] = ["relay", "serve", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"];

/// Waits until something holds; whoever waits in vain says for what.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: waited in vain");
        std::thread::yield_now();
    }
}

/// A file of the documentation.
fn documented(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whoever asks at the port that a process says to have opened.
fn health(relay: &Running) -> Client {
    Client::stranger(relay.line_beginning("health ").trim_start_matches("health "))
}

#[test]
fn a_directory_is_its_owners_alone_and_who_serves_it_is_told_before_his_ports() {
    let place = Place::founded(CATALOG);
    let relay = place.start("relay", &HEALTH);
    let port =
        relay.line_beginning("health http://").trim_start_matches("health http://").to_owned();
    let args = ["relay", "serve", "--listen", "127.0.0.1:0", "--health", &port];
    let mode = std::fs::metadata(place.path("relay")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "only its owner may look into it");
    let second = place.run("relay", &args);
    assert!(second.err.contains("is in use by process"), "{}", second.err);
    assert_eq!(relay.stop("TERM"), 0);
}

/// A name, what kind of metric it is, and its label.
type Listed = BTreeSet<(String, String, String)>;

/// The metrics of a page, and the names of their samples with what they show.
fn served(page: &str) -> (Listed, BTreeMap<String, f64>) {
    assert!(page.ends_with("# EOF\n"), "{page}");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    let samples: BTreeMap<String, f64> =
        samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect();
    let kinds = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let listed = kinds.map(|(name, kind)| {
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let labels =
            samples.keys().filter_map(|sample| sample.strip_prefix(&*name)?.strip_prefix('{'));
        let label =
            labels.filter_map(|labels| labels.split('=').next()).find(|label| *label != "le");
        (name.clone(), kind.to_owned(), label.unwrap_or_default().to_owned())
    });
    (listed.collect(), samples)
}

/// An organisation in which everything that is counted has happened.
async fn eventful() -> (Site, Connected, Raw) {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ann, "order/o1", json!({"customer": "c1", "discount": 10}));
    put(&ann, "order/held", json!({"customer": "c1", "discount": 45}));
    put(&ann, "order/waits", json!({"customer": "nobody"}));
    sync(&ann).await;
    ann.dismiss(&"order/held".parse().expect("a key"), Some("later")).expect("it is put aside");
    sync(&ann).await;
    let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
    let mut doc = document(&mallory, &[]);
    doc.put_object(ROOT, "o1", ObjType::Map).expect("it writes");
    let _first = committed(&mut doc);
    doc.put_object(ROOT, "o2", ObjType::Map).expect("it writes");
    let second = committed(&mut doc);
    let mut wire = mallory.following().await;
    let refused = wire.answer(mallory.own_push(&address("order", ""), &[&second])).await;
    assert!(matches!(refused, Answer::Refused { .. }), "{refused:?}");
    wire.say(&Frame::GoAway(GoAway { retry_ms: 1 })).await;
    wire.closed().await;
    let connected = Connected::new(&ann);
    put(&ann, "customer/c2", json!({"name": "Pier"}));
    reaches(&ann, "customer/c2", "valid").await;
    (site, connected, mallory)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_that_are_documented_are_those_that_are_served() {
    let (site, _connected, _mallory) = eventful().await;
    let (served, _) = served(&site.relay().vitals().metrics());
    let guide = documented("operating.md");
    let rows = guide.lines().filter(|line| line.starts_with("| `fieldkeep_"));
    let documented: Listed = rows
        .map(|row| {
            let cell = |at| row.split('|').map(str::trim).nth(at).expect("a cell").replace('`', "");
            (cell(1), cell(2), cell(3))
        })
        .collect();
    let missing: Vec<_> = served.difference(&documented).collect();
    assert!(missing.is_empty(), "not documented: {missing:#?}");
    let gone: Vec<_> = documented.difference(&served).collect();
    assert!(gone.is_empty(), "documented, and not served: {gone:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_every_metric_and_no_other() {
    let (site, _connected, _mallory) = eventful().await;
    let (served, _) = served(&site.relay().vitals().metrics());
    let dashboard: Value = serde_json::from_str(&documented("grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let asked: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    let words =
        asked.iter().flat_map(|expr| expr.split(|c: char| !(c.is_alphanumeric() || c == '_')));
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("fieldkeep_")).collect();
    let known: BTreeSet<String> = served
        .iter()
        .map(|(name, kind, _)| match kind.as_str() {
            "histogram" => format!("{name}_bucket"),
            _ => name.clone(),
        })
        .collect();
    assert_eq!(named, known.iter().map(String::as_str).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_what_has_happened() {
    let (mut site, connected, _mallory) = eventful().await;
    let (_, samples) = served(&site.relay().vitals().metrics());
    let shows = |name: &str| samples.get(&format!("fieldkeep_{name}")).copied();
    for (name, value) in [
        ("ready", 1.0),
        ("devices_online", 1.0),
        ("changes_admitted_total", 5.0),
        ("changes_refused_total{code=\"missing-deps\"}", 1.0),
        ("changes_aside_total", 0.0),
        ("sessions_ended_total{code=\"out-of-order\"}", 1.0),
        ("log_changes", 5.0),
        ("log_packed_changes", 0.0),
        ("judging_lag_changes", 0.0),
        ("judging_anew_segments", 0.0),
        ("records{type=\"customer\"}", 2.0),
        ("records{type=\"order\"}", 3.0),
        ("records_held{type=\"customer\"}", 0.0),
        ("records_held{type=\"order\"}", 1.0),
        ("records_waiting{type=\"order\"}", 1.0),
        ("records_dismissed{type=\"order\"}", 1.0),
        ("ingest_changes_sum", 5.0),
        ("commit_failures_total", 0.0),
        ("calls_pending", 0.0),
        ("catalog_number", 1.0),
        ("epoch", 1.0),
    ] {
        assert_eq!(shows(name), Some(value), "{name}: {samples:#?}");
    }
    for name in ["received_bytes_total", "sent_bytes_total", "store_bytes", "commit_seconds_count"]
    {
        assert!(shows(name).is_some_and(|value| value > 0.0), "{name}: {samples:#?}");
    }

    drop(connected);
    site.stop().await;
    site.start_again().await;
    let (_, samples) = served(&site.relay().vitals().metrics());
    let shows = |name: &str| samples.get(&format!("fieldkeep_{name}")).copied();
    for (name, value) in [
        ("devices_online", 0.0),
        ("changes_admitted_total", 0.0),
        ("log_changes", 5.0),
        ("verdicts_total", 0.0),
        ("records{type=\"order\"}", 3.0),
        ("records_held{type=\"order\"}", 1.0),
        ("records_waiting{type=\"order\"}", 1.0),
        ("records_dismissed{type=\"order\"}", 1.0),
    ] {
        assert_eq!(shows(name), Some(value), "{name}, after a restart: {samples:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_disk_is_full_is_not_ready_until_there_is_room_though_nobody_comes() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let vitals = site.relay().vitals();
    assert_eq!(vitals.trouble(), None);
    let bound = |pages| {
        move |engine: &mut fieldkeep_relay::Engine| {
            engine.replica_mut().store_mut().bound_growth(pages).expect("it reads");
        }
    };
    site.ask(bound(Some(2))).await;
    for n in 0..60 {
        put(&ann, &format!("customer/{n}"), json!({"name": "Kiosk ".repeat(200)}));
    }
    ann.sync(PATIENCE).await.expect_err("there is no room");
    let trouble = vitals.trouble().expect("it is not ready");
    assert!(trouble.contains("the disk is full"), "{trouble}");
    let (_, samples) = served(&vitals.metrics());
    assert_eq!(samples["fieldkeep_ready"], 0.0);
    assert!(samples["fieldkeep_commit_failures_total"] >= 1.0, "{samples:#?}");

    site.ask(bound(None)).await;
    let ready = async {
        while vitals.trouble().is_some() {
            tokio::task::yield_now().await;
        }
    };
    soon("it is ready again", ready).await;
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/59"), "valid");
    assert!(vitals.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_has_stopped_is_neither_alive_nor_ready() {
    let mut site = Site::founded(CATALOG);
    let vitals = site.relay().vitals();
    site.stop().await;
    assert!(!vitals.is_alive());
    assert_eq!(vitals.trouble().as_deref(), Some("the relay has stopped"));
}

#[test]
fn the_health_port_answers_where_it_is_asked_for_and_nowhere_else() {
    let place = Place::founded(CATALOG);
    let relay = place.start("relay", &["relay", "serve", "--listen", "127.0.0.1:0", "--json"]);
    let told: Value = serde_json::from_str(&relay.line()).expect("JSON");
    assert!(told["address"].is_string() && told.get("health").is_none(), "{told}");
    assert_eq!(relay.stop("TERM"), 0);

    let relay = place.start("relay", &HEALTH);
    let client = health(&relay);
    for (path, says) in [("/healthz", "alive\n"), ("/readyz", "ready\n")] {
        let answer = client.get(path);
        assert_eq!((answer.status, &*answer.body), (200, says), "{path}");
    }
    let metrics = client.get("/metrics");
    let kind = metrics.header("content-type").expect("a type").to_owned();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(metrics.body.contains("fieldkeep_ready 1\n"), "{}", metrics.body);
    assert_eq!(client.get("/").status, 404);
    assert_eq!(client.post("/metrics", "").status, 405);
    assert_eq!(relay.stop("TERM"), 0);

    let serve = ["relay", "serve", "--listen", "127.0.0.1:0"];
    let mut command = place.command("relay", &serve);
    command.env("FIELDKEEP_HEALTH", "127.0.0.1:0");
    let relay = start(command);
    assert_eq!(health(&relay).get("/readyz").status, 200);
    drop(relay);

    place.file("relay/relay.toml", "listen = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"\n");
    let relay = place.start("relay", &["relay", "serve"]);
    assert_eq!(health(&relay).get("/readyz").status, 200);
}

#[test]
fn a_relay_that_is_being_opened_is_alive_and_not_ready() {
    let place = Place::founded(CATALOG);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let at = taken.local_addr().expect("it is bound").to_string();
    drop(taken);
    // Somebody else has the directory for a moment.
    let held = Directory::open(&place.path("relay")).expect("it opens");
    let relay = place.start("relay", &[&HEALTH[..5], &[&*at]].concat());
    until("the port is open", || TcpStream::connect(&at).is_ok());
    let client = Client::stranger(&at);
    assert_eq!(client.get("/healthz").status, 200);
    let answer = client.get("/readyz");
    assert_eq!((answer.status, &*answer.body), (503, "the relay is being opened\n"));
    assert_eq!(client.get("/metrics").status, 503);
    drop(held);
    assert_eq!(health(&relay).get("/readyz").status, 200);
}

#[test]
fn a_relay_that_is_told_to_stop_sends_its_devices_away_without_an_error_and_they_come_back() {
    let place = Place::founded(CATALOG);
    let (relay, listens) = place.serve_at("127.0.0.1:0");
    place.device("ann", &[]);
    place.device("ben", &[]);
    let watch = place.start("ann", &["sync", "--watch"]);
    watch.line_beginning("synced  0 unsaved, 0 held");
    let began = Instant::now();
    assert_eq!(relay.stop("TERM"), 0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    until("ann knows that it stops", || {
        let status = place.run("ann", &["status", "--json"]).json();
        assert_eq!(status["error"], Value::Null, "{status}");
        assert_eq!(status["retry_at"].is_string(), status["connection"] == "offline", "{status}");
        status["connection"] != "online"
    });
    let away = watch.line_beginning("away");
    assert!(away.contains("the relay has stopped for a while; next try in "), "{away}");
    let _relay = place.serve_at(&listens);
    place.run("ben", &["put", "order/o1", "discount=45"]).ok();
    place.run("ben", &["sync"]).ok();
    loop {
        let line = watch.line();
        assert!(!line.starts_with("offline"), "{line}");
        if line.starts_with("synced  0 unsaved, 1 held") {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_relay_stops_is_acknowledged_and_kept() {
    let mut site = Site::founded(CATALOG);
    let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
    let mut wire = mallory.following().await;
    let mut doc = document(&mallory, &[]);
    doc.put_object(ROOT, "o1", ObjType::Map).expect("it writes");
    let push = mallory.own_push(&address("order", ""), &[&committed(&mut doc)]);
    let told = async {
        let back = wire.until(|frame| {
            let Frame::GoAway(GoAway { retry_ms }) = frame else { return None };
            Some(*retry_ms)
        });
        (back.await, wire.answer(push).await, wire.closed().await)
    };
    let (told, ()) = tokio::join!(told, site.stop());
    assert_eq!(told, (2_000, Answer::Taken, Some(Code::GoingAway)));
    site.start_again().await;
    assert_eq!(length(&site.log().await, "order"), 1);
}

/// A host that answers everybody the same; its port.
fn host(says: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let (mut request, mut piece) = (String::new(), [0; 4096]);
            while !request.ends_with('}') {
                let read = stream.read(&mut piece).unwrap_or(0);
                if read == 0 {
                    break;
                }
                request.push_str(&String::from_utf8_lossy(&piece[..read]));
            }
            let length = says.len();
            let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{says}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// The next line of a log in JSON whose message begins like that.
#[track_caller]
fn logged(logs: &Receiver<String>, beginning: &str) -> Value {
    loop {
        let line = logs.recv_timeout(PATIENCE).expect("it is logged");
        let entry: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(entry["timestamp"].is_string() && entry["target"].is_string(), "{line}");
        if entry["message"].as_str().is_some_and(|message| message.starts_with(beginning)) {
            return entry;
        }
    }
}

#[test]
fn a_hangup_has_the_configuration_read_again_and_a_broken_one_changes_nothing() {
    let place = Place::founded(CATALOG);
    let config = |port| format!("[host.shop]\nurl = \"http://127.0.0.1:{port}\"\n");
    place.file("relay/relay.toml", &config(host("the first")));
    let serve = ["relay", "serve", "--listen", "127.0.0.1:0", "--log", "json"];
    let mut command = place.command("relay", &serve);
    command.env("FIELDKEEP_LOG", "info");
    let (relay, logs) = start_logged(command);
    relay.line_beginning("listening");
    place.device("ann", &[]);
    let called = || place.run("ann", &["call", "order_ink", "--json"]).json()["answer"].clone();
    assert_eq!(called(), "the first");

    place.file("relay/relay.toml", "[hosts.shop]\nurl = \"http://127.0.0.1:9\"\n");
    signal(relay.id(), "HUP");
    let told = logged(&logs, "relay.toml was not taken over");
    assert_eq!(told["level"], "ERROR");
    assert!(told["error"].as_str().is_some_and(|error| error.contains("`hosts`")), "{told}");
    assert_eq!(called(), "the first");

    let second = config(host("the second"));
    place.file("relay/relay.toml", &second);
    signal(relay.id(), "HUP");
    assert_eq!(logged(&logs, "relay.toml was read again")["level"], "INFO");
    assert_eq!(called(), "the second");

    place.file("relay/relay.toml", &format!("health = \"127.0.0.1:9\"\n{second}"));
    signal(relay.id(), "HUP");
    let told = logged(&logs, "relay.toml was read again; it names other addresses");
    assert_eq!(told["level"], "WARN");
    assert_eq!(relay.stop("TERM"), 0);
}

#[test]
fn a_supervisor_is_told_when_the_relay_serves_and_when_it_stops() {
    let place = Place::founded(CATALOG);
    let path = place.path("notify");
    let supervisor = UnixDatagram::bind(&path).expect("a socket");
    supervisor.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut command = place.command("relay", &["relay", "serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path);
    let relay = start(command);
    let hears = || {
        let mut datagram = [0; 256];
        let length = supervisor.recv(&mut datagram).expect("it is told");
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    };
    let listens = relay.line_beginning("listening").replace("listening ", "");
    assert_eq!(hears(), format!("READY=1\nSTATUS=serves devices at {listens}\n"));
    signal(relay.id(), "TERM");
    assert!(hears().starts_with("STOPPING=1\n"));
    assert_eq!(relay.stop("TERM"), 0);
}

#[test]
fn systemd_understands_the_units() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        let text = "SKIPPED: systemd-analyze is not here: nobody has verified the unit";
        let _ = writeln!(std::io::stderr(), "{text}");
        return;
    };
    assert!(version.status.success());
    let unit = documented("systemd/fieldkeep-relay.service");
    for said in ["Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "KillSignal=SIGTERM"] {
        assert!(unit.lines().any(|line| line == said), "{said}");
    }
    // It is verified that the program is there: here it is another one.
    let (program, here) = ("/usr/local/bin/fieldkeep", env!("CARGO_BIN_EXE_fieldkeep"));
    assert!(unit.contains(program));
    let place = Place::new();
    let file = place.file("fieldkeep-relay.service", &unit.replace(program, here));
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").arg("--man=no").arg(file);
    for name in ["fieldkeep-backup.service", "fieldkeep-backup.timer"] {
        let unit = documented(&format!("systemd/{name}"));
        verify.arg(place.file(name, &unit.replace(program, here)));
    }
    let ran = finish(verify, "");
    assert_eq!((ran.code, ran.err.trim()), (0, ""), "{}", ran.out);
}
