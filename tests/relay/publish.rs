//! A catalog that is published while everybody works: devices have it at once, and what it changes
//! is judged again without holding anybody up.

use crate::support::{Connected, Site, get, put, reaches, state, sync};
use fieldkeep_relay::{Judges, Matter};
use fieldkeep_replica::ReplicaError;
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.customer.field.number]
[type.customer.field.discount]
schema = { type = "integer" }
[type.order]
buckets = 4
[type.order.field.customer]
"#;

const RULE: &str = r#"
[[type.customer.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
"#;

fn with_rule() -> String {
    format!("{CATALOG}{RULE}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_rule_reaches_connected_devices_and_judges_what_was_there() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let ben = site.device("ben").await;
    for n in 0..600 {
        put(&ann, &format!("customer/c{n}"), json!({"name": "Kiosk", "discount": n % 40}));
    }
    sync(&ann).await;
    let connected = Connected::new(&ben);
    reaches(&ben, "customer/c35", "valid").await;
    assert_eq!(site.publish(&with_rule()).await.expect("it is sound"), 2);
    reaches(&ben, "customer/c35", "held").await;
    reaches(&ben, "customer/c599", "valid").await;
    assert_eq!(ben.catalog().map(|catalog| catalog.source().to_owned()), Some(with_rule()));
    let reasons = get(&ben, "customer/c35").expect("it is there").reasons;
    assert_eq!(reasons, ["the discount is above 30 percent"]);
    sync(&ann).await;
    let held = (0..600).filter(|n| state(&ann, &format!("customer/c{n}")) == "held").count();
    assert_eq!(held, 600 / 40 * 9, "of each forty, those from 31 to 39");

    put(&ben, "customer/new", json!({"discount": 31}));
    reaches(&ben, "customer/new", "held").await;
    assert_eq!(site.publish(CATALOG).await.expect("it is sound"), 3);
    reaches(&ben, "customer/c35", "valid").await;
    reaches(&ben, "customer/new", "valid").await;
    drop(connected);
    site.converges(&[&ann, &ben], &["customer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_becomes_unique_or_a_reference_is_judged_as_if_it_had_always_been() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"number": "7"}));
    put(&ann, "customer/c2", json!({"number": "7"}));
    put(&ann, "customer/c3", json!({"number": "8"}));
    put(&ann, "order/o1", json!({"customer": "c1"}));
    put(&ann, "order/o2", json!({"customer": "nobody"}));
    sync(&ann).await;
    let next = CATALOG
        .replace("[type.customer.field.number]", "[type.customer.field.number]\nunique = true")
        .replace("[type.order.field.customer]", "[type.order.field.customer]\nref = \"customer\"");
    site.publish(&next).await.expect("it is sound");
    sync(&ann).await;
    let states = ["customer/c1", "customer/c2", "customer/c3", "order/o1", "order/o2"]
        .map(|key| state(&ann, key));
    assert_eq!(states, ["held", "held", "valid", "valid", "waiting"]);
    put(&ann, "customer/c2", json!({"number": "9"}));
    put(&ann, "customer/nobody", json!({"number": "10"}));
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c1"), "valid", "the indexes are of the new catalog");
    assert_eq!(state(&ann, "order/o2"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_keeps_its_scopes_buckets_and_kinds() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    for (name, next) in [
        ("buckets", CATALOG.replace("buckets = 4", "buckets = 8")),
        ("a scope", CATALOG.replace("buckets = 4", "buckets = 4\nscope = \"customer\"")),
        (
            "a kind",
            CATALOG.replace(
                "[type.customer.field.number]",
                "[type.customer.field.number]\nkind = \"counter\"",
            ),
        ),
        ("a type", CATALOG[..CATALOG.find("[type.order]").expect("it has one")].to_owned()),
    ] {
        let refused = site.publish(&next).await;
        let Err(ReplicaError::Frozen(errors)) = refused else { panic!("{name}: {refused:?}") };
        assert!(errors.iter().all(|error| !error.remedy.is_empty()), "{name}");
    }
    let garbled = site.publish("catalog = 1\n[type.order]\nbucket = 4").await;
    assert!(matches!(garbled, Err(ReplicaError::Catalog(_))), "{garbled:?}");
    assert_eq!(site.publish(CATALOG).await.expect("it is the same"), 1);
    put(&ann, "order/o1", json!({"customer": "c1"}));
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_to_be_judged_again_is_judged_after_a_restart() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    for n in 0..2_000 {
        put(&ann, &format!("customer/c{n}"), json!({"discount": 31}));
    }
    sync(&ann).await;
    site.publish(&with_rule()).await.expect("it is sound");
    site.stop().await;
    site.start_again().await;
    sync(&ann).await;
    let held = ann
        .counts(&fieldkeep_model::TypeName::new("customer").expect("a name"))
        .expect("it reads")
        .held;
    assert_eq!(held, 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_in_the_catalog_judges_on_the_device_as_it_does_on_the_relay() {
    let catalog = include_str!("../../examples/modules.toml");
    let site = Site::founded(catalog);
    let ann = site.device("ann").await;
    put(&ann, "product/p1", json!({"name": "Pencil", "barcode": "4006381333931"}));
    put(&ann, "product/p2", json!({"name": "Pencil", "barcode": "4006381333932"}));
    put(&ann, "product/p3", json!({"name": "Loose leaf"}));
    let states = |device| ["product/p1", "product/p2", "product/p3"].map(|key| state(device, key));
    assert_eq!(states(&ann), ["likely_valid", "likely_held", "likely_valid"]);
    sync(&ann).await;
    assert_eq!(states(&ann), ["valid", "held", "valid"]);
    assert_eq!(
        get(&ann, "product/p2").expect("it is there").reasons,
        ["the barcode is no sound EAN-13"]
    );
    put(&ann, "product/p2", json!({"barcode": "4006381333931"}));
    sync(&ann).await;
    assert_eq!(states(&ann), ["valid", "valid", "valid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_in_rust_judges_on_the_relay_and_another_version_judges_again() {
    let most = |most: i64| {
        move |matter: &Matter| Ok(matter.record["discount"].as_i64().is_none_or(|is| is <= most))
    };
    let rule = |version: u32| {
        format!(
            "{CATALOG}[[type.customer.rule]]\nname = \"most\"\njudge = \"most\"\nversion = {version}\n\
             reads = [\"discount\"]\nreason = \"too much\"\n"
        )
    };
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let unknown = site.publish(&rule(1)).await.expect_err("nobody brought it");
    assert!(unknown.to_string().contains("this relay has no judge `most`"), "{unknown}");

    site.stop().await;
    site.judges = Judges::default().with("most", most(30));
    site.start_again().await;
    site.publish(&rule(1)).await.expect("the relay has it");
    sync(&ann).await;
    put(&ann, "customer/c1", json!({"discount": 20}));
    put(&ann, "customer/c2", json!({"discount": 40}));
    let states = |device| ["customer/c1", "customer/c2"].map(|key| state(device, key));
    assert_eq!(states(&ann), ["needs_relay", "needs_relay"]);
    sync(&ann).await;
    assert_eq!(states(&ann), ["valid", "held"]);
    assert_eq!(get(&ann, "customer/c2").expect("it is there").reasons, ["too much"]);

    site.stop().await;
    site.judges = Judges::default().with("most", most(10));
    site.start_again().await;
    site.publish(&rule(2)).await.expect("the relay has it");
    sync(&ann).await;
    assert_eq!(states(&ann), ["held", "held"]);
}
