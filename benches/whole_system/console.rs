//! The console over many records: a process of its own, as a user starts it. How soon it answers, how
//! long its pages take, what it needs of memory, and how soon a page knows what another device wrote.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use fieldkeep_model::{Edit, Grant, RecordKey, Scalar};

use crate::authors::settled_orders;
use crate::camp::{Camp, Sizes, directory, record_id, type_named};
use crate::http::Client;
use crate::idle::resident_kib;
use crate::measure::{median, micros};
use crate::table::{Table, Target};

/// Requests of each page.
const REQUESTS: usize = 21;

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    let count = sizes.many;
    let root = directory();
    let (mut writers, _) = settled_orders(&root.path().join("relay"), count, 0);
    writers.pack(true);
    writers.replica.save_all().expect("the disk takes it");
    let known = writers.replica.types();
    assert!(!known.is_empty(), "there is a catalog");
    drop(writers);
    let camp = Camp::serve(root);
    let device = camp.device("subject", vec![Grant::ALL]);
    let path = device.directory().to_owned();
    drop(device);

    let begin = Instant::now();
    let mut serving = Serving::start(&path);
    let client = serving.client();
    serving.wait_for("synced");
    let took = begin.elapsed().as_secs_f64();
    let most = most_resident_mb(serving.child.id());
    let how = format!("the most that the process had, {took:.0} s, console served meanwhile");
    let what = format!("memory during a cold start, {count} records");
    table.row(&what, most, Target::AtMost(250.0, "MB"), how);
    let first = client.get("/api/v1/search?text=confirmed");
    assert_eq!(first.status, 200, "the index of words is made");
    drop(serving);

    let mut ready = Vec::new();
    for _ in 0..sizes.runs {
        let begin = Instant::now();
        let serving = Serving::start(&path);
        assert_eq!(serving.client().get("/data").status, 200);
        ready.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let what = format!("start until the console answers, {count} records");
    let how = "from the start of the process to a page with every type's status".to_owned();
    table.row(&what, median(ready), Target::AtMost(300.0, "ms"), how);

    let mut serving = Serving::start(&path);
    let client = serving.client();
    serving.wait_for("synced");
    // Not a wait for something: the time is what is measured.
    std::thread::sleep(Duration::from_secs(sizes.idle.min(20)));
    let resident = resident_kib(serving.child.id()) / 1024.0;
    let what = format!("memory while idle, {count} records");
    table.row(&what, resident, Target::AtMost(80.0, "MB"), "connected and synced".to_owned());

    for (name, path, most) in [
        ("list page", "/records/order", 30.0),
        ("page of the types", "/data", 30.0),
        ("search page", "/records?q=confirmed", 30.0),
    ] {
        let times = (0..REQUESTS).map(|_| {
            let (time, page) = micros(|| client.get(path));
            assert_eq!(page.status, 200, "{path}");
            time / 1e3
        });
        let what = format!("{name}, {count} records");
        let how = "over loopback, a connection each".to_owned();
        table.row(&what, median(times.collect()), Target::AtMost(most, "ms"), how);
    }
    live(sizes, table, &camp, &client);
    drop(serving);
    camp.stop();
}

/// Another device writes; the page that is open is told, fetches itself, and has it.
fn live(sizes: &Sizes, table: &mut Table, camp: &Camp, client: &Client) {
    let ann = camp.device("ann", vec![Grant::ALL]);
    let patience = Duration::from_secs(60);
    ann.pause(Some(&type_named("order"))).expect("its download is not what is measured");
    camp.runtime.block_on(ann.sync(patience)).expect("the relay is there");
    let keeping = ann.clone();
    let kept = camp.runtime.spawn(async move { keeping.keep_synced().await });
    let key = RecordKey::new(type_named("customer"), record_id("written-by-ann"));
    let write = |name: &str| {
        let edit = vec![Edit::Put("name".into(), Scalar::Str(name.to_owned()))];
        ann.put(&key, &edit.into()).expect("it is saved");
    };
    write("at first");
    let page = "/records/customer/written-by-ann";
    while client.get(page).status != 200 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut events = Events::open(client);
    let times = (0..sizes.runs * 4).map(|nth| {
        let name = format!("name {}", 1_000 + nth);
        // What followed the last one is over.
        std::thread::sleep(Duration::from_millis(400));
        let begin = Instant::now();
        write(&name);
        loop {
            events.next();
            if client.get(page).body.contains(&name) {
                return begin.elapsed().as_secs_f64() * 1e3;
            }
        }
    });
    let time = median(times.collect());
    let how = "from `put` on another device until the page has it: relay, event, page".to_owned();
    let what = format!("live page, {} records", sizes.many);
    table.row(&what, time, Target::AtMost(100.0, "ms"), how);
    kept.abort();
}

/// The process, and what it prints.
struct Serving {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Serving {
    fn start(path: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldkeep"));
        command.args(["serve", "--no-nearby", "--console", "127.0.0.1:0", "--dir"]).arg(path);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary is built");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = lines.next().expect("it says where").expect("it is text");
        let url = line.strip_prefix("console ").expect("an address").to_owned();
        Self { child, lines, url }
    }

    fn client(&self) -> Client {
        let stranger = Client::stranger(&self.url);
        let entered = stranger.get(&self.url[self.url.find("/enter").expect("a path")..]);
        let cookie = entered.header("set-cookie").expect("a session");
        stranger.with("Cookie", cookie.split(';').next().expect("a value"))
    }

    fn wait_for(&mut self, beginning: &str) {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with(beginning)), "it ended before it {beginning}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// The events of a page that is open.
struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    fn open(client: &Client) -> Self {
        let mut stream = TcpStream::connect(&client.host).expect("the console listens");
        let mut request = format!("GET /events HTTP/1.1\r\nHost: {}\r\n", client.host);
        for (name, value) in &client.headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{request}\r\n").as_bytes()).expect("it is sent");
        Self(BufReader::new(stream).lines())
    }

    /// Waits for the next one.
    fn next(&mut self) {
        let mut lines = self.0.by_ref().map_while(Result::ok);
        assert!(lines.any(|line| line == "event: changed"), "the console goes on");
    }
}

fn most_resident_mb(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
