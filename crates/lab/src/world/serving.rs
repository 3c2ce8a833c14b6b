//! The lanes of files that the relay serves: its engine says who may bring a file and who may have it, and
//! what that changed is on the disk before anything is answered.

use fieldkeep_model::{BlobHash, BlobTree, PublicKey, RecordKey};
use fieldkeep_protocol::blob::{self, BLOB_FRAME_MAX, Download, Prove, Ready, Tree, Unfit, Whole};
use fieldkeep_protocol::{FileFrame, FrameBuffer};
use fieldkeep_relay::{Brought, Engine, Found};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::StoreError;

use super::World;
use super::cabinet::{Coming, possession, tree_of};
use super::network::{LineId, Side};
use super::oracle::{Checked, Oracle};
use super::plant::Plant;

/// A lane: its connection and its stream.
type LaneId = (LineId, u64);

/// What the relay does on a lane.
#[derive(Debug)]
enum Serving {
    Hears,
    Takes(RecordKey, Coming),
    Proves(blob::Upload, [u8; 32]),
    Gives(BlobHash),
    Over,
}

/// A lane that the relay serves.
#[derive(Debug)]
pub(crate) struct Served {
    buffer: FrameBuffer,
    serving: Serving,
}

impl World {
    /// The relay hears something on a lane.
    pub(crate) fn relay_lane_hears(&mut self, line: LineId, stream: u64, bytes: &[u8]) -> Checked {
        if !self.relay.peers.contains_key(&line) || self.relay.engine.is_none() {
            return Ok(());
        }
        let new = || Served { buffer: FrameBuffer::default(), serving: Serving::Hears };
        let mut served = self.relay.lanes.remove(&(line, stream)).unwrap_or_else(new);
        served.buffer.push(bytes);
        self.serves_lane((line, stream), &mut served)?;
        // It may have ended with the connection meanwhile.
        if self.relay.peers.contains_key(&line) {
            self.relay.lanes.insert((line, stream), served);
        }
        Ok(())
    }

    fn serves_lane(&mut self, lane: LaneId, served: &mut Served) -> Checked {
        loop {
            if let Serving::Takes(key, coming) = &mut served.serving {
                let rest = served.buffer.rest();
                let (taken, tree) = (self.relay.files.take(coming, &rest), coming.tree.clone());
                let key = key.clone();
                return match taken {
                    Ok(false) => Ok(()),
                    Ok(true) => {
                        served.serving = Serving::Over;
                        self.is_shown(lane, &key, &tree)
                    }
                    Err(_) => {
                        served.serving = Serving::Over;
                        self.refuses(lane, "wrong", true);
                        Ok(())
                    }
                };
            }
            let Ok(Some(frame)) = served.buffer.next::<FileFrame>(BLOB_FRAME_MAX) else {
                return Ok(());
            };
            let serving = std::mem::replace(&mut served.serving, Serving::Over);
            served.serving = match (serving, frame) {
                (Serving::Hears, FileFrame::Upload(upload)) => self.is_brought(lane, upload)?,
                (Serving::Hears, FileFrame::Download(asked)) => self.is_wanted(lane, &asked)?,
                (Serving::Proves(upload, salt), FileFrame::Possession(shown)) => {
                    let whole = self.relay.files.whole.get(&upload.hash);
                    let is_shown = whole.is_some() && shown.digest == possession(whole, &salt);
                    match BlobTree::new(upload.hash, upload.size, &upload.tree) {
                        Ok(tree) if is_shown => {
                            self.is_shown(lane, &upload.record, &tree)?;
                            Serving::Over
                        }
                        Ok(tree) => self.takes(lane, upload.record, tree),
                        Err(_) => Serving::Over,
                    }
                }
                (Serving::Gives(hash), FileFrame::Ready(ready)) => {
                    let bytes = self.relay.files.whole.get(&hash).cloned().unwrap_or_default();
                    let from = (ready.from as usize).min(bytes.len());
                    self.gives(lane.0, Side::Relay, lane.1, &bytes[from..]);
                    Serving::Gives(hash)
                }
                (Serving::Gives(_), FileFrame::Whole(_)) => Serving::Over,
                (_, frame) => {
                    let text = format!("the relay is told {frame:?} of a file");
                    return Err(self.violation(Oracle::Contained, text));
                }
            };
        }
    }

