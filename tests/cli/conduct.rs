//! How the binary behaves: exit codes, errors as people and programs read them, one owner of a
//! directory, and output that nobody reads to the end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use crate::process::{self, Place, Ran, Running, finish};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
required = true
[type.customer.field.stock]
kind = "counter"
[type.customer.field.rank]
schema = { type = "integer" }
"#;

fn organisation() -> (Place, Running) {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    (place, relay)
}

#[track_caller]
fn fails(place: &Place, dir: &str, args: &[&str], code: i32, word: &str) {
    let ran = place.run(dir, args);
    assert_eq!(ran.code, code, "{args:?}: {}{}", ran.out, ran.err);
    assert_eq!(ran.out, "", "{args:?}");
    assert!(ran.err.starts_with("fieldkeep: ") || word == "Usage", "{}", ran.err);
    let json = place.run(dir, &[args, &["--json"]].concat());
    let error: Value = serde_json::from_str(&json.out).expect("one object");
    assert_eq!(json.code, code);
    assert_eq!(error["schema"], "fieldkeep/error/1");
    assert_eq!(error["exit"], json!(code));
    assert!(error["code"].is_string() && error["message"].is_string(), "{error}");
    assert!(error["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{error}");
    if word != "Usage" {
        assert!(error["message"].as_str().is_some_and(|text| text.contains(word)), "{error}");
    }
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let (place, relay) = organisation();
    fails(&place, "ann", &["nonsense"], 2, "Usage");
    fails(&place, "ann", &["put", "nothing/1", "a=b"], 2, "nothing");
    fails(&place, "ann", &["put", "customer/1", "nmae=x"], 2, "nmae");
    fails(&place, "ann", &["put", "customer/1", "name"], 2, "no edit");
    fails(&place, "ann", &["put", "customer/a/b", "name=x"], 2, "Usage");
    fails(&place, "ann", &["put", "customer/1", "rank=high"], 4, "rank");
    fails(&place, "ann", &["get", "customer/1"], 3, "customer/1");
    fails(&place, "ann", &["delete", "customer/1"], 3, "customer/1");
    fails(&place, "nowhere", &["list", "customer"], 3, "nowhere");
    fails(&place, "ann", &["list", "nothing"], 2, "nothing");
    fails(&place, "ann", &["list", "customer", "--where", "x=y"], 2, "`x`");
    fails(&place, "relay", &["put", "customer/1", "name=x"], 2, "relay's directory");
    fails(&place, "ann", &["relay", "quarantine", "list"], 2, "device's directory");
    fails(&place, "ann", &["relay", "invite"], 6, "admin.key");
    fails(&place, "new", &["join", "hello"], 2, "ticket");
    fails(&place, "ann", &["export", "customer", "--format", "automerge"], 2, "directory");
    place.run("ann", &["put", "customer/held", "rank=1"]).ok();
    fails(&place, "ann", &["get", "customer/held", "--last-valid"], 4, "never passed");
    place.run("ann", &["put", "customer/1", "name=x"]).ok();
    assert_eq!(
        place.run("ann", &["list", "customer", "--json"]).json()["records"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(relay.stop("INT"), 0);
    fails(&place, "ann", &["sync"], 5, "everything is safe on this device");
    let status = place.run("ann", &["status", "--json"]).json();
    assert_eq!(status["connection"], "error");
    assert_eq!(status["unsaved"], json!(2));
    let twice = place.run("relay", &["relay", "init"]);
    assert_eq!(twice.code, 1, "{}", twice.err);
    let no_directory = place.command("x", &["status"]).env_remove("FIELDKEEP_DIR").output();
    assert_eq!(no_directory.expect("it runs").status.code(), Some(2));
}

/// A write to a copy of a device whose disk is nearly full; nothing where nobody may have such a disk.
fn written_to_a_full_disk(place: &Place, dir: &str) -> Option<Ran> {
    let small = place.path("small");
    std::fs::create_dir(&small).expect("it is made");
    let alone = |script: &str| {
        let mut shell = Command::new("unshare");
        shell.args(["-m", "sh", "-ec", script]).current_dir(place.path("."));
        shell.env("BINARY", env!("CARGO_BIN_EXE_fieldkeep")).env("FIELDKEEP_DIR", &small);
        finish(shell, "")
    };
    let mount = "mount -t tmpfs -o size=8m none small";
    let here = Command::new("unshare").arg("--version").output().is_ok();
    if !here || alone(mount).code != 0 {
        let text = "SKIPPED: no disk was full: a small one of its own needs root, and unshare";
        let _ = writeln!(std::io::stderr(), "{text}");
        return None;
    }
    Some(alone(&format!(
        "{mount}; cp -a {dir}/. small
         dd if=/dev/zero of=small/filler bs=4k 2>/dev/null || truncate -s -128k small/filler
         exec \"$BINARY\" put customer/big name={} --json",
        "x".repeat(60_000)
    )))
}

#[test]
fn a_full_disk_is_told_with_its_remedy_and_nothing_is_saved() {
    let (place, _relay) = organisation();
    let Some(full) = written_to_a_full_disk(&place, "ann") else { return };
    assert_eq!(full.code, 1, "{}{}", full.out, full.err);
    let error: Value = serde_json::from_str(&full.out).expect("one object");
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains("the disk is full")),
        "{error}"
    );
    assert_eq!(error["remedy"], "free some space, and try again");
}

#[test]
fn other_commands_go_through_the_process_that_owns_the_directory() {
    let (place, relay) = organisation();
    place.device("ben", &[]);
    let watch = place.start("ann", &["sync", "--watch"]);
    watch.line_beginning("synced  0 unsaved");
    place.run("ann", &["put", "customer/1", "name=Kiosk"]).ok();
    let synced = place.run("ann", &["sync", "--json"]).json();
    assert_eq!(synced["schema"], "fieldkeep/sync/1");
    let status = place.run("ann", &["status", "--json"]).json();
    assert_eq!(status["role"], "device");
    place.run("ben", &["sync"]).ok();
    assert_eq!(place.run("ben", &["get", "customer/1", "--json"]).json()["state"], "valid");
    place.run("ben", &["put", "customer/2"]).ok();
    place.run("ben", &["sync"]).ok();
    watch.line_beginning("synced  0 unsaved, 1 held");
    assert_eq!(place.run("ann", &["get", "customer/2", "--json"]).json()["state"], "held");
    let second = place.run("ann", &["sync", "--watch"]);
    assert_eq!(second.code, 1, "{}", second.err);
    assert!(second.err.contains(&watch.id().to_string()), "{}", second.err);
    assert_eq!(relay.stop("INT"), 0);
    watch.line_beginning("offline");
    assert_eq!(watch.stop("INT"), 130);
    assert!(!place.path("ann/owner.sock").exists());
    assert_eq!(place.run("ann", &["get", "customer/1", "--json"]).json()["state"], "valid");
}

#[test]
fn an_owner_that_was_killed_leaves_nothing_in_the_way() {
    let (place, relay) = organisation();
    let watch = place.start("ann", &["sync", "--watch"]);
    watch.line_beginning("synced");
    assert_eq!(watch.stop("KILL"), -1);
    place.run("ann", &["put", "customer/1", "name=Kiosk"]).ok();
    let watch = place.start("ann", &["sync", "--watch"]);
    watch.line_beginning("synced  0 unsaved");
    assert_eq!(watch.stop("TERM"), 130);
    assert_eq!(relay.stop("KILL"), -1);
    let relay = place.serve();
    assert_eq!(place.run("relay", &["get", "customer/1", "--json"]).json()["state"], "valid");
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn a_silent_owner_is_waited_for_and_then_named() {
    let (place, _relay) = organisation();
    let lock =
        std::fs::File::options().write(true).open(place.path("ann/lock")).expect("it is there");
    lock.lock().expect("nobody else has it");
    let locked = place.run("ann", &["put", "customer/1", "name=x"]);
    assert_eq!(locked.code, 8, "{}", locked.err);
    assert!(locked.err.contains("is in use by process"), "{}", locked.err);
}

#[test]
fn many_commands_at_once_take_turns() {
    let (place, _relay) = organisation();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|n| {
                let place = &place;
                scope.spawn(move || {
                    let record = format!("customer/{n}");
                    place.run("ann", &["put", &record, "name=x", "stock+=1"]).ok()
                })
            })
            .collect();
        runs.into_iter().for_each(|run| drop(run.join().expect("it ends")));
    });
    let synced = place.run("ann", &["sync"]).ok();
    assert!(synced.starts_with("sent 8, received 0, held 0"), "{synced}");
}

