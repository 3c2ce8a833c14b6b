//! `demo`: a field day with a relay and three devices in one process, over real QUIC on loopback and
//! with real files. The story is told from what the stores say, not from a script; at its end stand
//! commands that look at what it made, and work after it has ended.

mod field;
mod proof;
mod story;
mod telling;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use crate::output::{Output, safe};
use crate::sync::until_interrupted;
use fieldkeep_console::{Code, Failure, Trouble};
use story::Story;
use telling::{Chapter, quoted, took};

/// What the demonstration plays with, unless a test plays with another.
const CATALOG: &str = include_str!("demo/catalog.toml");

/// A command that looks at what the demonstration made.
#[derive(Clone, Debug, Serialize)]
struct Look {
    /// What it shows.
    about: &'static str,
    /// The command, as a shell takes it.
    command: String,
}

#[derive(Serialize)]
struct Shape<'s> {
    dir: String,
    seconds: f64,
    #[serde(flatten)]
    story: &'s Story,
    commands: &'s [Look],
}

/// Plays the day in an empty directory, or in a fresh temporary one, which is kept.
pub(crate) fn run(dir: Option<PathBuf>, json: bool) -> anyhow::Result<ExitCode> {
    let mut output = Output::new(json);
    let result = perform(dir, &mut output).and_then(|()| Ok(output.flush()?));
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever read has read enough.
        Err(Trouble::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(Trouble::Output(error)) => Err(error.into()),
        Err(Trouble::Failed(failure)) => {
            output.failure(&failure)?;
            output.flush()?;
            Ok(ExitCode::from(failure.code.number()))
        }
    }
}

fn perform(dir: Option<PathBuf>, output: &mut Output) -> Result<(), Trouble> {
    let root = place(dir)?;
    let started = Instant::now();
    let shown = root.display().to_string();
    if !output.is_json() {
        output.line("A field day: everything below is happening now, in")?;
        output.line(&safe(&shown))?;
        output.flush()?;
    }
    let mut number = 0;
    let mut tell = |chapter: &Chapter| {
        number += 1;
        if output.is_json() {
            return Ok(());
        }
        chapter.print(number, output.writer())?;
        output.flush()
    };
    let story = until_interrupted(story::play(&root, CATALOG, &mut tell))??;
    let took_all = started.elapsed();
    let commands = looks(&program(), &root, &story);
    if output.is_json() {
        let seconds = took_all.as_secs_f64();
        let shape = Shape { dir: shown, seconds, story: &story, commands: &commands };
        output.object("demo", &shape)?;
        return Ok(());
    }
    output.line(&format!("\nThe day took {}. All of it is kept: look at it.", took(took_all)))?;
    for look in &commands {
        output.line(&format!("\n   # {}", look.about))?;
        output.line(&format!("   {}", look.command))?;
    }
    Ok(output.line("")?)
}

/// The directory to play in.
fn place(dir: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let Some(dir) = dir else {
        let fresh = tempfile::Builder::new().prefix("fieldkeep-demo-").tempdir();
        return Ok(fresh.map_err(|error| Failure::file(&std::env::temp_dir(), &error))?.keep());
    };
    std::fs::create_dir_all(&dir).map_err(|error| Failure::file(&dir, &error))?;
    let mut entries = std::fs::read_dir(&dir).map_err(|error| Failure::file(&dir, &error))?;
    if entries.next().is_some() {
        let message = format!("{} is not empty", dir.display());
        let remedy = "name an empty directory, or none: a fresh one is made then";
        return Err(Failure::new(Code::Usage, message, remedy));
    }
    Ok(dir)
}

/// This program, as it is called from here.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "fieldkeep".into() };
    let beside = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&beside).any(|dir| path.parent() == Some(&dir)) {
        return "fieldkeep".into();
    }
    let here = std::env::current_dir().ok();
    let shorter = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    let shorter = shorter.filter(|path| path.components().count() > 1);
    shorter.unwrap_or(&path).display().to_string()
}

