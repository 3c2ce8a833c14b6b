//! The map as a test: which room may import which, what only one room knows, and what the pure rooms
//! never touch. It reads manifests and sources; nothing is built for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The product crates by layer. A crate imports from the layers below its own; the command line
/// imports everything.
const LAYERS: [&[&str]; 6] = [
    &["model"],
    &["catalog", "documents", "protocol", "store", "link"],
    &["replica", "transfer"],
    &["device", "relay"],
    &["console", "lab"],
    &["cli"],
];

/// What the layers alone would allow and the map does not.
const NARROWER: [(&str, &[&str]); 7] = [
    ("catalog", &["model"]),
    ("documents", &["model"]),
    ("protocol", &["model"]),
    ("store", &["model"]),
    ("link", &["model"]),
    ("replica", &["model", "catalog", "documents", "store"]),
    ("transfer", &["model", "protocol", "store", "link"]),
];

/// Dependencies that one product crate has, and no other.
const ALONE: [(&str, &str); 14] = [
    ("automerge", "documents"),
    ("rusqlite", "store"),
    ("quinn", "link"),
    ("rustls", "link"),
    ("mdns-sd", "link"),
    ("axum", "console"),
    ("prometheus-client", "relay"),
    ("argon2", "relay"),
    ("jsonschema", "catalog"),
    ("minijinja", "catalog"),
    ("opentelemetry", "cli"),
    ("opentelemetry-otlp", "cli"),
    ("opentelemetry_sdk", "cli"),
    ("tracing-opentelemetry", "cli"),
];

/// Crates that take time, randomness and bytes as arguments.
const PURE: [&str; 5] = ["model", "catalog", "documents", "protocol", "replica"];

/// What a pure crate's sources do not say.
const IMPURE: [&str; 13] = [
    "SystemTime",
    "Instant",
    "std::thread",
    "thread::spawn",
    "tokio",
    "async ",
    ".await",
    "getrandom",
    "std::fs",
    "File::open",
    "UdpSocket",
    "TcpStream",
    "std::env",
];

/// Measured and generated things: exempt by name.
const EXEMPT: [&str; 1] = ["lab"];
/// The one product crate that imports the laboratory, for its commands.
const RUNS_THE_LAB: &str = "cli";

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates")
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(crates()).expect("the folder of the crates");
    let folders = entries.map(|entry| entry.expect("an entry").path());
    let folders = folders.filter(|path| path.join("Cargo.toml").is_file());
    let names =
        folders.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn manifest(name: &str) -> toml::Table {
    let path = crates().join(name).join("Cargo.toml");
    fs::read_to_string(&path).expect("a manifest").parse().expect("TOML")
}

