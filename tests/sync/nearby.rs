//! Devices that meet with no relay between them, over real sockets and real files.

use std::time::Duration;

use crate::support::*;
use fieldkeep_device::{Device, Event, Listener, MeetError, PeerProgress};
use fieldkeep_lab::proxy::Proxy;
use fieldkeep_model::{RecordKey, TypeName};
use fieldkeep_protocol::Code;
use fieldkeep_replica::{ReplicaError, UndecidedFork};
use fieldkeep_store::Log as _;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]
[type.customer.field.city]

[type.item]
[type.item.field.label]
[type.item.field.stock]
kind = "counter"
[[type.item.rule]]
name = "some_left"
cel = "!has(record.stock) || record.stock >= 0"
reason = "there cannot be fewer than none"
"#;

/// A device that listens until this is dropped.
struct Listening {
    listener: Listener,
    serving: JoinHandle<()>,
}

impl Listening {
    fn new(device: &Device) -> Self {
        let listener = device.listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let serving = tokio::spawn({
            let listener = listener.clone();
            async move { listener.serve().await }
        });
        Self { listener, serving }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn try_meet(device: &Device, other: &Device) -> Result<PeerProgress, MeetError> {
    let listening = Listening::new(other);
    device.sync_with(listening.listener.address(), PATIENCE).await
}

async fn meet(device: &Device, other: &Device) -> PeerProgress {
    let met = try_meet(device, other).await.expect("they meet");
    assert_eq!(logs(device).keys().collect::<Vec<_>>(), logs(other).keys().collect::<Vec<_>>());
    met
}

fn outgoing(device: &Device) -> u64 {
    let count = device.with_replica(|r| Ok::<_, ReplicaError>(r.store().outgoing_count()?));
    count.expect("it reads")
}

fn forks(device: &Device) -> Vec<UndecidedFork> {
    device.with_replica(|replica| replica.undecided_forks()).expect("it reads")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_devices_wrote_reaches_both_without_a_relay() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    site.stop().await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ben, "customer/c2", json!({"name": "Harbour"}));
    put(&ben, "item/i1", json!({"label": "tea", "stock": 3}));

    let met = meet(&ann, &ben).await;
    assert_eq!((met.sent, met.received, met.forked), (1, 2, 0));
    assert_eq!(met.name.as_deref(), Some("ben"));
    for ty in ["customer", "item"] {
        assert_eq!(content(&ann, ty), content(&ben, ty));
    }
    assert_eq!(state(&ann, "item/i1"), "likely_valid");
    assert_eq!((outgoing(&ann), outgoing(&ben)), (3, 3), "nothing has a receipt yet");

    // Nothing is sent twice.
    let again = meet(&ben, &ann).await;
    assert_eq!((again.sent, again.received), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_carried_reaches_the_relay_under_its_authors_name_and_receipts_travel_back() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let cat = site.device("cat").await;
    for device in [&ann, &ben, &cat] {
        sync(device).await;
    }
    site.stop().await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ann, "item/i1", json!({"label": "tea", "stock": -2}));
    meet(&ann, &ben).await;
    meet(&ben, &cat).await;
    assert_eq!(state(&cat, "item/i1"), "likely_held");

    site.start_again().await;
    sync(&cat).await;
    let at_relay = site.record("item/i1").await.expect("cat carried it");
    assert_eq!(at_relay.state.word(), "held");
    assert_eq!(state(&cat, "item/i1"), "held");
    site.stop().await;

    // Ann, who wrote it, never saw the relay again.
    assert_eq!(outgoing(&ann), 2);
    meet(&cat, &ann).await;
    assert_eq!(state(&ann, "item/i1"), "held");
    assert_eq!(state(&ann, "customer/c1"), "valid");
    assert_eq!(outgoing(&ann), 0, "the relay's word came with cat");

    // The repair goes back the same way.
    put(&ann, "item/i1", json!({"stock": 5}));
    meet(&ann, &ben).await;
    site.start_again().await;
    sync(&ben).await;
    assert_eq!(site.record("item/i1").await.expect("it is there").state.word(), "valid");
    site.converges(&[&ann, &ben, &cat], &["customer", "item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_gets_everything_from_a_device_that_has_it() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    for n in 0..200 {
        put(&ann, &format!("customer/c{n}"), json!({"name": format!("customer {n}")}));
    }
    sync(&ann).await;
    let ben = site.device("ben").await;
    site.stop().await;
    put(&ann, "customer/c7", json!({"city": "Riga"}));
    // Ann has not heard that Ben joined.
    let met = meet(&ann, &ben).await;
    assert_eq!(met.sent, 201);
    assert_eq!(content(&ann, "customer"), content(&ben, "customer"));
    assert_eq!(outgoing(&ben), 1, "what the relay has judged has its word");
    assert_eq!(state(&ben, "customer/c8"), "valid");
    site.start_again().await;
    site.converges(&[&ben, &ann], &["customer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_writes_while_both_are_connected_reaches_the_other_at_once() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    site.stop().await;
    let listening = Listening::new(&ben);
    let address = listening.listener.address();
    let staying = tokio::spawn({
        let ann = ann.clone();
        async move { ann.stay_with(address).await }
    });
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    reaches(&ben, "customer/c1", "likely_valid").await;
    put(&ben, "customer/c2", json!({"name": "Harbour"}));
    reaches(&ann, "customer/c2", "likely_valid").await;

    // Who gives a meeting up leaves nothing of it behind.
    assert_eq!(ann.meetings().expect("it reads").len(), 1);
    staying.abort();
    assert!(staying.await.expect_err("it was given up").is_cancelled());
    assert_eq!(ann.meetings().expect("it reads"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_told_what_an_exchange_came_to() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    site.stop().await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    let mut events = ann.watch();
    let met = meet(&ben, &ann).await;
    assert_eq!((met.sent, met.received, met.proven), (0, 1, 1));
    let left = soon("she is told", async {
        loop {
            if let Event::Left(left) = events.recv().await.expect("the device is there") {
                return left;
            }
        }
    });
    let left = left.await;
    assert_eq!((left.name.as_deref(), left.sent, left.proven), (Some("ben"), 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_found_and_unknown_is_met_though_only_one_side_can_call() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    // Ann has not heard that Ben joined.
    let ben = site.device("ben").await;
    site.stop().await;
    put(&ben, "customer/c1", json!({"name": "Kiosk"}));
    let listener = |device: &Device| {
        device.listen("127.0.0.1:0".parse().expect("an address")).expect("a port")
    };
    let (anns, bens) = (listener(&ann), listener(&ben));
    let mut tasks = JoinSet::new();
    // Nobody answers at Ann's, as behind a firewall.
    tasks.spawn(async move { anns.keep_company().await.expect("loopback is there") });
    tasks.spawn({
        let bens = bens.clone();
        async move { bens.serve().await }
    });
    tasks.spawn(async move { bens.keep_company().await.expect("loopback is there") });
    reaches(&ann, "customer/c1", "likely_valid").await;
    assert_eq!(ann.meetings().expect("it reads")[0].name.as_deref(), Some("ben"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_turned_away_by_devices_that_have_heard_of_it() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let cat = site.device("cat").await;
    site.revoke("cat").await;
    sync(&ann).await;
    site.stop().await;
    put(&cat, "customer/c1", json!({"name": "Kiosk"}));
    let refused = try_meet(&cat, &ann).await;
    assert!(matches!(&refused, Err(MeetError::Refused { code: Code::Revoked, .. })), "{refused:?}");
    assert!(content(&ann, "customer").is_empty());
    // The knowledge travels from device to device.
    meet(&ann, &ben).await;
    let refused = try_meet(&ben, &cat).await;
    assert!(matches!(&refused, Err(MeetError::Refused { code: Code::Revoked, .. })), "{refused:?}");
    assert!(content(&ben, "customer").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_branches_of_one_device_are_both_kept_until_a_relay_decides() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    sync(&ben).await;
    ann.close().expect("it closes");
    drop(ann);
    site.copy("ann", "twin");
    disguise(&site.path("twin"), &site.path("ann"));
    site.stop().await;
    let open = |name| Device::open(&site.path(name)).expect("it opens");
    let (ann, twin) = (open("ann"), open("twin"));
    put(&ann, "customer/c1", json!({"city": "Riga"}));
    meet(&ann, &ben).await;
    put(&twin, "customer/c1", json!({"city": "Tartu"}));
    put(&twin, "customer/c2", json!({"name": "Harbour"}));

    let met = meet(&twin, &ben).await;
    assert_eq!(met.forked, 1);
    assert_eq!((forks(&ben).len(), forks(&twin).len()), (1, 1), "named on both");
    assert_eq!(forks(&ben)[0].aside, 2, "byte for byte");
    // Nothing is wedged: both go on, and nothing comes a second time.
    put(&ben, "item/i1", json!({"label": "tea", "stock": 1}));
    let again = meet(&ben, &twin).await;
    assert_eq!((again.sent, again.received), (1, 0));
    assert_eq!(state(&twin, "item/i1"), "likely_valid");

    // The relay decides for the branch that it has first; the other content is written again.
    site.start_again().await;
    sync(&ben).await;
    sync(&twin).await;
    sync(&ben).await;
    assert!(forks(&ben).is_empty() && forks(&twin).is_empty());
    site.converges(&[&ben, &twin], &["customer", "item"]).await;
    assert_eq!(fields(&ben, "customer/c2")["name"], "Harbour");
}

#[tokio::test(flavor = "multi_thread")]
async fn rings_stars_and_lines_converge_and_nobody_gets_anything_twice() {
    let mut site = Site::founded(CATALOG);
    let names = ["ann", "ben", "cat", "dan"];
    let mut devices = Vec::new();
    for name in names {
        devices.push(site.device(name).await);
    }
    site.stop().await;
    let shapes: [(&str, &[(usize, usize)]); 3] = [
        ("line", &[(0, 1), (1, 2), (2, 3), (2, 1), (1, 0)]),
        ("star", &[(1, 0), (2, 0), (3, 0), (1, 0), (2, 0)]),
        ("ring", &[(0, 1), (1, 2), (2, 3), (3, 0), (0, 1), (1, 2)]),
    ];
    for (shape, meetings) in shapes {
        for (device, name) in devices.iter().zip(names) {
            put(device, &format!("customer/{shape}-{name}"), json!({"name": name}));
            put(device, &format!("item/{shape}-{name}"), json!({"stock": 1}));
        }
        let mut handed = 0;
        for (caller, called) in meetings {
            let met = meet(&devices[*caller], &devices[*called]).await;
            handed += met.sent + met.received;
        }
        // Each of the four wrote two changes, and each of the others got them once.
        assert_eq!(handed, 4 * 2 * 3, "{shape}");
        for device in &devices {
            for ty in ["customer", "item"] {
                assert_eq!(content(device, ty), content(&devices[0], ty), "{shape}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_joined_on_two_branches_of_a_relay_meet_whoever_knows_whom() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    site.stop().await;
    site.copy("relay", "old");
    site.start_again().await;
    let (ben, eve) = (site.device("ben").await, site.device("eve").await);
    site.stop().await;
    std::fs::remove_dir_all(site.path("relay")).expect("nobody holds it");
    site.copy("old", "relay");
    site.start_again().await;
    let (cat, dan) = (site.device("cat").await, site.device("dan").await);
    // Theirs is the longer log.
    site.invite_many(20).await;
    sync(&cat).await;
    sync(&dan).await;
    sync(&ann).await;
    site.stop().await;
    let devices = [(&ann, "ann"), (&ben, "ben"), (&cat, "cat"), (&dan, "dan"), (&eve, "eve")];
    for (device, name) in devices {
        put(device, &format!("customer/{name}"), json!({ "name": name }));
    }
    let knows = |device: &Device, name: &str| {
        device.members().members().values().any(|member| member.name == name)
    };
    // Neither knows the other.
    assert!(!knows(&ben, "cat") && !knows(&cat, "ben"));
    assert_eq!(meet(&ben, &cat).await.received, 1);
    // Ben knows Dan by now, who has not heard of him.
    assert!(knows(&ben, "dan") && !knows(&dan, "ben"));
    assert_eq!(meet(&dan, &ben).await.received, 2);
    assert_eq!(content(&dan, "customer"), content(&ben, "customer"));
    assert_eq!(content(&dan, "customer").len(), 3);
    // Ann joined before, and went on with the other branch: Eve knows her, and calls.
    assert!(knows(&eve, "ann") && !knows(&ann, "eve"));
    assert_eq!(meet(&eve, &ann).await.received, 1);
    assert_eq!(content(&eve, "customer"), content(&ann, "customer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_log_longer_than_a_frame_reaches_whoever_joins_and_whoever_is_met() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    site.invite_many(9_000).await;
    let ben = site.device("ben").await;
    site.stop().await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    let (before, length) = (ann.members().len(), ben.members().len());
    assert!(length > before + 9_000);
    // Ann has not heard of any of them, nor of Ben.
    meet(&ann, &ben).await;
    assert_eq!(ann.members().len(), length);
    assert_eq!(content(&ann, "customer"), content(&ben, "customer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_has_at_most_one_window_sent_again() {
    const CUTS: u64 = 3;
    /// What a window and the introductions after a cut may take, in datagrams.
    const AGAIN: u64 = 64 * 1_024 + 16 * 1_024;
    let mut site = Site::founded(CATALOG);
    let writer = site.device("writer").await;
    let (whole, cut) = (site.device("whole").await, site.device("cut").await);
    sync(&writer).await;
    site.stop().await;
    let note = |n: usize| -> String {
        (0..4).map(|part| blake3::hash(&[n as u8, (n >> 8) as u8, part]).to_string()).collect()
    };
    for n in 0..1_500 {
        put(&writer, &format!("customer/c{n}"), json!({ "name": note(n) }));
    }
    let listening = Listening::new(&writer);
    let road = Proxy::start(listening.listener.address()).expect("a socket");
    let meet = async |device: &Device, patience| device.sync_with(road.address(), patience).await;

    meet(&whole, PATIENCE).await.expect("nothing is in the way");
    let uncut = road.passed();
    assert!(uncut > 200_000, "{uncut} bytes are too few to be cut");
    for nth in 1..=CUTS {
        road.break_after(uncut * nth / (2 * CUTS) + 777);
        let ended = meet(&cut, Duration::from_secs(1)).await;
        assert!(road.is_broken() && ended.is_err(), "the road broke, and {ended:?}");
        road.mend();
    }
    meet(&cut, PATIENCE).await.expect("nothing is in the way any more");
    let total = road.passed() - uncut;
    println!("{uncut} bytes without a cut, {total} with {CUTS}");
    assert!(total <= uncut + CUTS * AGAIN, "{uncut} bytes without a cut, {total} with {CUTS}");
    assert_eq!(content(&cut, "customer"), content(&writer, "customer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_contact_costs_what_the_difference_packs_to_and_loads_no_document_to_find_it() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let catalog = ann.catalog().expect("the relay sent one");
    let customers = catalog.ty(&TypeName::new("customer").expect("a name")).expect("a type");
    let edit = |n: usize, field: &str, text: String| {
        let key: RecordKey = format!("customer/c{n}").parse().expect("a record's name");
        let fields = json!({ field: text });
        (key, customers.edit_from_json(fields.as_object().expect("an object")).expect("fields"))
    };
    let all: Vec<_> = (0..1_000).map(|n| edit(n, "name", format!("customer number {n}"))).collect();
    ann.put_all(&all).expect("they are saved");
    for device in [&ann, &ben] {
        sync(device).await;
        device.close().expect("it closes");
    }
    site.stop().await;
    drop((ann, ben));
    let open = |name| Device::open(&site.path(name)).expect("it opens");
    let (ann, ben) = (open("ann"), open("ben"));

    // Nothing is lacking, and nothing is loaded to say so.
    assert_eq!(meet(&ann, &ben).await.proven, 1);
    let loaded = |device: &Device| {
        device.with_replica(|r| Ok::<_, ReplicaError>(r.loaded_documents())).expect("it reads")
    };
    assert_eq!((loaded(&ann), loaded(&ben)), (0, 0));

    let mut raw = 0;
    for (device, from) in [(&ann, 0), (&ben, 500)] {
        let towns: Vec<_> = (from..from + 100)
            .map(|n| edit(n, "city", format!("town {}", blake3::hash(&[n as u8]).to_hex())))
            .collect();
        device.put_all(&towns).expect("they are saved");
        let waiting = device.with_replica(|replica| {
            let id = *replica.segments().keys().next().expect("there is one");
            replica.outgoing_batch(&id, 0, usize::MAX)
        });
        let waiting = waiting.expect("it reads").expect("they wait");
        raw += waiting.chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
    }
    let met = meet(&ann, &ben).await;
    assert_eq!((met.sent, met.received), (100, 100));
    let bytes = met.bytes_sent + met.bytes_received;
    println!("{bytes} bytes for {raw} of changes: {:.2}", bytes as f64 / raw as f64);
    // Besides the changes: two introductions, standpoints, heads and proofs.
    assert!(bytes <= raw / 4 + 2_048, "{bytes} bytes for {raw}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_either_side_has_paused_is_not_exchanged_between_devices() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    site.stop().await;
    for (device, name) in [(&ann, "ann"), (&ben, "ben")] {
        put(device, &format!("customer/{name}"), json!({ "name": name }));
        put(device, &format!("item/{name}"), json!({ "label": name, "stock": 1 }));
    }
    let item = TypeName::new("item").expect("a name");
    for (pauses, calls) in [(&ann, &ann), (&ann, &ben), (&ben, &ann)] {
        pauses.pause(Some(&item)).expect("it is a type");
        let other = if calls.name() == "ann" { &ben } else { &ann };
        meet(calls, other).await;
        assert_eq!(content(&ann, "customer"), content(&ben, "customer"));
        assert_eq!((content(&ann, "item").len(), content(&ben, "item").len()), (1, 1));
        pauses.resume(None).expect("it is kept");
    }
    meet(&ann, &ben).await;
    assert_eq!(content(&ann, "item"), content(&ben, "item"));
    assert_eq!(content(&ann, "item").len(), 2);
}
