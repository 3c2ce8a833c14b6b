//! Lanes of files that somebody opens by hand: what is not said by the book is refused, gets nobody a file
//! that is not his, spoils nothing that others have begun, and tells nobody what is here.

use crate::support::attached::{attach, content, file, key, stored, visits_of};
use crate::support::wire::{Raw, Wire};
use crate::support::{PATIENCE, Site, put, soon, sync};
use bytes::Bytes;
use fieldkeep_device::{Device, FetchError};
use fieldkeep_link::{KeyFile, Lane};
use fieldkeep_model::{BlobHash, BlobTree, TreeBuilder};
use fieldkeep_protocol::blob::{BLOB_FRAME_MAX, Download, Got, Possession, Ready, Upload, Whole};
use fieldkeep_protocol::{FileFrame, FrameBuffer, priority};
use fieldkeep_store::home;
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.photos]
kind = "attachment"
media = ["image/*", "text/plain"]
max_size = "64 MiB"
max_count = 20
"#;

/// Two outlets, with a device each: Eve's keys are in the hands of somebody who writes every byte himself.
struct Town {
    site: Site,
    ann: Device,
    eve: Raw,
}

impl Town {
    /// Ann's visit names those files; so does Eve's, and more that she has made up.
    async fn with(files: &[&[u8]], more: &[(BlobHash, u64)]) -> Self {
        let site = Site::founded(CATALOG);
        let ann = site.device("ann").await;
        put(&ann, "visit/a1", json!({"outlet": "41"}));
        for (n, bytes) in files.iter().enumerate() {
            attach(&ann, "visit/a1", &file(&site, &format!("{n}.png"), bytes));
        }
        sync(&ann).await;
        let ticket = site.invited("eve", visits_of("42"), i64::MAX).await;
        let device = site.join(&ticket, "eve").await;
        let own = files.iter().map(|bytes| (tree(bytes).hash(), bytes.len() as u64));
        let named = own.chain(more.iter().copied()).map(|(hash, size)| {
            json!({"id": hash.to_string(), "media": "image/png", "name": "x.png", "size": size})
        });
        put(&device, "visit/e1", json!({"outlet": "42", "photos": named.collect::<Vec<_>>()}));
        sync(&device).await;
        drop(device);
        let seed = KeyFile::open(home::key(&site.path("eve"))).expect("her keys");
        let eve = Raw { seed, ..Raw::stranger(&ticket, 0) };
        Self { site, ann, eve }
    }

    async fn wire(&self) -> Wire {
        self.eve.introduced().await.0
    }
}

fn tree(bytes: &[u8]) -> BlobTree {
    let mut builder = TreeBuilder::new(bytes.len() as u64).expect("a small file");
    builder.take(bytes).expect("as long as said");
    builder.finish().expect("all of it")
}

fn upload(bytes: &[u8], record: &str) -> Upload {
    let tree = tree(bytes);
    Upload { hash: tree.hash(), record: key(record), size: tree.size(), tree: tree.to_bytes() }
}

/// A lane on which every byte is the test's own.
struct Hand {
    lane: Lane,
    buffer: FrameBuffer,
}

impl Hand {
    async fn over(wire: &Wire) -> Self {
        let lane = soon("a lane", wire.sender.open_lane(priority::BLOB)).await;
        Self { lane: lane.expect("the connection is there"), buffer: FrameBuffer::default() }
    }

    /// Sends bytes as they are. A lane that is over takes none, and that is no failure here.
    async fn bytes(&mut self, bytes: &[u8]) {
        let sent = self.lane.writer.write(Bytes::copy_from_slice(bytes));
        let _ = soon("room to send", sent).await;
    }

    async fn say(&mut self, frame: &FileFrame) {
        self.bytes(&frame.encode()).await;
    }

    /// The next frame; nothing where the lane is over.
    async fn hear(&mut self) -> Option<FileFrame> {
        loop {
            if let Some(frame) = self.buffer.next(BLOB_FRAME_MAX).expect("relays say frames") {
                return Some(frame);
            }
            let bytes = soon("an answer", self.lane.reader.read()).await.ok()??;
            self.buffer.push(&bytes);
        }
    }

    /// What is answered: a frame's name, or the code under which it is refused.
    async fn said(&mut self) -> String {
        loop {
            return match self.hear().await {
                Some(FileFrame::Got(_)) => continue,
                Some(FileFrame::Ready(Ready { from })) => format!("ready from {from}"),
                Some(FileFrame::Unfit(unfit)) => unfit.code,
                Some(frame) => frame.name().to_lowercase(),
                None => "nothing".to_owned(),
            };
        }
    }
}

