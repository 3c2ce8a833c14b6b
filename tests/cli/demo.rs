//! The demonstration as a user runs it: the real binary, and every command that it prints.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What the story may take at most.
const PATIENCE: Duration = Duration::from_secs(30);

fn fieldkeep(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldkeep"));
    command
        .args(args)
        .env("XDG_STATE_HOME", state)
        .env("TMPDIR", state)
        .env_remove("FIELDKEEP_DIR");
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is text")
}

#[test]
fn every_command_that_the_demonstration_prints_works_after_it_has_ended() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("a field day");
    let dir = dir.to_str().expect("a path in UTF-8");
    let started = Instant::now();
    let played = fieldkeep(root.path(), &["demo", "--json", "--dir", dir]);
    assert!(played.status.success(), "{}{}", text(&played.stdout), text(&played.stderr));
    assert!(started.elapsed() < PATIENCE, "it took {:?}", started.elapsed());
    let story: Value = serde_json::from_slice(&played.stdout).expect("one JSON object");
    assert_eq!(story["schema"], "fieldkeep/demo/1");
    assert_eq!(story["dir"], dir);
    let commands = story["commands"].as_array().expect("a list of commands");
    let mut shown = String::new();
    for look in commands {
        let command = look["command"].as_str().expect("a command");
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("XDG_STATE_HOME", root.path());
        let output = shell.output().expect("there is a shell");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command}\n{out}{err}");
        assert!(!out.is_empty() || !err.is_empty(), "{command} shows nothing");
        shown.push_str(&out);
    }
    for verb in [" status ", " get ", " list ", " attention list ", " quarantine list ", " export "]
    {
        let is_there = |look: &Value| look["command"].as_str().is_some_and(|c| c.contains(verb));
        assert!(commands.iter().any(is_there), "no command shows{verb}");
    }
    assert!(shown.contains("every line needs a quantity above 0"), "{shown}");
}

#[test]
fn the_demonstration_reads_well_at_80_columns_and_prints_the_directory_that_it_keeps() {
    let root = tempfile::tempdir().expect("a directory");
    let played = fieldkeep(root.path(), &["demo"]);
    let story = text(&played.stdout);
    assert!(played.status.success(), "{story}{}", text(&played.stderr));
    assert!(!story.contains('\u{1b}'), "no colours where nobody asked for them");
    let kept = story.lines().nth(1).expect("the directory");
    for owner in ["relay", "ann", "ben", "cara"] {
        assert!(Path::new(kept).join(owner).join("lock").is_file(), "{kept} lacks {owner}");
    }
    // A path can be as long as it likes.
    for line in story.lines().filter(|line| !line.contains(kept)) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone_with_exit_code_2() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("taken");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("letter"), "dear").expect("a file");
    let path = dir.to_str().expect("a path in UTF-8");
    let refused = fieldkeep(root.path(), &["demo", "--dir", path]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("is not empty"));
    let refused = fieldkeep(root.path(), &["demo", "--json", "--dir", path]);
    assert_eq!(refused.status.code(), Some(2));
    let error: Value = serde_json::from_slice(&refused.stdout).expect("one JSON object");
    assert_eq!((&error["schema"], &error["code"]), (&"fieldkeep/error/1".into(), &"usage".into()));
    assert_eq!(std::fs::read_dir(&dir).expect("it is there").count(), 1);
}