/// Commands that look at what was made; those about records that are left to do only if there are.
fn looks(program: &str, root: &Path, story: &Story) -> Vec<Look> {
    let order = story::ORDER;
    let orders = root.join("orders.csv").display().to_string();
    let documents = root.join("automerge").display().to_string();
    let mut looks = Vec::new();
    let mut add = |about, who: &str, words: &[&str]| {
        let dir = root.join(who).display().to_string();
        let words = [&[program], words, &["--dir", &dir]].concat();
        let words: Vec<_> = words.into_iter().map(quoted).collect();
        looks.push(Look { about, command: words.join(" ") });
    };
    add("how everything stands on a device", "ann", &["status"]);
    add("and on the relay", "relay", &["status"]);
    add("the order that two people edited", "ben", &["get", order]);
    add("who wrote what, and when", "ben", &["get", order, "--history"]);
    add("as it was when it last passed the rules", "cara", &["get", order, "--last-valid"]);
    add("some of the orders, on a third device", "cara", &["list", "order", "--limit", "8"]);
    add("what needs attention, on a device", "ann", &["attention", "list"]);
    add("and on the relay", "relay", &["relay", "quarantine", "list"]);
    add("the orders as a table", "cara", &["export", "order", "--format", "csv", "--out", &orders]);
    let export = ["export", "order", "--format", "automerge", "--out", &documents];
    add("the same as Automerge documents, which any Automerge 3 opens", "cara", &export);
    if let Some(record) = story.left.first() {
        add(
            "a record that is left to do, with its reason",
            "relay",
            &["relay", "quarantine", "show", record],
        );
    }
    if story.left.iter().any(|record| record == story::SLIP) {
        let repair = ["put", story::SLIP, "lines[water].quantity=12"];
        add("repair it yourself, offline; it waits for the next sync", "ann", &repair);
        add("what the device expects of it", "ann", &["get", story::SLIP]);
    }
    looks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn played(catalog: &str) -> Story {
        let root = tempfile::tempdir().expect("a directory");
        let mut quiet = |_: &Chapter| Ok(());
        let play = story::play(root.path(), catalog, &mut quiet);
        until_interrupted(play).expect("nobody interrupts").expect("the day ends well")
    }

    fn text(story: &Story) -> String {
        story
            .chapters
            .iter()
            .flat_map(|chapter| chapter.text.clone())
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn two_edits_that_are_fine_alone_are_held_together_and_released_by_a_repair() {
        let story = played(CATALOG);
        let text = text(&story);
        let together = &story.chapters[4].facts;
        assert_eq!(together["fine_alone"], json!([true, true]));
        assert_eq!(together["state"], "held");
        // The order, and the slip of the finger.
        assert_eq!(together["held_here"], json!([2, 2]), "{text}");
        for device in ["ann", "ben"] {
            let shown = &together["shown"][device];
            assert_eq!(shown["state"], "held", "{text}");
            let culprits = json!([
                {"person": "ann", "fields": ["discount_percent"]},
                {"person": "ben", "fields": ["payment"]},
            ]);
            assert_eq!(shown["culprits"], culprits, "{text}");
        }
        assert_eq!(together["shelf"], json!({"before": 20, "after": [29, 29]}), "{text}");
        assert_eq!(story.chapters[3].facts["judged_on_arrival"]["order/ben-12"], "valid");
        let near = &story.chapters[5].facts;
        assert_eq!((&near["before"], &near["after"]), (&json!("valid"), &json!("held")), "{text}");
        assert_eq!(story.chapters[7].facts["released"], true);
        assert_eq!(story.chapters[9].facts["equal"], true);
        assert_eq!(story.left, [story::SLIP]);
    }

    #[test]
    fn without_the_rule_nothing_is_held_together_and_the_story_says_so() {
        let catalog = CATALOG.replace("discount_percent <= 20 ||", "discount_percent <= 40 ||");
        assert_ne!(catalog, CATALOG);
        let story = played(&catalog);
        let text = text(&story);
        assert_eq!(story.chapters[4].facts["state"], "valid");
        assert!(!text.contains("together they are wrong"), "{text}");
        assert!(text.contains("order/ann-2 needs none: valid"), "{text}");
    }

    #[test]
    fn a_stricter_rule_holds_what_was_captured() {
        let catalog = CATALOG.replace("l.quantity > 0", "l.quantity > 8");
        let story = played(&catalog);
        let held = story.chapters[2].facts["held"].as_u64().expect("a number");
        assert!(held > 10, "{}", text(&story));
        assert!(story.left.len() > 10);
        assert_eq!(story.chapters[9].facts["equal"], true);
    }

    #[test]
    fn a_catalog_that_does_not_parse_tells_no_story() {
        let root = tempfile::tempdir().expect("a directory");
        let mut quiet = |_: &Chapter| Ok(());
        let play = story::play(root.path(), "catalog = 1\nrules = []", &mut quiet);
        let trouble =
            until_interrupted(play).expect("nobody interrupts").expect_err("no rules key");
        assert!(trouble.to_string().contains("rules"), "{trouble}");
    }
}