#[test]
fn the_socket_of_a_deep_directory_is_reached_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let (place, _relay) = organisation();
    let deep = format!("{0}/{0}/{0}/{0}/ann", "a-folder-with-a-long-name".repeat(2));
    std::fs::create_dir_all(place.path(&deep)).expect("it is made");
    let ticket = place.run("relay", &["relay", "invite", "--name", "ann"]).ok();
    place.run(&deep, &["join", ticket.trim()]).ok();
    let watch = place.start(&deep, &["sync", "--watch"]);
    watch.line_beginning("synced");
    place.run(&deep, &["put", "customer/1", "name=x"]).ok();
    let socket = std::fs::metadata(place.path(&deep).join("owner.sock")).expect("it is there");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert_eq!(watch.stop("INT"), 130);
}

#[test]
fn a_relay_that_has_moved_is_found_again_once_it_has_proved_its_key() {
    let (place, relay) = organisation();
    place.device("ben", &[]);
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["put", "customer/c1", "rank=7"]).ok();
    relay.stop("TERM");
    let (_relay, address) = place.serve_at("127.0.0.1:0");
    fails(&place, "ann", &["sync", "--timeout", "1s"], 5, "nobody answered within 1 s");
    // Somebody else is not taken for it.
    let other = place.start("ben", &["sync", "--watch", "--listen", "127.0.0.1:0"]);
    let elsewhere = other.line().replace("listening ", "");
    fails(
        &place,
        "ann",
        &["sync", "--relay", &elsewhere],
        6,
        "somebody else than the relay answers",
    );
    fails(&place, "ann", &["sync", "--timeout", "1s"], 5, "the relay was not reached");
    let sent = |args: &[&str]| place.run("ann", args).json()["sent"].clone();
    assert_eq!(sent(&["sync", "--relay", &address, "--json"]), 1);
    assert_eq!(sent(&["sync", "--json"]), 0, "it is remembered");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (place, _relay) = organisation();
    let rows: String = (0..3_000).map(|n| format!("{n},a name that takes some room\n")).collect();
    let file = place.file("many.csv", &format!("key,name\n{rows}"));
    let file = file.to_str().expect("a plain path");
    place.run("ann", &["import", "customer", file, "--id", "key"]).ok();
    for args in
        [vec!["list", "customer"], vec!["export", "customer"], vec!["list", "customer", "--json"]]
    {
        let mut command = place.command("ann", &args);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let mut out = BufReader::with_capacity(64, child.stdout.take().expect("it is piped"));
        out.read_line(&mut line).expect("a line");
        drop(out);
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!((ended.status.code(), ended.stderr), (Some(0), Vec::new()), "{args:?}");
    }
}

