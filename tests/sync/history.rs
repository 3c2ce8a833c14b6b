//! A record's past through the library: pages of changes with what each found and left, and the way
//! back, which is an ordinary change.

use std::time::Duration;

use crate::support::*;
use fieldkeep_device::{Device, HistoryError, HistoryPage, Moment, PutError, RevertError};
use fieldkeep_model::{Edit, RecordEdit, RecordKey, Scalar};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1

[type.customer.field]
name = {}

[type.order]
scope = "region"
share = """
Order {{ id }} of {{ ref.customer.name }}: {{ record.boxes }} boxes
"""
[type.order.field]
region = {}
customer = { ref = "customer" }
price = { schema = { type = "integer" } }
note = { kind = "text" }
data = { kind = "json" }
boxes = { kind = "counter" }
lines = { kind = "set", field = { product = {}, quantity = { schema = { type = "integer" } }, count = { kind = "counter" } } }
[[type.order.rule]]
name = "price"
cel = "!has(record.price) || record.price > 0"
reason = "the price has to be above 0"

[type.place]
location = ["lat", "lon"]
[type.place.field]
lat = { schema = { type = "number" } }
lon = { schema = { type = "number" } }
"#;

fn key(text: &str) -> RecordKey {
    text.parse().expect("a key")
}

fn page(device: &Device, record: &str, limit: usize, before: Option<&str>) -> HistoryPage {
    device.history(&key(record), limit, before).expect("it reads")
}

/// How long this thread has worked, by the kernel's account.
fn worked() -> Duration {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps it");
    let nanos = account.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds"))
}

/// The newest change of a record, as what is gone back to.
fn now(device: &Device, record: &str) -> Moment {
    Moment::Change(page(device, record, 1, None).entries[0].hash.to_string())
}

fn price(value: i64) -> RecordEdit {
    vec![Edit::Put("price".into(), Scalar::Int(value))].into()
}

