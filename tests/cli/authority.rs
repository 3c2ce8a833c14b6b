//! `relay revoke`, `grant`, `publish` and `restore`, as an operator types them while the relay
//! serves and while it does not.

use crate::process::{Place, Running};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.visit]
scope = "outlet"
[type.visit.field.outlet]
"#;

/// Founds a relay and serves it. Returns where it listens, to serve it there again.
fn founded(place: &Place) -> (Running, String) {
    let catalog = place.file("catalog.toml", CATALOG);
    let catalog = catalog.to_str().expect("a plain path");
    place.run("relay", &["relay", "init", "--catalog", catalog]).ok();
    serve(place, "127.0.0.1:0")
}

fn serve(place: &Place, listen: &str) -> (Running, String) {
    let relay = place.start("relay", &["relay", "serve", "--listen", listen]);
    let address = relay.line_beginning("listening").replace("listening ", "");
    (relay, address)
}

#[test]
fn a_revoked_device_is_told_what_happened_and_whom_to_ask() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "customer/1", "name=Kiosk"]).ok();
    place.run("ann", &["sync"]).ok();
    let nobody = place.run("relay", &["relay", "revoke", "eve"]);
    assert_eq!(nobody.code, 3, "{}", nobody.err);
    assert!(nobody.err.contains("ann"), "it says who there is: {}", nobody.err);
    let revoked = place.run("relay", &["relay", "revoke", "ann", "--json"]).json();
    assert_eq!(revoked["schema"], "fieldkeep/relay-revoke/1");
    assert_eq!((&revoked["name"], &revoked["segments"]), (&json!("ann"), &json!(1)));
    place.run("ann", &["put", "customer/2", "name=after"]).ok();
    let synced = place.run("ann", &["sync"]);
    assert_eq!(synced.code, 6, "{}", synced.err);
    for word in ["revoked", "nothing on it is lost", "ask whoever runs the relay"] {
        assert!(synced.err.contains(word), "{word}: {}", synced.err);
    }
    assert_eq!(place.run("ann", &["get", "customer/2", "--json"]).json()["unsaved"], json!(true));
    let again = place.run("relay", &["relay", "revoke", "ann"]);
    assert_eq!(again.code, 2, "{}", again.err);
    assert!(again.err.contains("revoked already"), "{}", again.err);
    // The person comes back under a new invitation.
    place.device("ann2", &[]);
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn grants_are_replaced_with_an_admin_key_that_lies_elsewhere() {
    let place = Place::new();
    let (relay, address) = founded(&place);
    place.device("ann", &["--scope", "visit=42"]);
    place.device("ben", &[]);
    let key = place.path("admin.key");
    std::fs::rename(place.path("relay/admin.key"), &key).expect("it moves");
    let absent = place.run("relay", &["relay", "grant", "ann", "--scope", "visit=43"]);
    assert_eq!(absent.code, 6, "{}", absent.err);
    assert!(absent.err.contains("--admin-key FILE"), "{}", absent.err);
    let key = key.to_str().expect("a plain path");
    let grant = |more: &[&str]| {
        let args = [&["relay", "grant", "ann", "--admin-key", key], more].concat();
        place.run("relay", &args)
    };
    assert_eq!(grant(&[]).code, 2, "neither a scope nor --all");
    assert_eq!(grant(&["--scope", "customer=42"]).code, 2, "a type without scopes");
    grant(&["--scope", "visit=43"]).ok();
    place.run("ben", &["put", "visit/1", "outlet=42"]).ok();
    place.run("ben", &["put", "visit/2", "outlet=43"]).ok();
    place.run("ben", &["sync"]).ok();
    place.run("ann", &["sync"]).ok();
    assert_eq!(place.run("ann", &["get", "visit/1"]).code, 3);
    place.run("ann", &["get", "visit/2"]).ok();
    assert_eq!(relay.stop("INT"), 0);
    // Also while nobody serves.
    grant(&["--all"]).ok();
    let (relay, _) = serve(&place, &address);
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["get", "visit/1"]).ok();
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn a_catalog_is_published_and_one_that_changes_what_is_frozen_is_refused() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "customer/1"]).ok();
    place.run("ann", &["sync"]).ok();
    let publish = |name: &str, catalog: &str| {
        let path = place.file(name, catalog);
        let path = path.to_str().expect("a plain path");
        place.run("relay", &["relay", "publish", path, "--json"])
    };
    let frozen = publish("frozen.toml", &CATALOG.replace("scope = \"outlet\"", ""));
    assert_eq!(frozen.code, 4, "{}", frozen.out);
    assert!(frozen.out.contains("scope") && frozen.out.contains("nothing was published"));
    let next = CATALOG.replace("customer.field.name]", "customer.field.name]\nrequired = true");
    let published = publish("next.toml", &next).json();
    assert_eq!(published["number"], json!(2));
    place.run("ann", &["sync"]).ok();
    assert_eq!(place.run("ann", &["get", "customer/1", "--json"]).json()["state"], "held");
    assert_eq!(publish("next.toml", &next).json()["changed"], json!(false));
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn a_directory_that_was_put_back_opens_an_epoch_and_devices_bring_what_it_lacks() {
    let place = Place::new();
    let (relay, address) = founded(&place);
    place.device("ann", &[]);
    place.run("ann", &["put", "customer/1", "name=before"]).ok();
    place.run("ann", &["sync"]).ok();
    assert_eq!(relay.stop("INT"), 0);
    let copy = |from: &str, to: &str| {
        for entry in std::fs::read_dir(place.path(from)).expect("it reads") {
            let path = entry.expect("it reads").path();
            let name = path.file_name().expect("it has a name");
            std::fs::create_dir_all(place.path(to)).expect("a directory");
            std::fs::copy(&path, place.path(to).join(name)).expect("it copies");
        }
    };
    copy("relay", "backup");
    let (relay, _) = serve(&place, &address);
    place.run("ann", &["put", "customer/2", "name=after"]).ok();
    place.run("ann", &["sync"]).ok();
    assert_eq!(relay.stop("INT"), 0);
    std::fs::remove_dir_all(place.path("relay")).expect("it goes");
    copy("backup", "relay");
    let restored = place.run("relay", &["relay", "restore", "--json"]).json();
    // Opening the directory noticed that it is a copy, and opened epoch 2 by itself.
    assert_eq!((&restored["epoch"], &restored["segments"]), (&json!(3), &json!(1)));
    let (relay, _) = serve(&place, &address);
    place.run("ann", &["sync"]).ok();
    assert_eq!(place.run("relay", &["get", "customer/2", "--json"]).json()["state"], "valid");
    let told = place.run("relay", &["relay", "restore"]).ok();
    assert!(
        told.contains("opened epoch 4") && told.contains("nothing that a device holds is lost")
    );
    assert_eq!(relay.stop("INT"), 0);
}