#[test]
fn nothing_of_a_faulty_file_is_imported() {
    let (place, _relay) = organisation();
    let import = |name: &str, content: &str, more: &[&str]| {
        let file = place.file(name, content);
        let file = file.to_str().expect("a plain path").to_owned();
        place.run("ann", &[&["import", "customer", &file], more].concat())
    };
    let told = |ran: process::Ran, code: i32, words: &[&str]| {
        assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
        for word in words {
            assert!(ran.err.contains(word), "{word}: {}", ran.err);
        }
    };
    told(import("a.csv", "Name,Colour\nx,red\n", &[]), 2, &["`Colour`", "`colour`", "--map"]);
    told(
        import("a.csv", "Key,Name\n1,x\n2,y\n1,z\n", &["--id", "Key"]),
        4,
        &["`1`", "line 2", "line 4"],
    );
    told(import("a.csv", "Key,Rank\n1,1\n2,high\n", &["--id", "Key"]), 4, &["line 3", "rank"]);
    told(import("a.csv", "Key,Name\n1\n", &["--id", "Key"]), 4, &["line"]);
    told(import("a.csv", "Key,Name\na/b,x\n", &["--id", "Key"]), 4, &["line 2", "`/`"]);
    told(import("a.csv", "Key,Name\n1,x\n", &["--id", "Nokey"]), 2, &["Nokey", "Key"]);
    told(import("a.jsonl", "{\"id\":\"1\",\"name\":\"x\"}\n{\"name\":1,\n", &[]), 4, &["line 2"]);
    told(import("a.txt", "", &[]), 2, &[".csv"]);
    assert_eq!(place.run("ann", &["list", "customer", "--json"]).json()["records"], json!([]));

    let mapped = import(
        "a.csv",
        "\u{feff}Key,Title,Stock\n1 ,x,5\n2,,7\n",
        &["--id", "Key", "--map", "Title=name"],
    );
    assert!(mapped.ok().contains("imported 2 rows"));
    let first = place.run("ann", &["get", "customer/1 ", "--json"]).json();
    assert_eq!(first["fields"], json!({"name": "x", "stock": 5}));
    let second = place.run("ann", &["get", "customer/2", "--json"]).json();
    assert_eq!(second["fields"], json!({"stock": 7}));
    let again = import(
        "a.csv",
        "Key,Title,Stock\n1 ,x,5\n2,,9\n",
        &["--id", "Key", "--map", "Title=name", "--json"],
    );
    let again = again.json();
    assert_eq!((&again["written"], &again["unchanged"]), (&json!(1), &json!(1)));
    let second = place.run("ann", &["get", "customer/2", "--json"]).json();
    assert_eq!(second["fields"]["stock"], json!(9));
    let orphan =
        import("b.jsonl", "{\"id\":\"3\",\"name\":\"y\"}\n{\"name\":\"z\"}\n", &["--json"]).json();
    assert_eq!(orphan["records"], json!(2));
}

