//! What needs a connection: actions, questions, and edits of what is confirmed. They happen once or not
//! at all, both sides say the same of it, and without a connection nothing is changed.

use std::time::Duration;

use crate::support::wire::Raw;
use crate::support::{self, PATIENCE, Site, put, soon, try_put};
use fieldkeep_device::{AttachError, Choice, Device, Event, Moment, OnlineError, PutError};
use fieldkeep_model::intent::{CONTEXT, INTENT};
use fieldkeep_model::{
    BlobHash, CallOutcome, Edit, Grant, Intent, RecordEdit, RecordHash, RecordKey, Refusal, Scalar,
    Signed, TypeName, Wish,
};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::frame::{self, Frame, Said};
use serde_json::{Map, Value, json};

const CATALOG: &str = r#"
catalog = 1

[type.lead.field]
name = { required = true }
status = {}
customer = { ref = "customer" }
[type.customer.field]
name = { required = true, unique = true, schema = { type = "string", maxLength = 12 } }

[type.order]
online_only = "before.status == 'confirmed'"
[type.order.field]
status = {}
seller = {}
total = { schema = { type = "integer" } }
note = {}
stock = { kind = "counter" }
photos = { kind = "attachment", media = ["text/plain"], max_count = 2 }
[[type.order.rule]]
name = "positive"
cel = "!has(record.total) || record.total > 0"
reason = "an order needs a total above 0"

[type.expense]
scope = "person"
[type.expense.field]
person = {}
cents = { required = true, schema = { type = "integer" } }
filed_at = { schema = { type = "integer" } }

[action.convert_lead]
description = "Make a customer of a lead"
who = "everyone"
input.lead = { required = true, ref = "lead" }
record.lead = "lead/{input.lead}"
[[action.convert_lead.require]]
cel = "!has(records.lead.status) || records.lead.status != 'converted'"
reason = "this lead is a customer already"
[[action.convert_lead.effect]]
type = "lead"
id = "input.lead"
fields = { status = "'converted'", customer = "input.lead" }
[[action.convert_lead.effect]]
type = "customer"
id = "input.lead"
fields = { name = "records.lead.name" }

[action.file_expense]
who = "everyone"
input.cents = { required = true, schema = { type = "integer", minimum = 1, maximum = 100000 } }
[[action.file_expense.effect]]
type = "expense"
fields = { person = "caller.name", cents = "input.cents", filed_at = "call.time" }

[action.close_month]
who = ["boss"]
[[action.close_month.effect]]
type = "expense"
fields = { person = "caller.name", cents = "0" }

[action.close_north]
who = ["customer=north"]
[[action.close_north.effect]]
type = "expense"
fields = { person = "caller.name", cents = "0" }

[action.forget_lead]
who = "everyone"
input.lead = { required = true }
record.lead = "lead/{input.lead}"
[[action.forget_lead.effect]]
type = "lead"
id = "input.lead"
delete = true

[query.leaderboard]
who = "everyone"
organisation_wide = true
param.least = { schema = { type = "integer" } }
sql = '''
SELECT seller, sum(total) AS total, sum(held) AS held FROM "order"
WHERE total >= coalesce(:least, 0) GROUP BY seller ORDER BY 2 DESC'''

[query.my_expenses]
who = "everyone"
sql = "SELECT person, cents FROM expense ORDER BY cents"

[query.payroll]
who = ["boss"]
sql = "SELECT count(*) AS n FROM expense"

[query.endless]
who = "everyone"
sql = '''
WITH a AS (SELECT id FROM "order"), b AS (SELECT a.id FROM a, a x, a y, a z, a u, a v)
SELECT count(*) FROM b, b c'''
"#;

