//! The console in a real browser: Node runs `tests/browser/`, which starts a relay, devices and
//! Chromium. Without them this is a loud skip, and under `.ci/run` a failure.
//!
//! `npm ci` in `tests/browser` fetches what it needs of Node's packages; the browser is a system's
//! Chromium, at `/usr/bin/chromium` unless FIELDKEEP_CHROMIUM says otherwise. The pictures that it takes
//! lie in `target/screenshots`.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

#[test]
fn every_page_and_action_of_the_console_does_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let suite = root.join("tests/browser");
    let chromium = std::env::var("FIELDKEEP_CHROMIUM");
    let chromium = chromium.unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    let node = Command::new("node").arg("--version").output().is_ok();
    let packages = suite.join("node_modules/playwright-core").is_dir();
    if !(node && packages && Path::new(&chromium).exists()) {
        assert!(std::env::var_os("CI").is_none(), "Node, its packages or Chromium are missing");
        let text = "SKIPPED: no page was looked at: Node, `npm ci` in tests/browser, and Chromium";
        // Not captured by whoever runs the test.
        let _ = writeln!(std::io::stderr(), "{text}");
        return;
    }
    let run = Command::new("node")
        .args(["--test", "--test-concurrency=2", "--test-reporter=spec"])
        .current_dir(&suite)
        .env("FIELDKEEP_BINARY", env!("CARGO_BIN_EXE_fieldkeep"))
        .env("FIELDKEEP_CHROMIUM", &chromium)
        .env("FIELDKEEP_SHOTS", root.join("target/screenshots"))
        .output()
        .expect("node runs");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}\n{err}");
}
