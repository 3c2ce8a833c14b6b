//! The main job over the real wire: captured on one device, judged by the relay, read on another.

use crate::support::{Connected, Site, get, put, reaches, state, sync};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
required = true
[type.order]
[type.order.field.customer]
ref = "customer"
[type.order.field.discount]
schema = { type = "integer" }
[type.order.field.price]
schema = { type = "integer" }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || !has(record.price) || record.discount * 10 <= record.price * 3"
reason = "the discount is above 30 percent"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn two_edits_that_are_wrong_together_are_held_and_released_by_a_repair() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ann, "order/o1", json!({"customer": "c1", "price": 100, "discount": 10}));
    assert_eq!(state(&ann, "order/o1"), "likely_valid");
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "valid");
    sync(&ben).await;
    assert_eq!(state(&ben, "order/o1"), "valid");

    put(&ann, "order/o1", json!({"discount": 30}));
    put(&ben, "order/o1", json!({"price": 50}));
    sync(&ann).await;
    sync(&ben).await;
    sync(&ann).await;
    for device in [&ann, &ben] {
        assert_eq!(state(device, "order/o1"), "held");
        let record = get(device, "order/o1").expect("it is there");
        assert_eq!(record.reasons, ["the discount is above 30 percent"]);
        let people: Vec<_> = record.culprits.iter().map(|c| c.person.as_str()).collect();
        assert_eq!(people, ["ann", "ben"]);
        let valid = record.last_valid.expect("it was valid once");
        assert_eq!((&valid["price"], &valid["discount"]), (&json!(100), &json!(30)));
    }

    put(&ben, "order/o1", json!({"discount": 15}));
    sync(&ben).await;
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "valid");
    assert_eq!(state(&ben, "order/o1"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_waits_for_the_one_that_it_refers_to() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "order/o1", json!({"customer": "c1", "price": 100}));
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "waiting");
    put(&ben, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ben).await;
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_a_connected_device_by_itself() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let _connected = Connected::new(&ben);
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    reaches(&ben, "customer/c1", "valid").await;
}