fn key(text: &str) -> RecordKey {
    text.parse().expect("a record's name")
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

fn note(text: &str) -> RecordEdit {
    vec![Edit::Put("note".into(), Scalar::Str(text.into()))].into()
}

async fn synced(device: &Device) {
    soon("a sync", device.sync(PATIENCE)).await.expect("the relay is there");
}

async fn call(device: &Device, action: &str, input: Value) -> Result<Vec<String>, OnlineError> {
    let input = object(input);
    let called = soon("a call", device.call(action, &input, PATIENCE)).await?;
    Ok(called.records.iter().map(ToString::to_string).collect())
}

async fn edit(
    device: &Device,
    record: &str,
    edit: RecordEdit,
) -> Result<fieldkeep_device::RecordView, OnlineError> {
    soon("an edit", device.put_online(&key(record), &edit, PATIENCE)).await
}

async fn ask(device: &Device, query: &str, params: Value) -> Result<Value, OnlineError> {
    let params = object(params);
    let answer = soon("an answer", device.ask(query, &params, PATIENCE)).await?;
    Ok(Value::from_iter(answer.rows.into_iter().map(Value::from)))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, OnlineError>) -> (Refusal, String) {
    match result {
        Err(OnlineError::Refused { refusal, reason }) => (refusal, reason),
        other => panic!("{other:?}"),
    }
}

fn field(device: &Device, record: &str, field: &str) -> Value {
    let view = device.as_merged(&key(record)).expect("it reads");
    view.map_or(Value::Null, |view| view.fields.get(field).cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_writes_all_its_records_and_they_are_here_when_the_call_returns() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "lead/l1", json!({ "name": "Pier" }));
    let wrote = call(&ann, "convert_lead", json!({ "lead": "l1" })).await.expect("it is run");
    assert_eq!(wrote, ["lead/l1", "customer/l1"]);
    assert_eq!(field(&ann, "lead/l1", "status"), "converted");
    assert_eq!(field(&ann, "customer/l1", "name"), "Pier");
    synced(&ann).await;
    synced(&ben).await;
    assert_eq!(field(&ben, "customer/l1", "name"), "Pier");
    // The relay wrote it, and says for whom.
    let history = ben.history(&key("customer/l1"), 1, None).expect("it reads");
    let (writer, person) = (history.entries[0].device, history.entries[0].person.clone());
    assert!(site.members().await.numbered(writer).all(|member| member.relay));
    assert_eq!(person, "ann");
    call(&ann, "forget_lead", json!({ "lead": "l1" })).await.expect("it is run");
    assert!(ann.as_merged(&key("lead/l1")).expect("it reads").expect("it was here").deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_does_everything_or_nothing() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "lead/l1", json!({ "name": "a name that is much too long" }));
    put(&ann, "customer/c1", json!({ "name": "Kiosk" }));
    put(&ann, "lead/l2", json!({ "name": "Kiosk" }));
    for (lead, why) in [("l1", "does not fit"), ("l2", "so is that of customer/c1")] {
        let (refusal, reason) = refused(call(&ann, "convert_lead", json!({ "lead": lead })).await);
        assert_eq!(refusal, Refusal::Unmet, "{reason}");
        assert!(reason.contains(why), "{reason}");
        assert_eq!(field(&ann, &format!("lead/{lead}"), "status"), Value::Null);
        let lead = site.record(&format!("lead/{lead}")).await.expect("it is there");
        assert!(!lead.fields.contains_key("status"));
    }
    assert!(site.record("customer/l1").await.is_none());
    // Nothing of it stays in memory either: the relay goes on, and proves to be equal.
    put(&ann, "lead/l3", json!({ "name": "Pier" }));
    call(&ann, "convert_lead", json!({ "lead": "l3" })).await.expect("it is run");
    synced(&ann).await;
    let (refusal, reason) = refused(call(&ann, "convert_lead", json!({ "lead": "l3" })).await);
    assert_eq!((refusal, &*reason), (Refusal::Unmet, "this lead is a customer already"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_and_what_does_not_fit_is_refused_and_changes_nothing() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let boss = site.device("boss").await;
    let (denied, reason) = refused(call(&ann, "close_month", json!({})).await);
    assert_eq!((denied, &*reason), (Refusal::Denied, "ann may not call `close_month`"));
    assert_eq!(call(&boss, "close_month", json!({})).await.expect("he may").len(), 1);
    for (name, scope, may) in [("cleo", "north", true), ("dora", "south", false)] {
        let ty = Some(TypeName::new("customer").expect("a name"));
        let grants = vec![Grant::ALL, Grant { ty, scope: Some(scope.into()) }];
        let ticket = site.invited(name, grants, i64::MAX).await;
        let member = site.join(&ticket, name).await;
        assert_eq!(call(&member, "close_north", json!({})).await.is_ok(), may, "{name}");
    }
    // Here already, without asking anybody.
    for input in [json!({}), json!({ "cents": 0 }), json!({ "cents": 1, "more": 2 })] {
        let misfit = call(&ann, "file_expense", input).await;
        assert!(matches!(misfit, Err(OnlineError::Misfit(_))), "{misfit:?}");
    }
    let unknown = call(&ann, "steal", json!({})).await;
    assert!(matches!(unknown, Err(OnlineError::Unknown { .. })), "{unknown:?}");
    let absent = refused(call(&ann, "convert_lead", json!({ "lead": "none" })).await);
    assert_eq!(absent, (Refusal::Absent, "there is no record lead/none".to_owned()));
    assert_eq!(
        site.ask(|engine| engine.replica().views().counts_by_type()).await.expect("it reads")
            [&TypeName::new("expense").expect("a name")]
            .local,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connection_it_fails_at_once_and_changes_nothing() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "order/o1", json!({ "status": "confirmed", "total": 1 }));
    synced(&ann).await;
    site.stop().await;
    for error in [
        call(&ann, "file_expense", json!({ "cents": 5 })).await.map(drop),
        ask(&ann, "leaderboard", json!({})).await.map(drop),
        edit(&ann, "order/o1", note("x")).await.map(drop),
    ] {
        let Err(OnlineError::NeedsConnection(_)) = error else { panic!("{error:?}") };
        assert!(error.expect_err("just seen").to_string().starts_with("this needs a connection"));
    }
    let refused = try_put(&ann, "order/o1", &json!({ "note": "x" }));
    assert!(matches!(refused, Err(PutError::NeedsConnection(_))));
    assert_eq!(field(&ann, "order/o1", "note"), Value::Null);
    assert!(ann.calls().expect("it reads").is_empty());
    site.start_again().await;
    synced(&ann).await;
    assert!(site.record("expense/none").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_is_edited_by_way_of_the_relay_alone() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "order/o1", json!({ "status": "open", "total": 5 }));
    put(&ann, "order/o1", json!({ "status": "confirmed" }));
    let order = edit(&ann, "order/o1", note("two boxes")).await.expect("the relay writes it");
    assert_eq!((&order.fields["note"], order.state.word()), (&json!("two boxes"), "valid"));
    assert!(!order.unsaved);
    let wrong = vec![Edit::Put("total".into(), Scalar::Int(0))].into();
    let wrong = soon("an edit", ann.put_online(&key("order/o1"), &wrong, PATIENCE)).await;
    assert_eq!(refused(wrong), (Refusal::Unmet, "an order needs a total above 0".to_owned()));
    assert_eq!(field(&ann, "order/o1", "total"), 5);
    // Out of that state it is anybody's again, also offline.
    let reopened = vec![Edit::Put("status".into(), Scalar::Str("open".into()))].into();
    edit(&ann, "order/o1", reopened).await.expect("written");
    put(&ann, "order/o1", json!({ "note": "by hand" }));
    synced(&ann).await;
    synced(&ben).await;
    assert_eq!(field(&ben, "order/o1", "note"), "by hand");
}

/// A file is attached, a state brought back and a value chosen, all of it by way of the relay.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_edits_what_is_confirmed_goes_by_way_of_the_relay() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "order/o1", json!({ "status": "open", "note": "first", "stock": 2 }));
    synced(&ann).await;
    synced(&ben).await;
    let order = key("order/o1");
    let first = ann.history(&order, 1, None).expect("it reads").entries[0].hash;
    let first = Moment::Change(first.to_string());
    // Both write the note, and neither knows of the other.
    put(&ann, "order/o1", json!({ "note": "ann's" }));
    put(&ben, "order/o1", json!({ "note": "ben's", "stock": 3 }));
    put(&ann, "order/o1", json!({ "status": "confirmed" }));
    synced(&ann).await;
    synced(&ben).await;

    // Without a connection it is refused at once, and nothing is changed.
    site.stop().await;
    let slip = support::attached::file(&site, "slip.txt", b"signed");
    let attached = ann.attach(&order, "photos", &slip, None, None);
    assert!(matches!(attached, Err(AttachError::Put(PutError::NeedsConnection(_)))));
    let attached = ann.attach_online(&order, "photos", &slip, None, None, PATIENCE).await;
    let unreachable = |error: &OnlineError| matches!(error, OnlineError::NeedsConnection(_));
    assert!(matches!(&attached, Err(AttachError::Online(error)) if unreachable(error)));
    let hash = BlobHash(*blake3::hash(b"signed").as_bytes());
    assert_eq!(support::attached::stored(&site, "ann", &hash), None, "it is not kept");
    assert!(ann.files(None).expect("it reads").is_empty());
    let back = || Ok::<_, OnlineError>(ann.reverting(&order, None, &first).expect("it was so"));
    let reverted = ann.put_online_with(&order, back, PATIENCE).await;
    assert!(matches!(&reverted, Err(error) if unreachable(error)), "{reverted:?}");
    assert_eq!(field(&ann, "order/o1", "note"), "ann's");

    site.start_again().await;
    // Ann has not seen what Ben wrote: the choice is made again once it has come.
    let chosen = Choice::Of("ben".to_owned());
    let choose = || {
        let edit = ann.resolving(&order, "note", &chosen);
        Ok::<_, OnlineError>(edit.unwrap_or_else(|_| note("not here yet")))
    };
    let chose = soon("a choice", ann.put_online_with(&order, choose, PATIENCE)).await;
    assert!(chose.expect("the relay writes it"));
    assert_eq!(field(&ann, "order/o1", "note"), "ben's");
    assert!(ann.conflicts(&order).expect("it reads").is_empty());

    let attached =
        soon("a file", ann.attach_online(&order, "photos", &slip, None, None, PATIENCE)).await;
    assert_eq!(attached.expect("the relay names it").hash, hash);
    synced(&ann).await;
    assert_eq!(support::attached::stored(&site, "relay", &hash).as_deref(), Some(&b"signed"[..]));
    synced(&ben).await;
    ben.fetch(&order, &hash, PATIENCE).await.expect("its readers have it");

    let stock = || {
        let edit = ben.reverting(&order, Some("stock"), &first);
        Ok::<_, OnlineError>(edit.expect("it was so"))
    };
    assert!(ben.put_online_with(&order, stock, PATIENCE).await.expect("the relay writes it"));
    assert_eq!(field(&ben, "order/o1", "stock"), 2);
    synced(&ann).await;
    let back =
        || Ok::<_, OnlineError>(ann.reverting(&order, Some("note"), &first).expect("it was so"));
    assert!(ann.put_online_with(&order, back, PATIENCE).await.expect("the relay writes it"));
    assert_eq!(field(&ann, "order/o1", "note"), "first");
    assert_eq!(site.record("order/o1").await.expect("it is there").state.word(), "valid");
}

/// Where nobody knows whether the relay has named a file, it stays, and is sent if it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_relay_names_behind_a_cut_is_sent_all_the_same() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "order/o1", json!({ "status": "confirmed" }));
    synced(&ann).await;
    let slip = support::attached::file(&site, "slip.txt", b"signed");
    let hash = BlobHash(*blake3::hash(b"signed").as_bytes());
    let order = key("order/o1");
    let attaching = tokio::spawn({
        let (ann, order) = (ann.clone(), order.clone());
        async move { ann.attach_online(&order, "photos", &slip, None, None, PATIENCE).await }
    });
    // Whoever waits for it is gone as soon as the relay was asked.
    soon("it is asked", async {
        while ann.calls().expect("it reads").is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    attaching.abort();
    let _ = attaching.await;
    synced(&ann).await;
    synced(&ann).await;
    assert_eq!(ann.status().expect("it reads").files, 0, "nothing waits");
    let photos = field(&ann, "order/o1", "photos");
    let named = photos.as_array().is_some_and(|photos| !photos.is_empty());
    let there = support::attached::stored(&site, "relay", &hash).is_some();
    assert_eq!(named, there, "it is there exactly if it is named");
    assert!(ann.files(None).expect("it reads").is_empty(), "nothing waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_through_whoever_keeps_the_device_in_touch() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let keeping = tokio::spawn({
        let ann = ann.clone();
        async move { ann.keep_synced().await }
    });
    let mut events = ann.watch();
    soon("a connection", async {
        while !ann.is_online() {
            let _: Event = events.recv().await.expect("the device is there");
        }
    })
    .await;
    put(&ann, "order/o1", json!({ "status": "confirmed", "total": 5, "seller": "ann" }));
    edit(&ann, "order/o1", note("x")).await.expect("written");
    let wrote = call(&ann, "file_expense", json!({ "cents": 7 })).await.expect("it is run");
    assert_eq!(field(&ann, &wrote[0], "cents"), 7);
    assert_eq!(
        ask(&ann, "leaderboard", json!({})).await.expect("an answer"),
        json!([["ann", 5, 0]])
    );
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_sees_last_valid_values_and_what_was_granted() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let expense = |scope: &str| Grant {
        ty: Some(TypeName::new("expense").expect("a name")),
        scope: Some(scope.into()),
    };
    let ticket = site.invited("ben", vec![Grant::ALL, expense("ben")], i64::MAX).await;
    let ben = site.join(&ticket, "ben").await;
    put(&ann, "order/o1", json!({ "seller": "ann", "total": 5 }));
    put(&ann, "order/o2", json!({ "seller": "ben", "total": 9 }));
    put(&ann, "expense/e1", json!({ "person": "ann", "cents": 3 }));
    put(&ben, "expense/e2", json!({ "person": "ben", "cents": 4 }));
    synced(&ann).await;
    synced(&ben).await;
    put(&ann, "order/o1", json!({ "total": -5 }));
    synced(&ann).await;
    let all = ask(&ben, "leaderboard", json!({})).await.expect("an answer");
    assert_eq!(all, json!([["ben", 9, 0], ["ann", 5, 1]]));
    let much = ask(&ben, "leaderboard", json!({ "least": 6 })).await.expect("an answer");
    assert_eq!(much, json!([["ben", 9, 0]]));
    assert_eq!(
        ask(&ann, "my_expenses", json!({})).await.expect("an answer"),
        json!([["ann", 3], ["ben", 4]])
    );
    assert_eq!(ask(&ben, "my_expenses", json!({})).await.expect("an answer"), json!([["ben", 4]]));
    assert_eq!(refused(ask(&ben, "payroll", json!({})).await).0, Refusal::Denied);
    let misfit = ask(&ben, "leaderboard", json!({ "least": "x" })).await;
    assert!(matches!(misfit, Err(OnlineError::Misfit(_))), "{misfit:?}");
    for n in 0..60 {
        put(&ann, &format!("order/x{n}"), json!({ "total": 1 }));
    }
    synced(&ann).await;
    assert_eq!(refused(ask(&ann, "endless", json!({})).await).0, Refusal::Bounds);
    synced(&ann).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_does_more_than_read_is_never_published() {
    let site = Site::founded(CATALOG);
    for sql in [
        "DELETE FROM main.record",
        "SELECT value FROM main.setting",
        "SELECT nothing FROM \"order\"",
        "ATTACH 'x' AS y",
        "SELECT :who FROM lead",
    ] {
        let next = format!("{CATALOG}\n[query.bad]\nwho = \"everyone\"\nsql = '''{sql}'''\n");
        let error = site.publish(&next).await.expect_err(sql).to_string();
        assert!(error.contains("query.bad.sql"), "{error}");
    }
}

/// A change that was written upon the confirmed state, by a device that knew it and did not ask, is
/// held; one that did not know of it is not.
#[tokio::test(flavor = "multi_thread")]
async fn an_offline_edit_is_held_only_if_it_knew_the_state_that_needs_a_connection() {
    let before = CATALOG.replace("online_only = \"before.status == 'confirmed'\"\n", "");
    let site = Site::founded(&before);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    for order in ["order/o1", "order/o2"] {
        put(&ann, order, json!({ "status": "open", "total": 5 }));
    }
    put(&ann, "order/o1", json!({ "status": "confirmed" }));
    synced(&ann).await;
    synced(&ben).await;
    // Neither has heard of the rule: ben edits what he knows to be confirmed, and what he does not.
    site.publish(CATALOG).await.expect("it is published");
    put(&ben, "order/o1", json!({ "note": "offline" }));
    put(&ben, "order/o2", json!({ "note": "offline" }));
    put(&ann, "order/o2", json!({ "status": "confirmed" }));
    synced(&ann).await;
    synced(&ben).await;
    let order = site.record("order/o1").await.expect("it is there");
    assert_eq!(order.state.word(), "held");
    assert!(order.reasons[0].contains("without a connection"), "{:?}", order.reasons);
    assert_eq!(order.culprits[0].person, "ben");
    assert_eq!(order.last_valid.expect("it passed before").get("note"), None);
    let order = site.record("order/o2").await.expect("it is there");
    assert_eq!((order.state.word(), &order.fields["note"]), ("valid", &json!("offline")));
    // Writing it by way of the relay is what releases it.
    let edited = soon("an edit", ben.put_online(&key("order/o1"), &note("agreed"), PATIENCE)).await;
    assert_eq!(edited.expect("it is written").state.word(), "valid");
}

fn intent(raw: &Raw, number: u64, wish: Wish) -> Signed {
    let Raw { org, number: device, epoch, .. } = *raw;
    let intent = Intent { org, device, number, wish, nonce: [0; 16], epoch };
    Signed::new(CONTEXT, &intent, &raw.seed.signing())
}

fn expense(cents: u64) -> Wish {
    Wish::Action { name: "file_expense".into(), input: json!({ "cents": cents }).to_string() }
}

async fn outcome(wire: &mut support::wire::Wire, call: Signed, withdrawn: bool) -> CallOutcome {
    wire.say(&Frame::Call(frame::Call { intent: call, withdrawn })).await;
    wire.until(|frame| {
        let Frame::Outcome(outcome) = frame else { return None };
        Some(outcome.outcome.clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_runs_once_whatever_its_caller_sends() {
    let site = Site::founded(CATALOG);
    let mallory = Raw::joined(&site.ticket("mallory").await, 7).await;
    let mut wire = mallory.following().await;
    let first = intent(&mallory, 5, expense(10));
    let done = outcome(&mut wire, first.clone(), false).await;
    let CallOutcome::Done { effects, .. } = &done else { panic!("{done:?}") };
    let record = effects[0].record.to_string();
    // Told again, it is the same outcome; withdrawn afterwards too.
    for withdrawn in [false, true] {
        let again = outcome(&mut wire, first.clone(), withdrawn).await;
        let CallOutcome::Done { effects, .. } = again else { panic!("{again:?}") };
        assert_eq!(effects[0].record.to_string(), record);
    }
    for (number, cents) in [(5, 11), (3, 12)] {
        let stale = outcome(&mut wire, intent(&mallory, number, expense(cents)), false).await;
        assert_eq!(stale, CallOutcome::Stale(5));
    }
    let withdrawn = intent(&mallory, 6, expense(13));
    for early in [true, false] {
        let never = outcome(&mut wire, withdrawn.clone(), early).await;
        let CallOutcome::Refused { refusal, .. } = never else { panic!("{never:?}") };
        assert_eq!(refusal, Refusal::Withdrawn);
    }
    // What came of it is kept for a day, and the number for ever.
    let day = 24 * 60 * 60 * 1_000;
    let forgotten =
        site.ask(move |engine| engine.replica_mut().store_mut().forget_calls(i64::MAX / 2 - day));
    forgotten.await.expect("the disk takes it");
    assert_eq!(outcome(&mut wire, first, false).await, CallOutcome::Stale(6));
    let counts = site.ask(|engine| engine.replica().views().counts_by_type()).await;
    assert_eq!(counts.expect("it reads")[&TypeName::new("expense").expect("a name")].local, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_what_has_changed_meanwhile_is_refused() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "order/o1", json!({ "status": "confirmed", "total": 5 }));
    synced(&ann).await;
    let mallory = Raw::joined(&site.ticket("mallory").await, 7).await;
    let mut wire = mallory.following().await;
    let edit = |record: &str| Wish::Edit {
        record: key(record),
        expected: RecordHash([0; 32]),
        edit: note("mine"),
    };
    for (number, record, expected) in
        [(1, "order/o1", Refusal::Changed), (2, "order/none", Refusal::Absent)]
    {
        let told = outcome(&mut wire, intent(&mallory, number, edit(record)), false).await;
        let CallOutcome::Refused { refusal, .. } = told else { panic!("{told:?}") };
        assert_eq!(refusal, expected);
    }
    assert!(!site.record("order/o1").await.expect("it is there").fields.contains_key("note"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_ends_the_connection_and_nothing_else() {
    let site = Site::founded(CATALOG);
    let mallory = Raw::joined(&site.ticket("mallory").await, 7).await;
    let other = Raw::joined(&site.ticket("other").await, 8).await;
    let long = Wish::Action { name: "x".into(), input: "y".repeat(INTENT) };
    let nonsense = Signed::new(CONTEXT, &7u64, &mallory.seed.signing());
    let elsewhere = Signed::new("another context", &7u64, &mallory.seed.signing());
    for (call, code) in [
        (intent(&other, 1, expense(1)), Code::Unvouched),
        (intent(&mallory, 0, expense(1)), Code::Unvouched),
        (intent(&mallory, u64::MAX, expense(1)), Code::Unvouched),
        (intent(&mallory, 1, long), Code::TooLong),
        (nonsense, Code::Unvouched),
        (elsewhere, Code::Unvouched),
    ] {
        let mut wire = mallory.following().await;
        wire.say(&Frame::Call(frame::Call { intent: call, withdrawn: false })).await;
        assert_eq!(wire.closed().await, Some(code));
    }
    let mut wire = mallory.following().await;
    let refused = |name: &str, input: &str| Wish::Action { name: name.into(), input: input.into() };
    for (number, wish, expected) in [
        (1, refused("nothing", "{}"), Refusal::Unknown),
        (2, refused("file_expense", "no json"), Refusal::Input),
        (3, refused("file_expense", "{\"cents\": -1}"), Refusal::Input),
        (
            4,
            refused("file_expense", &format!("{{\"cents\": {}}}", "[".repeat(30_000))),
            Refusal::Input,
        ),
        (5, refused("close_month", "{}"), Refusal::Denied),
    ] {
        let told = outcome(&mut wire, intent(&mallory, number, wish), false).await;
        let CallOutcome::Refused { refusal, .. } = told else { panic!("{told:?}") };
        assert_eq!(refusal, expected, "{number}");
    }
    for (query, params, expected) in [
        ("nothing", "{}", Refusal::Unknown),
        ("leaderboard", "[]", Refusal::Input),
        ("leaderboard", "{\"least\": \"; DELETE\"}", Refusal::Input),
        ("payroll", "{}", Refusal::Denied),
    ] {
        let ask = frame::Ask { number: 9, query: query.into(), params: params.into() };
        wire.say(&Frame::Ask(ask)).await;
        let said = wire.until(|frame| {
            let Frame::Answer(answer) = frame else { return None };
            Some(answer.said.clone())
        });
        let Said::Refused { refusal, .. } = said.await else { panic!("{query} is answered") };
        assert_eq!(refusal, expected, "{query}");
    }
    let counts = site.ask(|engine| engine.replica().views().counts_by_type()).await;
    assert!(!counts.expect("it reads").contains_key(&TypeName::new("expense").expect("a name")));
}

/// A connection that dies while a call is under way, and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_made_again_for_a_call() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let late = tokio::spawn({
        let ann = ann.clone();
        async move {
            ann.call("file_expense", &object(json!({ "cents": 5 })), Duration::from_millis(1)).await
        }
    });
    // Too short for anything: it is withdrawn, or it is done.
    let late = soon("a call", late).await.expect("it ends");
    site.stop().await;
    site.start_again().await;
    synced(&ann).await;
    let calls = ann.calls().expect("it reads");
    let done = calls.iter().filter(|call| matches!(call.outcome, Some(CallOutcome::Done { .. })));
    let counts = site.ask(|engine| engine.replica().views().counts_by_type()).await;
    let expenses = counts.expect("it reads").remove(&TypeName::new("expense").expect("a name"));
    assert_eq!(done.count() as u64, expenses.unwrap_or_default().local, "{late:?}");
    assert!(calls.iter().all(|call| call.outcome.is_some()));
}