/// Permissions bind nobody who is root: then the command is run as somebody else.
fn unprivileged(mut command: std::process::Command) -> std::process::Command {
    let root = std::process::Command::new("id").arg("-u").output();
    if !root.is_ok_and(|id| id.stdout == b"0\n") {
        return command;
    }
    let mut other = std::process::Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    other.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        let _ = value.map(|value| other.env(name, value));
    }
    command = other;
    command
}

#[test]
fn a_folder_that_cannot_be_written_is_said_and_nothing_in_it_changes() {
    use std::os::unix::fs::PermissionsExt as _;
    let (place, _relay) = organisation();
    place.run("ann", &["put", "customer/c1", "name=Kiosk"]).ok();
    let probe = process::finish(unprivileged(place.command("ann", &["--version"])), "");
    if probe.code != 0 {
        assert!(std::env::var_os("CI").is_none(), "nobody else can run the binary: {}", probe.err);
        let _ = writeln!(std::io::stderr(), "SKIPPED: nobody but root can run the binary here");
        return;
    }
    let folder = place.path("ann");
    let allow = |path: &std::path::Path, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("it is ours");
    };
    allow(folder.parent().expect("a place"), 0o755);
    allow(&folder, 0o555);
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        allow(&entry.expect("an entry").path(), 0o444);
    }
    for args in [["put", "customer/c1", "name=Harbour"], ["pause", "customer", "--json"]] {
        let refused = process::finish(unprivileged(place.command("ann", &args)), "");
        assert_eq!(refused.code, 6, "{args:?}: {} {}", refused.out, refused.err);
        let told = format!("{}{}", refused.out, refused.err);
        assert!(told.to_lowercase().contains("permission"), "{told}");
    }
    allow(&folder, 0o755);
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        allow(&entry.expect("an entry").path(), 0o600);
    }
    assert!(place.run("ann", &["get", "customer/c1"]).ok().contains("Kiosk"));
}
