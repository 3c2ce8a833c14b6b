//! The quarantine with many held records: how long the slowest page of it takes, whatever is asked for.

use fieldkeep_model::status::State;
use fieldkeep_model::{OrgId, Outcome, RecordHash, SegmentAddress};
use fieldkeep_store::{
    Quarantine as _, Reader, RecordRow, StandingVerdict, Store, Wanted, about_device, about_rule,
};

use crate::camp::{Sizes, directory, record_id, some_orders, type_named};
use crate::measure::{median, micros};
use crate::table::{Table, Target};

/// Records of a page.
const PAGE: usize = 100;
/// Rules that are broken, and devices that broke them.
const KINDS: usize = 20;

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    let root = directory();
    let path = root.path().join("relay.db");
    fill(&mut Store::open(&path).expect("the disk takes it"), sizes.many);
    let reader = Reader::open(&path).expect("it was just made");
    let rule = |name: &str| Wanted { rule: Some(name.to_owned()), ..Wanted::default() };
    let text = |text: &str| Wanted { text: Some(text.to_owned()), ..Wanted::default() };
    let mut slowest: (f64, &str) = (0.0, "");
    for (name, wanted) in [
        ("all", Wanted::default()),
        ("a type", Wanted { ty: Some(type_named("order")), ..Wanted::default() }),
        ("a scope", Wanted { scope: Some("7".to_owned()), ..Wanted::default() }),
        ("a rule", rule("rule-3")),
        ("no rule", rule("nothing")),
        ("a device", Wanted { device: Some(7), ..Wanted::default() }),
        ("a text", text("confirmed")),
        ("no text", text("nowhere to be found")),
        ("a person", Wanted { person: Some("eve".to_owned()), ..Wanted::default() }),
        ("put aside", Wanted { dismissed: Some(true), ..Wanted::default() }),
        ("not put aside", Wanted { dismissed: Some(false), ..Wanted::default() }),
        ("old ones", Wanted { until: Some(100), ..Wanted::default() }),
    ] {
        let mut after = None;
        for page in 0.. {
            let times = (0..sizes.runs).map(|_| {
                let asked = micros(|| reader.quarantine(&wanted, after.as_ref(), PAGE));
                asked.1.expect("it reads");
                asked.0 / 1e3
            });
            let time = median(times.collect());
            if time > slowest.0 {
                slowest = (time, name);
            }
            let (_, next) = reader.quarantine(&wanted, after.as_ref(), PAGE).expect("it reads");
            after = next;
            // The first pages, and then every so many: all are alike.
            if after.is_none() || page == 40 {
                break;
            }
        }
    }
    let what = format!("a page of the quarantine, {} held records", sizes.many);
    let how = format!("the slowest of 41 pages each of 12 searches: {}", slowest.1);
    table.row(&what, slowest.0, Target::AtMost(100.0, "ms"), how);
}

/// So many held orders in twenty scopes, with verdicts as a relay keeps them.
fn fill(store: &mut Store, count: usize) {
    let segments: Vec<i64> = (0..KINDS)
        .map(|scope| {
            let ty = type_named("order");
            let scope = scope.to_string();
            let address = SegmentAddress { ty, scope, buckets: 1, bucket: 0, generation: 1 };
            let id = address.id(&OrgId([1; 16]));
            store.create_segment(id, address).expect("the disk takes it").sid
        })
        .collect();
    for (nth, (id, fields)) in some_orders(1, count, None).into_iter().enumerate() {
        let json = serde_json::Value::Object(fields).to_string();
        let (id, sid) = (record_id(&id), segments[nth % KINDS]);
        let mut row = RecordRow {
            rid: 0,
            sid,
            hash: RecordHash::of(&json),
            id: id.clone(),
            json,
            deleted: false,
            pos: 1,
            state: State::Judged(Outcome::Held),
            unsaved: 0,
            conflicts: Vec::new(),
            valid: None,
            valid_pos: 0,
            forecast: None,
        };
        store.put_record(&mut row).expect("the disk takes it");
        let (rule, device) = (format!("rule-{}", nth % KINDS), (nth / KINDS % KINDS) as u64);
        let about = [about_device(device), about_rule(&rule)].concat();
        let since = nth as i64;
        let verdict = StandingVerdict { bytes: vec![0; 300], openings: vec![0x80], since, about };
        store.put_verdict(sid, &id, Some(&verdict)).expect("the disk takes it");
    }
    store.commit().expect("the disk takes it");
}
