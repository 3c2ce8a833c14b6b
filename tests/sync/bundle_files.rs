//! Attached files and wishes that are carried by hand: they arrive like those of a session and its lanes,
//! and nobody gets by a file what he would not get there.

use std::path::PathBuf;

use crate::support::carrying::*;
use crate::support::*;
use fieldkeep_device::{BundleError, Device, Enclosing, FileState, ReadError, Unfit, Unpacked};
use fieldkeep_model::{BlobHash, Grant, RecordKey, Seed, TypeName};
use fieldkeep_protocol::Frame;
use fieldkeep_protocol::blob::Upload;
use fieldkeep_protocol::bundle::{Enclosure, Header, Survey, Writer};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.photos]
kind = "attachment"
media = ["image/*"]
max_size = "64 MiB"

[type.item]
[type.item.field.stock]
kind = "counter"
[[type.item.rule]]
name = "some_left"
cel = "!has(record.stock) || record.stock >= 0"
reason = "there cannot be fewer than none"
"#;

fn record(text: &str) -> RecordKey {
    text.parse().expect("a record's name")
}

/// Bytes that do not repeat.
fn content(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A visit with a photo, in an outlet.
fn photo(site: &Site, device: &Device, visit: &str, outlet: &str, bytes: &[u8]) -> BlobHash {
    let path = site.path("photo.png");
    std::fs::write(&path, bytes).expect("it is written");
    put(device, visit, json!({"outlet": outlet}));
    device.attach(&record(visit), "photos", &path, None, None).expect("it is attached").hash
}

fn stands(device: &Device, visit: &str) -> FileState {
    device.files(Some(&record(visit))).expect("it reads")[0].state.clone()
}

/// What lies in a directory's folder of files.
fn lies(site: &Site, of: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(site.path(of).join("blobs"));
    entries.map_or(Vec::new(), |entries| entries.map(|e| e.expect("an entry").path()).collect())
}

fn stored(site: &Site, of: &str, hash: &BlobHash) -> Option<Vec<u8>> {
    std::fs::read(site.path(of).join("blobs").join(hash.to_string())).ok()
}

/// The files that are in a bundle with their bytes.
fn given(file: &[u8]) -> Vec<BlobHash> {
    Survey::of(file).expect("a bundle").given.into_keys().collect()
}

/// The files that a bundle names in any way.
fn named(file: &[u8]) -> Vec<BlobHash> {
    let survey = Survey::of(file).expect("a bundle");
    survey.given.into_keys().chain(survey.has.into_keys()).collect()
}

/// What became of it: changes, files, and what was refused.
fn came(unpacked: &Unpacked) -> (u64, u64, Vec<&str>) {
    let refused = unpacked.not_taken.iter().map(|one| &*one.code).collect();
    (unpacked.changes, unpacked.files, refused)
}

async fn limited(site: &Site, name: &str, outlet: &str) -> Device {
    let grants = vec![Grant { ty: TypeName::new("visit").ok(), scope: Some(outlet.to_owned()) }];
    let ticket = site.invited(name, grants, i64::MAX).await;
    site.join(&ticket, name).await
}

/// Devices that have the catalog, and no network from here on.
async fn team(site: &Site, names: &[&str]) -> Vec<Device> {
    let mut devices = Vec::new();
    for name in names {
        devices.push(site.device(name).await);
    }
    // All of them are known to each.
    for device in &devices {
        taken(device, &from_relay(site, device, None).await);
    }
    devices
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_is_carried_to_the_relay_and_on_to_another_device_with_no_network_at_all() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    let bytes = content(700_000, 1);
    let hash = photo(&site, ann, "visit/v1", "41", &bytes);
    let office = for_relay(ann, None);
    assert_eq!(came(&into_relay(&site, &office).await.expect("Ann may")), (2, 1, vec![]));
    assert_eq!(stored(&site, "relay", &hash).as_deref(), Some(&*bytes));
    assert_eq!(stands(ann, "visit/v1"), FileState::WaitingForRecord, "nobody has told her");

    let back = from_relay(&site, ann, Some(&office)).await;
    assert_eq!(given(&back), [], "she has it");
    let told = taken(ann, &back);
    assert_eq!((told.saved, told.saved_files), (2, 1));
    assert_eq!(stands(ann, "visit/v1"), FileState::Here);
    assert_eq!(ann.status().expect("it reads").files, 0);

    let to_ben = from_relay(&site, ben, None).await;
    assert_eq!(came(&taken(ben, &to_ben)), (2, 1, vec![]));
    assert_eq!(stored(&site, "ben", &hash), Some(bytes));
    assert_eq!(stands(ben, "visit/v1"), FileState::Here);
    assert_eq!(ben.status().expect("it reads").files, 0, "the relay has it");

    // Once more changes nothing.
    let before = (logs(ann), logs(ben), site.log().await);
    assert_eq!(came(&into_relay(&site, &office).await.expect("Ann may")), (0, 0, vec![]));
    assert_eq!(came(&taken(ben, &to_ben)), (0, 0, vec![]));
    assert_eq!(taken(ann, &back).saved_files, 0);
    assert_eq!((logs(ann), logs(ben), site.log().await), before);
    assert_eq!(["ann", "ben", "relay"].map(|of| lies(&site, of).len()), [1, 1, 1]);
    let report = sync(ann).await;
    assert_eq!((report.sent, report.received), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_that_waits_is_carried_to_the_relay_by_whoever_gets_it() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    let hash = photo(&site, ann, "visit/v1", "41", b"front");
    let to_ben = pack(ann, &key(ben), None);
    assert_eq!(came(&taken(ben, &to_ben)), (2, 1, vec![]));
    assert_eq!(stands(ben, "visit/v1"), FileState::WaitingForRecord);
    let office = for_relay(ben, None);
    assert_eq!(came(&into_relay(&site, &office).await.expect("Ben may")), (2, 1, vec![]));
    assert_eq!(taken(ben, &from_relay(&site, ben, Some(&office)).await).saved_files, 1);
    assert_eq!(stands(ben, "visit/v1"), FileState::Here);
    assert_eq!(came(&taken(ben, &to_ben)), (0, 0, vec![]), "and it does not wait again");
    assert_eq!(stands(ben, "visit/v1"), FileState::Here);
    // Ann hears it from the relay, which never met her.
    assert_eq!(taken(ann, &from_relay(&site, ann, None).await).saved_files, 1);
    assert_eq!(stands(ann, "visit/v1"), FileState::Here);
    assert_eq!(stored(&site, "relay", &hash).as_deref(), Some(&b"front"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_bundle_shows_the_other_to_have_is_not_packed_again() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    let first = photo(&site, ann, "visit/v1", "41", b"front");
    let one = pack(ann, &key(ben), None);
    let second = photo(&site, ann, "visit/v2", "41", b"back");
    let two = pack(ann, &key(ben), Some(&one));
    assert_eq!((given(&one), given(&two)), (vec![first], vec![second]));
    assert_eq!(given(&pack(ann, &key(ben), Some(&two))), [], "nor is what came before that");
    taken(ben, &one);
    taken(ben, &two);
    let back = pack(ben, &key(ann), None);
    assert_eq!(given(&pack(ann, &key(ben), Some(&back))), [], "he says what he has");
    assert_eq!(given(&pack(ben, &key(ann), Some(&two))), [], "and so did she");

    let office = for_relay(ann, None);
    assert_eq!(given(&for_relay(ann, Some(&office))), []);
    into_relay(&site, &office).await.expect("Ann may");
    let home = from_relay(&site, ben, None).await;
    assert_eq!(given(&home).len(), 2);
    let later = from_relay(&site, ben, Some(&home)).await;
    assert_eq!(given(&later), []);
    assert_eq!(given(&from_relay(&site, ben, Some(&later)).await), []);
    // The relay says what it has, and that needs not be brought.
    let told = from_relay(&site, ann, Some(&office)).await;
    assert_eq!(given(&for_relay(ann, Some(&told))), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_left_out_where_that_is_asked_for_and_come_with_a_later_bundle() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    let hash = photo(&site, ann, "visit/v1", "41", &content(90_000, 2));
    let mut plain = Vec::new();
    let written = ann.export_bundle(&mut plain, &key(ben), None, Enclosing::NoFiles);
    let packed = written.expect("it is written").packed;
    assert_eq!((packed.changes, packed.files, packed.file_bytes), (2, 0, 0));
    assert!(plain.len() < 10_000, "{} bytes", plain.len());
    assert_eq!(came(&taken(ben, &plain)), (2, 0, vec![]));
    assert_eq!(stands(ben, "visit/v1"), FileState::Elsewhere);
    let mut since = &plain[..];
    let mut full = Vec::new();
    let written = ann.export_bundle(&mut full, &key(ben), Some(&mut since), Enclosing::Files);
    let packed = written.expect("it is written").packed;
    assert_eq!((packed.changes, packed.files, packed.file_bytes), (0, 1, 90_000));
    assert_eq!(came(&taken(ben, &full)), (0, 1, vec![]));
    assert!(stored(&site, "ben", &hash).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_its_reader_may_not_have_is_not_in_his_bundle_nor_named() {
    let site = Site::founded(CATALOG);
    let (eve, dan) = (limited(&site, "eve", "42").await, limited(&site, "dan", "42").await);
    let [ann] = &team(&site, &["ann"]).await[..] else { panic!("one") };
    for device in [&eve, &dan] {
        taken(device, &from_relay(&site, device, None).await);
    }
    let bytes = content(90_000, 3);
    let secret = photo(&site, ann, "visit/v1", "41", &bytes);
    into_relay(&site, &for_relay(ann, None)).await.expect("Ann may");
    assert_eq!(named(&pack(ann, &key(&eve), None)), []);
    assert_eq!(named(&from_relay(&site, &eve, None).await), []);

    // She knows its name, and a record of hers says that it has it.
    let child = json!([{"id": secret.to_string(), "media": "image/png", "name": "x", "size": 0}]);
    put(&eve, "visit/e1", json!({"outlet": "42", "photos": child}));
    let hers = for_relay(&eve, None);
    assert_eq!(given(&hers), [], "she has no bytes to bring");
    into_relay(&site, &hers).await.expect("Eve may");
    assert_eq!(named(&from_relay(&site, &eve, None).await), []);
    taken(ann, &pack(&eve, &key(ann), None));
    assert_eq!(named(&pack(ann, &key(&eve), None)), [], "Ann gives it no sooner");
    // Nor does an empty claim open it.
    let seed = seed_of(&site, "eve");
    let claim = enclosing(&hers, &seed, secret, "visit/e1", &[]);
    let refused = into_relay(&site, &claim).await.expect("it is hers");
    assert_eq!(came(&refused), (0, 0, vec!["wrong"]));
    assert_eq!(named(&from_relay(&site, &eve, None).await), []);

    // Who brings the bytes themselves has them, and opens them for those who read his record.
    let same = photo(&site, &dan, "visit/d1", "42", &bytes);
    assert_eq!(same, secret);
    let brought = into_relay(&site, &for_relay(&dan, None)).await.expect("Dan may");
    assert_eq!(came(&brought), (2, 1, vec![]));
    let to_eve = from_relay(&site, &eve, None).await;
    assert_eq!(given(&to_eve), [secret]);
    assert_eq!(came(&taken(&eve, &to_eve)), (2, 1, vec![]));
    assert_eq!(stored(&site, "eve", &secret), Some(bytes));
}

/// A bundle with nothing in it but a file, by whoever has that seed, as if it followed another.
fn enclosing(like: &[u8], seed: &Seed, hash: BlobHash, of: &str, bytes: &[u8]) -> Vec<u8> {
    let header = Header { from: seed.signing().public(), ..Survey::of(like).expect("one").header };
    let (record, size) = (record(of), bytes.len() as u64);
    let file = Upload { hash, record, size, tree: Vec::new() };
    let mut forged = Vec::new();
    let mut writer = Writer::new(&mut forged, &header).expect("memory");
    writer.file(&Enclosure { file, waits: false }, &mut &bytes[..]).expect("memory");
    writer.finish(&seed.signing()).expect("memory");
    forged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_byte_of_a_file_costs_that_file_and_nothing_else() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    let bytes = content(200_000, 4);
    let hash = photo(&site, ann, "visit/v1", "41", &bytes);
    let other = photo(&site, ann, "visit/v2", "41", b"back");
    let broken = |mut file: Vec<u8>| {
        let place = file.windows(64).position(|window| *window == bytes[140_000..140_064]);
        file[place.expect("the photo is in it")] ^= 1;
        file
    };
    let (to_ben, to_relay) = (pack(ann, &key(ben), None), for_relay(ann, None));
    let at_ben = take(ben, &broken(to_ben.clone())).expect("the rest of it is taken");
    let at_relay = into_relay(&site, &broken(to_relay.clone())).await.expect("Ann may");
    for (of, unpacked) in [("ben", at_ben), ("relay", at_relay)] {
        assert_eq!(came(&unpacked), (4, 1, vec!["wrong"]), "{of}");
        assert!(unpacked.not_taken[0].text.contains("131072"), "{}", unpacked.not_taken[0].text);
        assert_eq!(lies(&site, of).len(), 1, "nothing half is left: {of}");
        assert!(stored(&site, of, &other).is_some());
    }
    assert_eq!(stands(ben, "visit/v1"), FileState::Elsewhere);
    // A sound copy brings it.
    assert_eq!(came(&taken(ben, &to_ben)), (0, 1, vec![]));
    assert_eq!(came(&into_relay(&site, &to_relay).await.expect("Ann may")), (0, 1, vec![]));
    for of in ["ben", "relay"] {
        assert_eq!(stored(&site, of, &hash).as_deref(), Some(&*bytes), "{of}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_cut_within_a_file_changes_nothing_and_a_file_cut_short_is_not_kept() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    photo(&site, ann, "visit/v1", "41", &content(150_000, 5));
    let whole = pack(ann, &key(ben), None);
    let before = (logs(ben), ben.members().len());
    for cut in (0..whole.len()).step_by(9_973) {
        let refused = take(ben, &whole[..cut]);
        assert!(matches!(refused, Err(BundleError::Read(_))), "cut at {cut}");
    }
    assert!(matches!(
        take(ben, &whole[..whole.len() - 1]),
        Err(BundleError::Read(ReadError::CutShort))
    ));
    assert_eq!((logs(ben), ben.members().len(), lies(&site, "ben").len()), (before.0, before.1, 0));
    // Its writer could not read it to its end.
    for there in [0, 1, 65_536, 149_999] {
        let seed = seed_of(&site, "ann");
        let short = rewritten(&whole, &seed, |frame| frame, |_, bytes| bytes.truncate(there));
        let unpacked = take(ben, &short).expect("the rest of it is taken");
        assert_eq!(unpacked.not_taken[0].code, "short", "{there} bytes");
        assert_eq!(lies(&site, "ben"), Vec::<PathBuf>::new(), "{there} bytes");
    }
    assert_eq!(came(&taken(ben, &whole)), (0, 1, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_bundle_with_a_file_is_refused() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    photo(&site, ann, "visit/v1", "41", b"front");
    let stranger = Seed([9; 32]);
    let forge = |file: &[u8]| rewritten(file, &stranger, |frame| frame, |_, _| {});
    let refused = take(ben, &forge(&pack(ann, &key(ben), None)));
    assert!(matches!(refused, Err(BundleError::Unfit(Unfit::Stranger))));
    let refused = into_relay(&site, &forge(&for_relay(ann, None))).await;
    assert_eq!(refused, Err(Unfit::Stranger));
    assert_eq!((lies(&site, "ben").len(), lies(&site, "relay").len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_no_record_names_so_or_that_is_too_large_by_now_is_refused() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    photo(&site, ann, "visit/v1", "41", &content(60_000, 6));
    let small = photo(&site, ann, "visit/v2", "41", b"back");
    let (to_ben, to_relay) = (pack(ann, &key(ben), None), for_relay(ann, None));
    let seed = seed_of(&site, "ann");
    // As if another record had it, and as if it were longer.
    for code in ["not-named", "size"] {
        let changed = |file: &mut Enclosure, _: &mut Vec<u8>| match code {
            _ if file.file.hash == small => {}
            "size" => file.file.size += 1,
            _ => file.file.record = record("visit/v9"),
        };
        let at_ben = take(ben, &rewritten(&to_ben, &seed, |frame| frame, changed));
        assert_eq!(at_ben.expect("it is Ann's").not_taken[0].code, code);
        let forged = rewritten(&to_relay, &seed, |frame| frame, changed);
        let at_relay = into_relay(&site, &forged).await;
        assert_eq!(at_relay.expect("it is Ann's").not_taken[0].code, code);
    }
    site.publish(&CATALOG.replace("64 MiB", "50 kB")).await.expect("it is a catalog");
    taken(ben, &from_relay(&site, ben, None).await);
    let at_relay = into_relay(&site, &to_relay).await.expect("Ann may");
    for unpacked in [take(ben, &to_ben).expect("it is Ann's"), at_relay] {
        assert_eq!(came(&unpacked).2, ["limit"]);
    }
    for of in ["ben", "relay"] {
        assert_eq!((lies(&site, of).len(), stored(&site, of, &small).is_some()), (1, true), "{of}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_what_is_paused_stay_out_and_nothing_is_made_of_that() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    photo(&site, ann, "visit/v1", "41", b"front");
    let whole = pack(ann, &key(ben), None);
    let visit = TypeName::new("visit").expect("a name");
    ben.pause(Some(&visit)).expect("it is saved");
    assert_eq!(came(&taken(ben, &whole)), (0, 0, vec![]));
    ann.pause(Some(&visit)).expect("it is saved");
    assert_eq!(
        (named(&pack(ann, &key(ben), None)), named(&for_relay(ann, None))),
        (vec![], vec![])
    );
}

/// The wishes in a bundle.
fn wishes(file: &[u8]) -> usize {
    let wish = |frame: &&Frame| matches!(frame, Frame::Dismiss(_) | Frame::Rejudge(_));
    frames(file).iter().filter(wish).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_is_carried_to_the_relay_and_heard_once() {
    let site = Site::founded(CATALOG);
    let [ann] = &team(&site, &["ann"]).await[..] else { panic!("one") };
    let item = record("item/i1");
    put(ann, "item/i1", json!({"stock": -2}));
    // The relay has never heard of the record either.
    ann.dismiss(&item, Some("counted again")).expect("it is saved");
    let first = for_relay(ann, None);
    into_relay(&site, &first).await.expect("Ann may");
    let aside = async || site.record("item/i1").await.and_then(|record| record.dismissed);
    let dismissed = aside().await.expect("it is put aside");
    assert_eq!((&*dismissed.who, &*dismissed.note), ("ann", "counted again"));

    ann.dismiss(&item, None).expect("it is saved");
    ann.retry(&item).expect("it is saved");
    let second = for_relay(ann, None);
    assert_eq!((wishes(&first), wishes(&second)), (1, 3), "nobody has said that it was heard");
    into_relay(&site, &second).await.expect("Ann may");
    assert_eq!(aside().await, None, "it was taken up again");
    into_relay(&site, &first).await.expect("Ann may");
    assert_eq!(aside().await, None, "an old wish is not heard again");

    taken(ann, &from_relay(&site, ann, Some(&second)).await);
    assert_eq!(wishes(&for_relay(ann, None)), 0, "the relay has heard them");
    assert_eq!(state(ann, "item/i1"), "held");
    // By a session as well: what is carried later is old by then.
    ann.dismiss(&item, Some("sold")).expect("it is saved");
    let third = for_relay(ann, None);
    ann.dismiss(&item, None).expect("it is saved");
    sync(ann).await;
    into_relay(&site, &third).await.expect("Ann may");
    assert_eq!(aside().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_about_content_that_has_changed_meanwhile_puts_nothing_aside() {
    let site = Site::founded(CATALOG);
    let [ann, ben] = &team(&site, &["ann", "ben"]).await[..] else { panic!("two") };
    put(ann, "item/i1", json!({"stock": -2}));
    ann.dismiss(&record("item/i1"), Some("counted again")).expect("it is saved");
    let hers = for_relay(ann, None);
    taken(ben, &pack(ann, &key(ben), None));
    put(ben, "item/i1", json!({"stock": -1}));
    into_relay(&site, &for_relay(ben, None)).await.expect("Ben may");
    into_relay(&site, &hers).await.expect("Ann may");
    let shown = site.record("item/i1").await.expect("it is here");
    assert_eq!((shown.dismissed, shown.state.word()), (None, "held"));
}