/// A crate's dependencies in a table of its manifest.
fn dependencies(name: &str, table: &str) -> BTreeSet<String> {
    let manifest = manifest(name);
    let listed = manifest.get(table).and_then(toml::Value::as_table);
    listed.into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// The crates of this workspace that a crate imports.
fn ours(name: &str) -> BTreeSet<String> {
    let all = dependencies(name, "dependencies");
    all.iter().filter_map(|name| name.strip_prefix("fieldkeep-")).map(str::to_owned).collect()
}

fn layer(name: &str) -> usize {
    let found = LAYERS.iter().position(|layer| layer.contains(&name));
    found.unwrap_or_else(|| panic!("crates/{name} has no place on the map: give it a layer"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A source without its comments and without its test modules, which stand at the end.
fn product_code(source: &str) -> String {
    let code = source.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_crate_imports_only_from_the_layers_below() {
    let narrower = BTreeMap::from(NARROWER);
    for name in names() {
        for import in ours(&name) {
            assert!(
                layer(&import) < layer(&name),
                "{name} imports {import}, which is not below it"
            );
            if let Some(allowed) = narrower.get(&*name) {
                assert!(allowed.contains(&&*import), "{name} imports {import}: it may {allowed:?}");
            }
        }
    }
}

#[test]
fn no_product_crate_is_built_with_the_lab() {
    let product = names().into_iter().filter(|name| !EXEMPT.contains(&name.as_str()));
    for name in product.filter(|name| name != RUNS_THE_LAB) {
        assert!(!ours(&name).contains("lab"), "{name} imports the lab");
    }
}

/// Whoever installs the product builds none of the engines that the lab compares with.
#[test]
fn the_other_engines_are_optional() {
    let path = crates().join("lab/Cargo.toml");
    let manifest: toml::Table =
        fs::read_to_string(path).expect("a manifest").parse().expect("TOML");
    for engine in ["loro", "yrs", "samod"] {
        let optional = &manifest["dependencies"][engine]["optional"];
        assert_eq!(optional.as_bool(), Some(true), "{engine} is built for everybody");
    }
    assert!(manifest["features"].get("default").is_none(), "the lab has no default features");
}

#[test]
fn each_large_dependency_is_known_to_one_crate() {
    for name in names().iter().filter(|name| !EXEMPT.contains(&name.as_str())) {
        let dependencies = dependencies(name, "dependencies");
        for (dependency, only) in ALONE {
            let known = dependencies.contains(dependency);
            assert!(!known || name == only, "{name} imports {dependency}: only {only} may");
        }
    }
}

#[test]
fn the_pure_crates_have_no_clock_no_dice_no_thread_and_no_disk() {
    for name in PURE {
        let mut files = Vec::new();
        sources(&crates().join(name).join("src"), &mut files);
        assert!(!files.is_empty(), "{name} has sources");
        for path in files {
            let code = product_code(&fs::read_to_string(&path).expect("a source"));
            for word in IMPURE {
                assert!(!code.contains(word), "{} says `{word}`", path.display());
            }
        }
        for dependency in ["tokio", "getrandom", "rand", "quinn"] {
            let known = dependencies(name, "dependencies").contains(dependency);
            assert!(!known, "{name} depends on {dependency}");
        }
    }
}

#[test]
fn every_source_file_introduces_itself() {
    let mut files = Vec::new();
    sources(&crates(), &mut files);
    for folder in ["tests", "benches"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        if folder.is_dir() {
            sources(&folder, &mut files);
        }
    }
    for path in files {
        let source = fs::read_to_string(&path).expect("a source");
        assert!(source.starts_with("//!"), "{} does not begin with //!", path.display());
    }
}

/// Building a crate once more for tests that it does not have takes over a minute; a test that nobody
/// runs would be worse.
#[test]
fn a_crate_that_is_not_tested_from_within_has_no_tests_there() {
    for name in names() {
        let manifest = manifest(&name);
        let off = |key| manifest.get("lib").and_then(|lib| lib.get(key)?.as_bool()) == Some(false);
        let mut files = Vec::new();
        sources(&crates().join(&name).join("src"), &mut files);
        for path in files {
            let source = fs::read_to_string(&path).expect("a source");
            let tested = off("test") && source.contains("#[cfg(test)]");
            // Every second one closes what the one before opened.
            let fences =
                source.lines().filter(|line| line.trim().starts_with("//") && line.contains("```"));
            let shown =
                off("doctest") && fences.step_by(2).any(|fence| !fence.ends_with("```toml"));
            assert!(!tested && !shown, "{} has tests that are not run", path.display());
        }
    }
    let main = fs::read_to_string(crates().join("main.rs")).expect("a source");
    assert!(!main.contains("#[cfg(test)]"), "the tests of crates/main.rs are not run");
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    for name in names() {
        let manifest = manifest(&name);
        let inherited = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(inherited, Some(&toml::Value::Boolean(true)), "{name} does not take the lints");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let root: toml::Table = fs::read_to_string(root).expect("a manifest").parse().expect("TOML");
    assert_eq!(root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

#[test]
fn continuous_integration_runs_the_test_command_that_the_readme_names() {
    let read = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let readme = read("README.md");
    let named = readme.lines().map(str::trim).find(|line| line.starts_with("cargo test "));
    let named = named.expect("the README names a test command");
    let called = read(".ci/run");
    let is_called = |line: &str| line.trim().strip_prefix("stage tests ") == Some(named);
    assert!(called.lines().any(is_called), ".ci/run does not call `{named}`");
}

#[test]
fn the_tests_that_the_readme_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("tests"), &mut files);
    sources(&crates(), &mut files);
    let all: Vec<_> =
        files.iter().map(|path| fs::read_to_string(path).expect("a source")).collect();
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let promises = readme.lines().filter(|line| line.starts_with("| P"));
    let quoted = promises.flat_map(|line| line.split('`').skip(1).step_by(2));
    for name in quoted.filter(|name| name.matches('_').count() > 2) {
        let definition = format!("fn {name}(");
        assert!(all.iter().any(|source| source.contains(&definition)), "there is no test {name}");
    }
}

#[test]
fn comments_and_test_modules_are_no_product_code() {
    let source = "//! tokio\nuse a; // Instant\n#[cfg(test)]\nmod tests { use std::fs; }\n";
    assert_eq!(product_code(source), "\nuse a; ");
}
