//! A process that dies at every statement and file operation of a clearing, one after the other: what
//! it leaves is the old state or the new one, and what is unsaved is in both.

#![cfg(feature = "failpoints")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use fieldkeep_device::Device;
use fieldkeep_model::{Grant, TypeName};
use serde_json::json;
use support::*;

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]
[type.customer.field.city]

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
"#;

/// Clears in a process that dies at a point; whether it went on to the end.
fn clear(directory: &Path, dies_at: u64) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldkeep"));
    command.args(["clear", "--yes", "--json", "--dir"]).arg(directory);
    command.env("FIELDKEEP_DIES_AT", dies_at.to_string()).env("RUST_BACKTRACE", "0");
    let ran = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
    ran.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clearing_that_dies_anywhere_leaves_the_old_state_or_the_new_one() {
    let site = Site::founded(CATALOG);
    let office = site.device("office").await;
    let ticket = site.invited("ann", vec![Grant::ALL], i64::MAX).await;
    let ann = site.join(&ticket, "ann").await;
    put(&office, "customer/c1", json!({"name": "Kiosk"}));
    put(&office, "customer/c2", json!({"name": "Harbour"}));
    put(&office, "visit/n1", json!({"outlet": "north"}));
    put(&office, "visit/e1", json!({"outlet": "east"}));
    sync(&office).await;
    sync(&ann).await;
    let north = Grant { ty: TypeName::new("visit").ok(), scope: Some("north".into()) };
    let customers = Grant { ty: TypeName::new("customer").ok(), scope: None };
    site.decide("ann", Some(vec![north, customers])).await;
    sync(&ann).await;
    // Not sent: an edit, and a record of her own.
    put(&ann, "customer/c2", json!({"city": "Riga"}));
    put(&ann, "customer/mine", json!({"name": "captured offline"}));
    ann.close().expect("it closes");
    drop(ann);
    put(&office, "customer/c3", json!({"name": "what the copy brings"}));
    sync(&office).await;

    let (mut old, mut new, mut points) = (0, 0, 0);
    for dies_at in 1.. {
        let copy = format!("ann-{dies_at}");
        site.copy("ann", &copy);
        disguise(&site.path(&copy), &site.path("ann"));
        let ended = clear(&site.path(&copy), dies_at);
        let device = Device::open(&site.path(&copy)).expect("it opens after a crash");
        assert_eq!(fields(&device, "customer/c2")["city"], "Riga", "point {dies_at}");
        assert_eq!(fields(&device, "customer/mine")["name"], "captured offline");
        let customers = content(&device, "customer").len();
        let visits = content(&device, "visit").len();
        match (customers, visits) {
            (3, 2) => old += 1,
            (4, 1) => new += 1,
            other => panic!("point {dies_at}: neither the old state nor the new: {other:?}"),
        }
        if ended || dies_at % 25 == 0 {
            sync(&device).await;
            assert_eq!(content(&device, "customer"), site.content("customer").await);
        }
        drop(device);
        std::fs::remove_dir_all(site.path(&copy)).expect("nobody owns it");
        if ended {
            points = dies_at - 1;
            break;
        }
    }
    println!("{points} points: {old} times the old state, {new} times the new one");
    assert!(points > 100 && old > 0 && new > 0);
}