/// What a change did, by field.
fn sides(page: &HistoryPage, at: usize) -> Value {
    let sides = page.entries[at].writes.iter();
    sides.map(|write| (write.field.clone(), json!([write.before, write.after]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_told_with_what_it_found_and_left() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let line = json!([{"id": "1", "product": "tea", "quantity": 3, "count": 1}]);
    put(&ann, "order/o1", json!({"price": 10, "note": "call", "boxes": 2, "lines": line}));
    sync(&ann).await;
    sync(&ben).await;
    put(&ben, "order/o1", json!({"price": 12, "note": "call first", "boxes": 3}));
    put(&ben, "order/o1", json!({"lines": [{"id": "1", "quantity": 5, "count": 4}]}));
    put(&ben, "order/o1", json!({"price": null, "lines": [{"id": "1", "deleted": true}]}));
    ben.delete(&key("order/o1")).expect("it is there");
    sync(&ben).await;
    sync(&ann).await;
    let page = page(&ann, "order/o1", 10, None);
    assert_eq!((page.changes, page.next), (5, None));
    let people: Vec<_> = page.entries.iter().map(|entry| entry.person.as_str()).collect();
    assert_eq!(people, ["ben", "ben", "ben", "ben", "ann"], "the newest first");
    assert_eq!(sides(&page, 0), json!({"~deleted": [null, true]}));
    assert_eq!(sides(&page, 1), json!({"lines[1].~deleted": [null, true], "price": [12, null]}));
    let line = json!({"lines[1].quantity": [3, 5], "lines[1].count": [1, 5]});
    assert_eq!(sides(&page, 2), line);
    let edit = json!({"price": [10, 12], "note": ["call", "call first"], "boxes": [2, 5]});
    assert_eq!(sides(&page, 3), edit);
    assert_eq!(sides(&page, 4)["lines[1].product"], json!([null, "tea"]));
    let boxes = page.entries[3].writes.iter().find(|write| write.field == "boxes");
    let boxes = boxes.expect("it was written");
    assert_eq!((boxes.value.clone(), boxes.added), (Some(json!(3)), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_author_did_not_know_of_is_no_part_of_what_he_found() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "order/o1", json!({"price": 10}));
    sync(&ann).await;
    sync(&ben).await;
    put(&ann, "order/o1", json!({"price": 11}));
    put(&ben, "order/o1", json!({"price": 12}));
    for device in [&ann, &ben, &ann] {
        sync(device).await;
    }
    let page = page(&ann, "order/o1", 2, None);
    assert_eq!(sides(&page, 0), json!({"price": [10, 12]}));
    assert_eq!(sides(&page, 1), json!({"price": [10, 11]}));
    let conflicts = ann.conflicts(&key("order/o1")).expect("it reads");
    assert_eq!(conflicts[0].values.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_without_a_gap_and_leave_other_records_out() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    for n in 0..25 {
        ann.put(&key("order/o1"), &price(n + 1)).expect("it is saved");
        ann.put(&key("order/o2"), &price(n + 1)).expect("it is saved");
    }
    let mut seen = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let page = page(&ann, "order/o1", 10, before.as_deref());
        assert_eq!(page.changes, 25);
        seen.extend(page.entries.iter().map(|entry| entry.writes[0].after.clone()));
        let Some(next) = page.next else { break };
        before = Some(next.to_string()[..16].to_owned());
    }
    let wanted: Vec<_> = (1..=25).rev().map(|n| Some(json!(n))).collect();
    assert_eq!(seen, wanted);
    let unknown = ann.history(&key("order/o1"), 10, Some("zz")).expect_err("no such change");
    assert!(matches!(unknown, HistoryError::NoSuchChange { .. }), "{unknown}");
    let several = ann.history(&key("order/o1"), 10, Some("")).expect_err("any change");
    assert!(matches!(several, HistoryError::SeveralChanges { .. }), "{several}");
    assert_eq!(page(&ann, "order/none", 10, None), HistoryPage::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_of_a_thousand_changes_takes_less_than_fifty_milliseconds() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let order = key("order/o1");
    let edits: Vec<_> = (1..=1_000).map(|n| (order.clone(), price(n))).collect();
    ann.put_all(&edits).expect("they are saved");
    drop(ann);
    // The best of several, in time of this thread's own: what else the machine does is no matter here.
    let (mut cold, mut warm) = (Duration::MAX, Duration::MAX);
    for _ in 0..8 {
        let ann = Device::open(&site.path("ann")).expect("it opens");
        for best in [&mut cold, &mut warm] {
            let began = worked();
            let page = page(&ann, "order/o1", 50, None);
            *best = (worked() - began).min(*best);
            assert_eq!((page.entries.len(), page.changes), (50, 1_000));
            assert_eq!(sides(&page, 0), json!({"price": [999, 1_000]}));
        }
    }
    println!("first page of 1,000 changes: {cold:?} after opening, {warm:?} afterwards");
    assert!(cold < Duration::from_millis(50), "after opening: {cold:?}");
    assert!(warm < Duration::from_millis(50), "afterwards: {warm:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_goes_back_to_what_it_was_by_an_ordinary_change() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let line = |id: &str, quantity: i64| json!({"id": id, "product": "tea", "quantity": quantity, "count": 1});
    let lines = json!([line("1", 3), line("2", 4)]);
    let data = json!({"a": [1]});
    put(
        &ann,
        "order/o1",
        json!({"price": 10, "note": "Two pallets", "data": data, "boxes": 7, "lines": lines}),
    );
    let then = now(&ann, "order/o1");
    let was = fields(&ann, "order/o1");
    put(&ann, "order/o1", json!({"price": 3, "note": "No pallets", "data": {"b": 2}, "boxes": 5}));
    put(
        &ann,
        "order/o1",
        json!({"lines": [line("1", 9), line("3", 1), {"id": "2", "deleted": true}]}),
    );
    put(&ann, "order/o1", json!({"customer": "c1"}));
    let changes = page(&ann, "order/o1", 1, None).changes;
    let wrote = ann.revert(&key("order/o1"), None, &then).expect("it was so");
    assert!(wrote.change.is_some());
    assert_eq!(fields(&ann, "order/o1"), was);
    assert_eq!(
        page(&ann, "order/o1", 1, None).changes,
        changes + 1,
        "one change, and none is gone"
    );
    let again = ann.revert(&key("order/o1"), None, &then).expect("it is so");
    assert!(again.change.is_none(), "nothing is left to be written");
    sync(&ann).await;
    sync(&ben).await;
    assert_eq!(fields(&ben, "order/o1"), was);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_field_goes_back_and_the_others_stay() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let order = key("order/o1");
    let line = |quantity: i64| json!([{"id": "1", "product": "tea", "quantity": quantity}]);
    put(&ann, "order/o1", json!({"price": 10, "boxes": 7, "lines": line(3)}));
    let then = now(&ann, "order/o1");
    put(&ann, "order/o1", json!({"price": 20, "boxes": -4, "lines": line(8)}));
    ann.revert(&order, Some("boxes"), &then).expect("it was there");
    ann.revert(&order, Some("lines[1].quantity"), &then).expect("it was there");
    let shown = fields(&ann, "order/o1");
    assert_eq!(
        (&shown["boxes"], &shown["price"], &shown["lines"]),
        (&json!(7), &json!(20), &line(3))
    );
    put(&ann, "order/o1", json!({"note": "new"}));
    ann.revert(&order, Some("note"), &then).expect("it was without");
    assert!(!fields(&ann, "order/o1").contains_key("note"));
    let unknown = ann.revert(&order, Some("colour"), &then).expect_err("no such field");
    assert!(matches!(unknown, RevertError::Value(_)), "{unknown}");
    put(&ann, "order/o1", json!({"lines": [{"id": "1", "deleted": true}]}));
    let lost = ann.revert(&order, Some("lines[1].quantity"), &then).expect_err("it is removed");
    assert!(matches!(lost, RevertError::NoEntry { .. }), "{lost}");
    ann.revert(&order, Some("lines"), &then).expect("all of them");
    assert_eq!(fields(&ann, "order/o1")["lines"], line(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_settles_concurrent_values_and_brings_deletions_and_their_absence_back() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let order = key("order/o1");
    put(&ann, "order/o1", json!({"price": 10}));
    let then = now(&ann, "order/o1");
    sync(&ann).await;
    sync(&ben).await;
    put(&ann, "order/o1", json!({"price": 11}));
    put(&ben, "order/o1", json!({"price": 12}));
    for device in [&ann, &ben, &ann] {
        sync(device).await;
    }
    assert_eq!(ann.conflicts(&order).expect("it reads").len(), 1);
    let shown = fields(&ann, "order/o1")["price"].clone();
    // Back to the very value that is shown: the others go all the same.
    let page = page(&ann, "order/o1", 3, None);
    let same = page.entries.iter().find(|entry| entry.writes[0].after.as_ref() == Some(&shown));
    let same = Moment::Change(same.expect("somebody wrote it").hash.to_string());
    ann.revert(&order, None, &same).expect("it was so");
    assert!(ann.conflicts(&order).expect("it reads").is_empty());
    assert_eq!(fields(&ann, "order/o1")["price"], shown);
    ann.delete(&order).expect("it is there");
    let deleted = now(&ann, "order/o1");
    let field = ann.revert(&order, Some("price"), &then).expect_err("it is deleted");
    assert!(matches!(field, RevertError::Put(PutError::Deleted(_))), "{field}");
    ann.revert(&order, None, &then).expect("it was there");
    let view = get(&ann, "order/o1").expect("it is here");
    assert_eq!((view.deleted, &view.fields["price"]), (false, &json!(10)));
    ann.revert(&order, None, &deleted).expect("it was deleted");
    assert!(get(&ann, "order/o1").expect("it is here").deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_gone_back_to_is_refused_and_changes_nothing() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "order/o1", json!({"region": "north", "price": 10}));
    let before = now(&ann, "order/o1");
    put(&ann, "order/o1", json!({"price": 11}));
    let length = || length(&logs(&ann), "order=north");
    let had = length();
    let long_ago = Moment::Time(0);
    let absent = ann.revert(&key("order/o1"), None, &long_ago).expect_err("it was not there");
    assert!(matches!(absent, RevertError::NotThere(_)), "{absent}");
    let unknown = Moment::Change("ffffffffffffffffffff".into());
    let unknown = ann.revert(&key("order/o1"), None, &unknown).expect_err("no such change");
    assert!(matches!(unknown, RevertError::NotThere(_)), "{unknown}");
    let several = ann.revert(&key("order/o1"), None, &Moment::Change(String::new()));
    assert!(matches!(several, Err(RevertError::History(HistoryError::SeveralChanges { .. }))));
    let none = ann.revert(&key("order/o9"), None, &before).expect_err("no such record");
    assert!(matches!(none, RevertError::Absent(_)), "{none}");
    assert_eq!(length(), had);
    // The scope says where it is kept, and stays.
    ann.revert(&key("order/o1"), None, &before).expect("it was so");
    assert_eq!(fields(&ann, "order/o1")["region"], json!("north"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_as_it_was_at_any_time_and_after_any_change() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    for n in 1..=5 {
        ann.put(&key("order/o1"), &price(n)).expect("it is saved");
    }
    let page = page(&ann, "order/o1", 10, None);
    for (entry, n) in page.entries.iter().rev().zip(1..) {
        let at =
            |moment| ann.at(&key("order/o1"), &moment).expect("it reads").expect("it was there");
        assert_eq!(at(Moment::Change(entry.hash.to_string()))["price"], json!(n));
        assert!(at(Moment::Time(entry.time))["price"].as_i64() >= Some(n));
    }
    assert_eq!(ann.at(&key("order/o1"), &Moment::Time(0)).expect("it reads"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_text_says_what_is_to_be_known_of_the_record() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let text = |device: &Device, record: &str| device.share(&key(record)).expect("a text");
    put(&ann, "customer/c1", json!({"name": "Harbour Kiosk"}));
    put(&ann, "order/o1", json!({"customer": "c1", "boxes": 3, "price": 5}));
    assert_eq!(
        text(&ann, "order/o1"),
        "Order o1 of Harbour Kiosk: 3 boxes\n\n[unsaved: it is not on the relay yet]"
    );
    sync(&ann).await;
    sync(&ben).await;
    assert_eq!(text(&ben, "order/o1"), "Order o1 of Harbour Kiosk: 3 boxes");
    put(&ann, "order/o1", json!({"price": -1}));
    put(&ben, "order/o1", json!({"price": -2}));
    for device in [&ann, &ben, &ann] {
        sync(device).await;
    }
    assert_eq!(
        text(&ann, "order/o1"),
        "Order o1 of Harbour Kiosk: 3 boxes\n\n[held: the price has to be above 0]\n\
         [written by several at the same time: price]"
    );
    put(&ann, "order/o2", json!({"customer": "c9", "boxes": 1}));
    sync(&ann).await;
    assert!(text(&ann, "order/o2").starts_with("Order o2 of : 1 boxes\n\n[waiting: "));
    put(&ann, "place/p1", json!({"lat": 59.4372, "lon": 24.7454}));
    sync(&ann).await;
    ann.delete(&key("place/p1")).expect("it is there");
    sync(&ann).await;
    let place = text(&ann, "place/p1");
    assert!(
        place.contains("\nhttps://www.openstreetmap.org/?mlat=59.4372&mlon=24.7454\n"),
        "{place}"
    );
    assert!(place.ends_with("\n\n[deleted]"), "{place}");
    assert!(ann.share(&key("order/none")).is_err());
    site.stop().await;
}