    fn is_brought(&mut self, lane: LaneId, upload: blob::Upload) -> Checked<Serving> {
        let Some(key) = self.caller(lane.0) else { return Ok(Serving::Over) };
        let (hash, record) = (upload.hash, upload.record.clone());
        let small = upload.tree.is_empty();
        let brought = self.asks_relay(|engine| engine.file_brought(&key, &upload))?;
        Ok(match brought {
            None => Serving::Over,
            Some(Brought::Whole) => {
                self.says(lane.0, Side::Relay, lane.1, &FileFrame::Whole(Whole { hash }));
                Serving::Over
            }
            Some(Brought::Unfit(unfit)) => {
                self.says(lane.0, Side::Relay, lane.1, &FileFrame::Unfit(unfit));
                Serving::Over
            }
            Some(Brought::Take(tree)) if !small => self.takes(lane, record, tree),
            Some(Brought::Prove(_) | Brought::Take(_)) => {
                let salt = *blake3::hash(&self.dice.roll().to_be_bytes()).as_bytes();
                self.says(lane.0, Side::Relay, lane.1, &FileFrame::Prove(Prove { salt }));
                Serving::Proves(upload, salt)
            }
        })
    }

    /// The bytes of a file are to come, unless they do already.
    fn takes(&mut self, lane: LaneId, record: RecordKey, tree: BlobTree) -> Serving {
        let hash = tree.hash();
        let same = |served: &Served| match &served.serving {
            Serving::Takes(_, coming) => coming.tree.hash() == hash,
            Serving::Hears | Serving::Proves(..) | Serving::Gives(_) | Serving::Over => false,
        };
        let busy = self.relay.lanes.iter().find(|(_, served)| same(served));
        if let Some(busy) = busy.map(|(busy, _)| *busy) {
            // Whose signal was lost brings it anew: that of before is ended.
            if self.caller(busy.0) == self.caller(lane.0) {
                self.relay.lanes.remove(&busy);
            }
            self.refuses(lane, "busy", true);
            return Serving::Over;
        }
        let coming = self.relay.files.receive(tree);
        let ready = FileFrame::Ready(Ready { from: coming.at });
        self.says(lane.0, Side::Relay, lane.1, &ready);
        Serving::Takes(record, coming)
    }

    fn is_wanted(&mut self, lane: LaneId, asked: &Download) -> Checked<Serving> {
        let Some(key) = self.caller(lane.0) else { return Ok(Serving::Over) };
        // Nothing is collected in this world.
        let given = match self.asks_relay(|engine| engine.file_wanted(&key, asked))? {
            Some(Found::Here(tree)) => Some(tree),
            Some(Found::Removed(_) | Found::Absent) | None => None,
        };
        let open = self.planted(Plant::OpenDoor).then(|| self.relay.files.whole.get(&asked.hash));
        let given = given.or_else(|| open.flatten().map(|bytes| tree_of(bytes)));
        Ok(match given {
            Some(tree) => {
                let told = Tree { size: tree.size(), tree: tree.to_bytes(), waits: None };
                self.says(lane.0, Side::Relay, lane.1, &FileFrame::Tree(told));
                Serving::Gives(asked.hash)
            }
            None => {
                self.refuses(lane, "absent", true);
                Serving::Over
            }
        })
    }

    /// Who brought a file has shown that he has it.
    fn is_shown(&mut self, lane: LaneId, record: &RecordKey, tree: &BlobTree) -> Checked {
        let Some(key) = self.caller(lane.0) else { return Ok(()) };
        match self.asks_relay(|engine| engine.file_shown(&key, record, tree))? {
            Some(true) => {
                let whole = FileFrame::Whole(Whole { hash: tree.hash() });
                self.says(lane.0, Side::Relay, lane.1, &whole);
            }
            Some(false) => self.refuses(lane, "not-named", true),
            // The disk is full: the lane ends.
            None => {}
        }
        Ok(())
    }

    fn refuses(&mut self, lane: LaneId, code: &str, again: bool) {
        let unfit = Unfit { code: code.to_owned(), text: code.to_owned(), again };
        self.says(lane.0, Side::Relay, lane.1, &FileFrame::Unfit(unfit));
    }

    fn caller(&self, line: LineId) -> Option<PublicKey> {
        let at = self.network.line(line)?.device;
        Some(self.devices[at].tls)
    }

    /// Asks the relay's engine; what that changed is durable when there is an answer.
    fn asks_relay<T>(
        &mut self,
        question: impl FnOnce(&mut Engine) -> Result<T, ReplicaError>,
    ) -> Checked<Option<T>> {
        let Some(engine) = self.relay.engine.as_mut() else { return Ok(None) };
        let before = engine.unsaved();
        let answer = question(engine);
        let outputs = self.relay_commits()?;
        self.route(outputs);
        self.relay_saw()?;
        let unsaved = self.relay.engine.as_ref().map(Engine::unsaved);
        match answer {
            Ok(answer) => Ok(Some(answer).filter(|_| unsaved == Some(before))),
            Err(ReplicaError::Store(StoreError::Full)) => Ok(None),
            Err(error) => Err(self.violation(Oracle::Contained, error.to_string())),
        }
    }
}
