//! Changing the catalog without fear: what a diff says is what publishing then does, the relay goes on
//! meanwhile, nothing that a catalog does not know is lost, and every catalog can be brought back.
//!
//! `FIELDKEEP_RECORDS` is how many records a diff is compared with publishing at, record by record
//! (2,000 unless set; 100,000 take ten minutes); the seed is `FIELDKEEP_SEED`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::{Connected, PATIENCE, Site, fields, get, put, reaches, soon, state, sync};
use fieldkeep_catalog::{Catalog, Judges};
use fieldkeep_device::Device;
use fieldkeep_lab::Dice;
use fieldkeep_model::{Grant, Outcome, RecordEdit, RecordKey, TypeName};
use fieldkeep_relay::{Cause, Outlook};
use fieldkeep_replica::{Fate, Note, Rehearsal, ReplicaError, RollBackError, kept_catalogs};
use fieldkeep_store::{Reader, Turned, home};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.customer.field.number]
[type.customer.field.discount]
schema = { type = "integer" }
[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.note]
"#;

const RULE: &str = r#"
[[type.customer.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
"#;

impl Site {
    /// A rehearsal of a catalog on the relay's store as it is now.
    fn rehearsal(&self, catalog: &str) -> Rehearsal {
        let reader = Reader::open(&home::database(&self.path("relay"))).expect("it opens");
        let next = Catalog::parse(catalog).expect("it is sound");
        Rehearsal::begin(reader, next, Judges::default()).expect("it reads")
    }

    async fn outlook(&self, catalog: &str) -> Outlook {
        let (members, present) =
            self.ask(|engine| (engine.replica().members().clone(), engine.present())).await;
        Outlook::of(&mut self.rehearsal(catalog), &members, &present).expect("it reads")
    }

    /// Waits until everything is merged and judged.
    async fn settles(&self) {
        self.settles_within(PATIENCE).await;
    }

    async fn settles_within(&self, patience: Duration) {
        let settled = async {
            while !self.ask(|engine| engine.is_idle()).await {
                // Whoever asks all the time is what the relay is busy with.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let settled = tokio::time::timeout(patience, settled).await;
        settled.expect("everything is judged");
    }

    async fn publish_noted(&self, catalog: &str, text: &'static str, time: i64) -> u64 {
        let catalog = catalog.to_owned();
        let note = Note { text, time };
        self.ask(move |engine| engine.publish_noted(&catalog, note)).await.expect("it is sound")
    }

    async fn roll_back(&self, to: Option<u64>) -> Result<u64, RollBackError> {
        let note = Note { text: "that was wrong", time: 7 };
        self.ask(move |engine| engine.roll_back(to, note)).await
    }

    /// What became of records by the catalog in force.
    async fn turned(&self) -> Turned {
        let kept = self.ask(|engine| kept_catalogs(engine.replica().store())).await;
        kept.expect("it reads").remove(0).publication.turned
    }

    /// How many records there are, and how many of each state.
    async fn census(&self) -> (usize, BTreeMap<String, usize>) {
        let judged = self.judged().await;
        let mut words = BTreeMap::new();
        for (word, _) in judged.values() {
            *words.entry(word.clone()).or_default() += 1;
        }
        (judged.len(), words)
    }

    /// Of each record: whether it is valid, and the fields that its reasons speak of.
    async fn judged(&self) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let mut judged = BTreeMap::new();
        for ty in ["customer", "order"] {
            let ty = TypeName::new(ty).expect("a name");
            let page = fieldkeep_store::Page { after: None, limit: 0, deleted: true };
            let listed = self.ask(move |engine| engine.replica().views().list(&ty, &page)).await;
            for record in listed.expect("it reads") {
                let fields = record.reason_fields.into_iter().collect();
                let said = (record.state.word().to_owned(), fields);
                judged.insert(record.key.to_string(), said);
            }
        }
        judged
    }
}

fn fates(rehearsal: &mut Rehearsal) -> Vec<Fate> {
    let mut fates = Vec::new();
    while let Some(slice) = rehearsal.go_on(7).expect("it reads") {
        fates.extend(slice);
    }
    fates
}

/// A catalog that demands this or that: its kinds and scopes are always the same.
fn some_catalog(dice: &mut Dice, buckets: u32) -> String {
    let mut flag = |text: &'static str| if dice.one_in(2) { text } else { "" };
    let (named, numbered) = (flag("required = true\n"), flag("unique = true\n"));
    let (refers, coded) = (flag("ref = \"customer\"\n"), flag("unique = true\n"));
    let line = flag("required = true");
    let mut schema =
        |bounds: &[&str]| format!("schema = {{ type = \"integer\"{} }}\n", dice.pick(bounds));
    let (tier, discount) = (schema(&["", ", maximum = 2"]), schema(&["", ", minimum = 5"]));
    let mut source = format!(
        "catalog = 1\n[type.customer]\nbuckets = {buckets}\n[type.customer.field.name]\n{named}[type.customer.field.number]\n{numbered}\
         [type.customer.field.tier]\n{tier}[type.order]\nbuckets = {buckets}\n\
         [type.order.field.customer]\n{refers}[type.order.field.code]\n{coded}\
         [type.order.field.discount]\n{discount}\
         [type.order.field.price]\nschema = {{ type = \"integer\" }}\n\
         [type.order.field.lines]\nkind = \"set\"\nfield = {{ q = {{ {line} }} }}\n"
    );
    let limits = [
        "!has(record.discount) || record.discount <= 10",
        "!has(record.discount) || record.discount <= 30",
        "!has(record.discount) || record.discount * 10 <= record.price",
    ];
    let mut rules = vec![("limit", *dice.pick(&limits))];
    rules.push((
        "grows",
        "previous == null || !has(previous.price) || (has(record.price) && record.price >= previous.price)",
    ));
    if !refers.is_empty() {
        rules.push((
            "tier",
            "refs.customer == null || !has(refs.customer.tier) || refs.customer.tier > 1",
        ));
    }
    for (name, cel) in rules {
        if dice.one_in(2) {
            source += &format!(
                "[[type.order.rule]]\nname = \"{name}\"\ncel = \"{cel}\"\nreason = \"{name} is broken\"\n"
            );
        }
    }
    source
}

/// Writes customers and orders, some of them again, some deleted, in batches of one segment after another:
/// a device keeps the documents of a few segments at hand.
fn write_some(device: &Device, dice: &mut Dice, count: usize, buckets: u32) {
    let mut edits: Vec<(RecordKey, RecordEdit)> = Vec::new();
    let catalog = device.catalog().expect("the relay sent one");
    let mut add = |key: String, fields: Value| {
        let key: RecordKey = key.parse().expect("a key");
        let object = catalog.ty(&key.ty).expect("a type");
        let edit = object.edit_from_json(fields.as_object().expect("an object"));
        edits.push((key, edit.expect("its fields")));
    };
    for _ in 0..count {
        let mut customer = json!({ "number": dice.below(count).to_string() });
        if dice.one_in(2) {
            customer["name"] = json!("Kiosk");
        }
        if dice.one_in(2) {
            customer["tier"] = json!(dice.below(4));
        }
        add(format!("customer/c{}", dice.below(count)), customer);
        let mut order = json!({ "price": dice.below(200) });
        for (field, value) in [
            ("customer", json!(format!("c{}", dice.below(count + 3)))),
            ("code", json!(format!("k{}", dice.below(2 * count)))),
            ("discount", json!(dice.below(40))),
            ("lines", json!([{ "id": "l1" }])),
        ] {
            if dice.one_in(2) {
                order[field] = value;
            }
        }
        add(format!("order/o{}", dice.below(2 * count)), order);
    }
    // What is deleted stays so.
    edits
        .retain(|(key, _)| device.get(key).expect("it reads").is_none_or(|record| !record.deleted));
    let keys: BTreeSet<String> = edits.iter().map(|(key, _)| key.to_string()).collect();
    let gone = keys.iter().step_by(9).map(|key| key.parse().expect("a key"));
    edits.extend(gone.map(|key| (key, RecordEdit::delete())));
    edits.sort_by_key(|(key, _)| (key.ty.clone(), key.id.bucket(buckets)));
    for edits in edits.chunks(5_000) {
        device.put_all(edits).expect("they are saved");
    }
}

/// Rehearses a catalog, has it published, and compares. Returns what turned.
async fn compare(
    site: &Site,
    next: &str,
    publish: impl AsyncFnOnce(),
    patience: Duration,
    story: &str,
) -> Turned {
    let mut expected = site.judged().await;
    let mut turned = Turned::default();
    for fate in fates(&mut site.rehearsal(next)) {
        let fields = fate.reasons.iter().flat_map(|reason| reason.fields.clone()).collect();
        let said = (fate.after.word().to_owned(), fields);
        let before = expected.insert(fate.key.to_string(), said);
        let (word, _) = before.expect("it is there");
        assert_eq!(word, fate.before.word(), "{story}: {}", fate.key);
        let count = match fate.after {
            Outcome::Held => &mut turned.held,
            Outcome::Waiting => &mut turned.waiting,
            Outcome::Valid => &mut turned.released,
        };
        *count += u64::from(fate.before != fate.after);
    }
    publish().await;
    site.settles_within(patience).await;
    let judged = site.judged().await;
    // Not by `assert_eq`, which prints all of them.
    let differs = expected.iter().find(|(key, said)| judged.get(*key) != Some(said));
    assert_eq!(differs.map(|(key, said)| (key, Some(said), judged.get(key))), None, "{story}");
    assert_eq!(judged.len(), expected.len(), "{story}");
    assert_eq!(site.turned().await, turned, "{story}");
    turned
}

fn number_of(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_diff_says_is_what_publishing_does() {
    let first = number_of("FIELDKEEP_SEED", 1_200);
    for seed in first..first + 4 {
        println!("FIELDKEEP_SEED={seed}");
        let mut dice = Dice::seeded(seed);
        let site = Site::founded(&some_catalog(&mut dice, 2));
        let ann = site.device("ann").await;
        for round in 0..4 {
            write_some(&ann, &mut dice, 15, 2);
            sync(&ann).await;
            site.settles().await;
            let next = some_catalog(&mut dice, 2);
            let story = format!("seed {seed}, round {round}");
            let publish = async || {
                site.publish_noted(&next, "", 0).await;
            };
            compare(&site, &next, publish, PATIENCE, &story).await;
            sync(&ann).await;
        }
        let earlier = site.ask(|engine| {
            let store = engine.replica().store();
            fieldkeep_store::Catalogs::catalog(store, 1).expect("it reads").expect("it is kept")
        });
        let earlier = earlier.await.source;
        let back = async || {
            site.roll_back(Some(1)).await.expect("it is kept");
        };
        compare(&site, &earlier, back, PATIENCE, &format!("seed {seed}, back")).await;
        site.converges(&[&ann], &["customer", "order"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_diff_says_of_many_records_is_what_publishing_does() {
    let (records, seed) = (number_of("FIELDKEEP_RECORDS", 2_000), number_of("FIELDKEEP_SEED", 7));
    println!("FIELDKEEP_RECORDS={records} FIELDKEEP_SEED={seed}");
    // A segment keeps to some hundreds of records, and so does what one of its documents costs.
    let buckets = u32::try_from(records / 400 + 1).expect("a number").next_power_of_two();
    let patience = PATIENCE + Duration::from_millis(20 * records);
    let mut dice = Dice::seeded(seed);
    let [first, next] = [(); 2].map(|()| some_catalog(&mut dice, buckets));
    let site = Site::founded(&first);
    let ann = site.device("ann").await;
    // Of n draws, 0.63 n customers and 0.79 n of twice as many orders are met.
    let draws = usize::try_from(records * 3 / 4).expect("a number");
    write_some(&ann, &mut dice, draws, buckets);
    let sent = ann.sync(patience).await.expect("the relay is there");
    site.settles_within(patience).await;
    let (there, words) = site.census().await;
    println!("{there} records, {} changes: {words:?}", sent.sent);
    assert!(there as u64 >= records, "{there} records are too few");

    let publish = async || {
        site.publish_noted(&next, "", 0).await;
    };
    let there = compare(&site, &next, publish, patience, "published").await;
    let back = async || {
        site.roll_back(Some(1)).await.expect("it is kept");
    };
    let back = compare(&site, &first, back, patience, "back").await;
    for (story, turned) in [("published", there), ("back", back)] {
        println!("{story}: {turned:?}");
        let all = turned.held + turned.waiting + turned.released;
        assert!(all > records / 20, "{story}: {turned:?} shows nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_tells_what_each_rule_would_do_with_examples_and_who_would_see_it() {
    let site = Site::founded(&format!("{CATALOG}{RULE}"));
    let ann = site.device("ann").await;
    let scope =
        vec![Grant { ty: Some(TypeName::new("visit").expect("a name")), scope: Some("42".into()) }];
    let ticket = site.invited("ben", scope, i64::MAX).await;
    let ben = site.join(&ticket, "ben").await;
    for n in 0..10 {
        put(&ann, &format!("customer/c{n}"), json!({ "discount": 28 + n }));
        put(&ann, &format!("visit/v{n}"), json!({ "outlet": if n < 3 { "42" } else { "43" } }));
    }
    sync(&ann).await;
    sync(&ben).await;
    // Those that only synced have gone.
    let gone = async { while !site.ask(|engine| engine.present().is_empty()).await {} };
    soon("nobody is connected", gone).await;
    let connected = Connected::new(&ann);
    let here = async { while site.ask(|engine| engine.present().is_empty()).await {} };
    soon("ann is connected", here).await;

    let next =
        CATALOG.replace("[type.visit.field.note]", "[type.visit.field.note]\nrequired = true");
    let outlook = site.outlook(&next).await;
    assert_eq!((outlook.number, outlook.records, outlook.same), (1, 20, false));
    assert_eq!((outlook.weight.held, outlook.weight.released), (10, 7));
    let cause = |ty: &str, id: &str, name: &str| -> Cause {
        let name = (TypeName::new(ty).expect("a name"), id.to_owned(), name.to_owned());
        assert!(outlook.turn(&name).is_some(), "{name:?} is among the differences");
        outlook.causes.get(&name).cloned().expect("it is a cause")
    };
    let rule = cause("customer", "rule", "discount");
    assert_eq!((rule.weight.released, rule.weight.held), (7, 0));
    assert_eq!(rule.sentences, [(7, "the discount is above 30 percent".to_owned())]);
    assert_eq!(rule.examples.len(), 3);
    assert_eq!((rule.examples[0].before, rule.examples[0].after), (Outcome::Held, Outcome::Valid));
    let note = cause("visit", "required", "note");
    assert_eq!(note.sentences, [(10, "`note` is missing".to_owned())]);
    let seen: Vec<_> = outlook
        .devices
        .iter()
        .map(|sight| (&*sight.name, sight.weight.held, sight.weight.released))
        .collect();
    assert_eq!(seen, [("ann", 10, 7), ("ben", 3, 0)]);
    let present = outlook.devices[0].present.as_ref().expect("she is connected");
    assert!(present.software.starts_with("fieldkeep/"), "{}", present.software);
    assert_eq!(present.catalog, 1);
    assert_eq!(outlook.devices[1].present, None);
    let last = outlook.devices[1].last.as_ref().expect("ben was here");
    assert_eq!((&last.software, last.catalog), (&present.software, 1), "what he said then");
    assert!(site.outlook(&format!("{CATALOG}{RULE}")).await.same);

    assert_eq!(site.publish(&next).await.expect("it is sound"), 2);
    reaches(&ann, "visit/v9", "held").await;
    reaches(&ann, "customer/c9", "valid").await;
    drop(connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_sees_one_moment_and_holds_nobody_up() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    for n in 0..50 {
        put(&ann, &format!("customer/c{n}"), json!({ "discount": n }));
    }
    sync(&ann).await;
    site.settles().await;
    let mut rehearsal = site.rehearsal(&format!("{CATALOG}{RULE}"));
    assert!(rehearsal.go_on(10).expect("it reads").is_some());
    put(&ann, "customer/later", json!({ "discount": 99 }));
    put(&ann, "customer/c49", json!({ "discount": 0 }));
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/later"), "valid", "it is durable and judged meanwhile");
    let later = fates(&mut rehearsal);
    assert_eq!(rehearsal.seen(), 50);
    assert!(later.iter().any(|fate| fate.key.to_string() == "customer/c49"));
    assert!(later.iter().all(|fate| fate.key.to_string() != "customer/later"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rolled_back_catalog_does_not_know_is_held_and_comes_back() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let more = format!(
        "{CATALOG}[type.customer.field.color]\n[type.lead]\n[type.lead.field.name]\nunique = true\n"
    );
    assert_eq!(site.publish_noted(&more, "colors", 5).await, 2);
    sync(&ann).await;
    put(&ann, "customer/c1", json!({ "name": "Kiosk", "color": "blue" }));
    put(&ann, "customer/c2", json!({ "name": "Pier" }));
    put(&ann, "lead/l1", json!({ "name": "Harbour" }));
    sync(&ann).await;
    put(&ann, "lead/l2", json!({ "name": "Offline" }));
    assert_eq!(site.roll_back(None).await.expect("there is one"), 3);
    sync(&ann).await;
    site.settles().await;
    sync(&ann).await;
    for (key, word) in [
        ("customer/c1", "held"),
        ("customer/c2", "valid"),
        ("lead/l1", "held"),
        ("lead/l2", "held"),
    ] {
        assert_eq!(state(&ann, key), word, "{key}");
    }
    assert_eq!(fields(&ann, "customer/c1")["color"], json!("blue"), "nothing of it is lost");
    assert_eq!(fields(&ann, "lead/l2")["name"], json!("Offline"));
    let reasons = get(&ann, "customer/c1").expect("it is there").reasons;
    assert_eq!(reasons, ["the catalog does not declare `color`"]);
    let reasons = get(&ann, "lead/l1").expect("it is there").reasons;
    assert_eq!(reasons, ["the catalog does not declare the type `lead`"]);
    let turned = Turned { held: 2, waiting: 0, released: 0 };
    assert_eq!(site.turned().await, turned, "lead/l2 was never anything else");

    // What was declared once is frozen, whether it is in force or not.
    let otherwise = more.replace("[type.lead]", "[type.lead]\nbuckets = 8");
    let refused = site.publish(&otherwise).await;
    assert!(matches!(refused, Err(ReplicaError::Frozen(_))), "{refused:?}");

    assert_eq!(site.publish_noted(&more, "colors again", 9).await, 4);
    site.settles().await;
    site.converges(&[&ann], &["customer", "lead"]).await;
    for key in ["customer/c1", "customer/c2", "lead/l1", "lead/l2"] {
        assert_eq!(state(&ann, key), "valid", "{key}");
    }
    put(&ann, "lead/l3", json!({ "name": "Harbour" }));
    sync(&ann).await;
    assert_eq!(state(&ann, "lead/l1"), "held", "the indexes came back with the type");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_catalog_is_kept_with_its_note_and_what_became_of_records() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    for n in 0..40 {
        put(&ann, &format!("customer/c{n}"), json!({ "discount": n }));
    }
    sync(&ann).await;
    site.publish_noted(&format!("{CATALOG}{RULE}"), "no more gifts", 5).await;
    site.settles().await;
    assert!(matches!(site.roll_back(Some(9)).await, Err(RollBackError::Unknown(9))));
    assert_eq!(site.roll_back(Some(2)).await.expect("it is in force"), 2, "nothing to do");
    assert_eq!(site.roll_back(None).await.expect("there is one"), 3);
    site.settles().await;
    site.stop().await;
    site.start_again().await;
    let kept = site.ask(|engine| kept_catalogs(engine.replica().store())).await;
    let kept = kept.expect("it reads");
    let told: Vec<_> = kept
        .iter()
        .map(|kept| {
            let Turned { held, released, .. } = kept.publication.turned;
            (kept.number, &*kept.publication.note, kept.publication.time, held, released)
        })
        .collect();
    assert_eq!(told[0], (3, "that was wrong", Some(7), 0, 9));
    assert_eq!(told[1], (2, "no more gifts", Some(5), 9, 0));
    assert_eq!((told[2].0, told[2].1), (1, ""));
    assert_eq!(kept[0].hash, kept[2].hash);
    assert_eq!(site.roll_back(None).await.expect("there is one"), 4, "forth again");
    site.settles().await;
    assert_eq!(site.turned().await.held, 9);
}

/// Each record of a value that all have was once judged again with all others.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_everybody_has_becomes_unique_in_slices_and_the_progress_shows() {
    const RECORDS: u64 = 2_000;
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let catalog = ann.catalog().expect("the relay sent one");
    let customer = catalog.ty(&TypeName::new("customer").expect("a name")).expect("a type");
    let open = json!({ "number": "7" });
    let edit = customer.edit_from_json(open.as_object().expect("an object")).expect("its fields");
    let edits: Vec<_> = (0..RECORDS)
        .map(|n| (format!("customer/c{n}").parse().expect("a key"), edit.clone()))
        .collect();
    ann.put_all(&edits).expect("they are saved");
    sync(&ann).await;
    site.settles().await;
    let next = CATALOG
        .replace("[type.customer.field.number]", "[type.customer.field.number]\nunique = true");
    assert_eq!(site.outlook(&next).await.weight.held, RECORDS);
    assert_eq!(site.publish(&next).await.expect("it is sound"), 2);
    let to_come = site.rehearsal(CATALOG).renewing();
    assert_eq!(to_come, RECORDS, "a diff tells what catalog 2 has not judged yet");
    let mut seen = BTreeSet::new();
    let judged = async {
        loop {
            let progress = site.ask(|engine| engine.replica().renewal_progress()).await;
            let progress = progress.expect("it reads");
            if progress.left == 0 {
                return;
            }
            assert_eq!(progress.all, RECORDS);
            seen.insert(progress.left);
        }
    };
    soon("all are judged", judged).await;
    assert!(seen.len() > 2, "it goes on in slices: {seen:?}");
    site.settles().await;
    assert_eq!(site.turned().await.held, RECORDS);
    assert_eq!(site.rehearsal(CATALOG).renewing(), 0);
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c0"), "held");
    put(&ann, "customer/c0", json!({ "number": "8" }));
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c0"), "valid");
}