/// What is answered to a file that is brought, to a wrong proof of it, and to wrong bytes.
async fn brought(wire: &Wire, upload: Upload, bytes: &[u8]) -> Vec<String> {
    let mut talk = Hand::over(wire).await;
    talk.say(&FileFrame::Upload(upload)).await;
    let mut answers = vec![talk.said().await];
    if answers == ["prove"] {
        talk.say(&FileFrame::Possession(Possession { digest: [7; 32] })).await;
        answers.push(talk.said().await);
    }
    if answers.last().is_some_and(|answer| answer.starts_with("ready")) {
        talk.bytes(bytes).await;
        answers.push(talk.said().await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_brought_otherwise_than_a_record_names_it_is_refused() {
    let (large, too_large) = (content(150_000, 1), BlobHash([9; 32]));
    let more = [(tree(&large).hash(), 150_000), (too_large, 65 << 20)];
    let town = Town::with(&[], &more).await;
    let wire = town.wire().await;
    let honest = upload(&large, "visit/e1");
    let mut torn = honest.clone();
    torn.tree[0] ^= 1;
    let cases = [
        (Upload { record: key("visit/a1"), ..honest.clone() }, "not-named"),
        (Upload { hash: BlobHash([3; 32]), ..honest.clone() }, "not-named"),
        (Upload { size: 149_999, ..honest.clone() }, "size"),
        (Upload { hash: too_large, size: 65 << 20, ..honest.clone() }, "limit"),
        (torn, "tree"),
        (Upload { tree: Vec::new(), ..honest.clone() }, "tree"),
    ];
    for (upload, code) in cases {
        assert_eq!(brought(&wire, upload, &[]).await, [code]);
    }
    // More bytes than it has are not taken; what there is of it by then is right, or nothing is kept.
    let longer = [&large[..], b"and more"].concat();
    brought(&wire, honest.clone(), &longer).await;
    let kept = stored(&town.site, "relay", &honest.hash);
    assert!(kept.is_none_or(|kept| kept == large));
    let more = stored(&town.site, "relay", &too_large);
    assert_eq!(more, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_have_a_file_does_not_learn_whether_it_is_here() {
    let (here, large) = (content(9_000, 1), content(150_000, 2));
    let absent = content(9_000, 3);
    let town = Town::with(&[&here, &large], &[(tree(&absent).hash(), 9_000)]).await;
    let wire = town.wire().await;
    let wrong = vec![0; 9_000];
    let [known, unknown] = [&here, &absent].map(|bytes| upload(bytes, "visit/e1"));
    let answers = brought(&wire, known, &wrong).await;
    assert_eq!(answers, ["prove", "ready from 0", "wrong"]);
    assert_eq!(brought(&wire, unknown, &wrong).await, answers, "in the same words");
    // She who has the tree of a large one is asked for all of it, too.
    let answers = brought(&wire, upload(&large, "visit/e1"), &vec![0; 150_000]).await;
    assert_eq!(answers, ["prove", "ready from 0", "wrong"]);
    for (bytes, record) in [(&here, "visit/e1"), (&here, "visit/a1"), (&absent, "visit/e1")] {
        let mut talk = Hand::over(&wire).await;
        let asked = Download { hash: tree(bytes).hash(), record: key(record) };
        talk.say(&FileFrame::Download(asked)).await;
        assert_eq!(talk.said().await, "absent");
    }
    for bytes in [&here, &large] {
        let hash = tree(bytes).hash();
        assert_eq!(stored(&town.site, "relay", &hash).as_ref(), Some(bytes), "it is as it was");
    }

    // Who has it shows that, and nothing is sent again.
    let mut talk = Hand::over(&wire).await;
    talk.say(&FileFrame::Upload(upload(&here, "visit/e1"))).await;
    let prove = talk.hear().await.expect("she is asked");
    let FileFrame::Prove(prove) = prove else { panic!("{prove:?}") };
    let digest = *blake3::keyed_hash(&prove.salt, &here).as_bytes();
    talk.say(&FileFrame::Possession(Possession { digest })).await;
    assert_eq!(talk.said().await, "whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_begun_to_bring_is_his_alone() {
    let large = content(400_000, 4);
    let named = [(tree(&large).hash(), 400_000)];
    let town = Town::with(&[], &named).await;
    // Ann's own keys, by hand as well.
    let path = file(&town.site, "a.png", &large);
    let hash = attach(&town.ann, "visit/a1", &path);
    town.ann.pause_files(true).expect("it writes");
    sync(&town.ann).await;
    let seed = KeyFile::open(home::key(&town.site.path("ann"))).expect("her keys");
    let ann = Raw { seed, ..town.eve.clone() }.introduced().await.0;
    let mut begun = Hand::over(&ann).await;
    begun.say(&FileFrame::Upload(upload(&large, "visit/a1"))).await;
    assert_eq!(begun.said().await, "ready from 0");
    begun.bytes(&large[..200_000]).await;
    let got = async {
        while !matches!(begun.hear().await, Some(FileFrame::Got(Got { at })) if at >= 131_072) {}
    };
    soon("the relay has got some", got).await;

    // Eve does not go on with it: she would pass for somebody who has all of it.
    let eve = town.wire().await;
    let answers = brought(&eve, upload(&large, "visit/e1"), &large[200_000..]).await;
    assert_eq!(answers, ["ready from 0", "wrong"]);
    drop(begun);
    let again = async {
        loop {
            let mut talk = Hand::over(&ann).await;
            talk.say(&FileFrame::Upload(upload(&large, "visit/a1"))).await;
            let answer = talk.said().await;
            if answer != "busy" {
                return (talk, answer);
            }
        }
    };
    let (mut talk, answer) = soon("it goes on", again).await;
    let from = answer.strip_prefix("ready from ").and_then(|from| from.parse().ok());
    let from: usize = from.expect("it is to go on");
    assert!((131_072..=200_000).contains(&from), "what she spoiled is hers: {from}");
    talk.bytes(&large[from..]).await;
    assert_eq!(talk.said().await, "whole");
    assert_eq!(stored(&town.site, "relay", &hash), Some(large));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_said_on_a_lane_ends_that_lane_and_nothing_else() {
    let bytes = content(9_000, 5);
    let town = Town::with(&[&bytes], &[]).await;
    let wire = town.wire().await;
    let hash = tree(&bytes).hash();
    let first = [
        FileFrame::Ready(Ready { from: 0 }),
        FileFrame::Whole(Whole { hash }),
        FileFrame::Possession(Possession { digest: [1; 32] }),
    ];
    let nonsense = [&[0xff; 64][..], &[61, 0xff, 0xff, 0x7f], &[61, 3, 1, 2, 3], &[99, 0]];
    let said_first = first.iter().map(FileFrame::encode);
    for bytes in said_first.chain(nonsense.map(<[u8]>::to_vec)) {
        let mut talk = Hand::over(&wire).await;
        talk.bytes(&bytes).await;
        assert_eq!(talk.said().await, "nothing", "{bytes:?}");
    }
    // Behind what may come, too.
    let mut talk = Hand::over(&wire).await;
    talk.say(&FileFrame::Upload(upload(&bytes, "visit/e1"))).await;
    assert_eq!(talk.said().await, "prove");
    talk.say(&FileFrame::Got(Got { at: 1 })).await;
    assert_eq!(talk.said().await, "nothing");
    let answers = brought(&wire, upload(&bytes, "visit/e1"), &bytes).await;
    assert_eq!(answers, ["prove", "ready from 0", "whole"], "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_or_a_device_that_gives_other_bytes_gives_nothing() {
    let bytes = content(150_000, 6);
    let mut town = Town::with(&[&bytes], &[]).await;
    let ben = town.site.device("ben").await;
    sync(&ben).await;
    let hash = tree(&bytes).hash();
    let mut wrong = bytes.clone();
    wrong[140_000] ^= 1;
    let spoils = |of: &str| {
        let path = town.site.path(of).join("blobs").join(hash.to_string());
        std::fs::write(&path, &wrong).expect("it is written");
    };
    spoils("relay");
    spoils("ann");
    let fetched = soon("an answer", ben.fetch(&key("visit/a1"), &hash, PATIENCE)).await;
    assert!(matches!(&fetched, Err(FetchError::Refused(_))), "{fetched:?}");
    assert_eq!(stored(&town.site, "ben", &hash), None);

    town.site.stop().await;
    let listener = town.ann.listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = listener.address();
    let listening = tokio::spawn(async move { listener.serve().await });
    let path = town.site.path("ben");
    drop(ben);
    std::fs::write(path.join("device.toml"), "[files]\ndownload = \"all\"\n")
        .expect("it is written");
    let ben = Device::open(&path).expect("it opens");
    soon("they meet", ben.sync_with(address, PATIENCE)).await.expect("they are members");
    assert_eq!(stored(&town.site, "ben", &hash), None);
    listening.abort();
}
