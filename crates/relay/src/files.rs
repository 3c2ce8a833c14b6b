//! The shell of attached files: lanes that devices open, beside the engine's thread. The engine says
//! who may; bytes never pass through it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fieldkeep_link::{Lane, carrier};
use fieldkeep_model::{BlobHash, PublicKey};
use fieldkeep_protocol::blob::{
    Download, Prove, Ready, Removal, Removals, Removed, Unfit, Upload, Whole,
};
use fieldkeep_protocol::{FileFrame, priority};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{BlobFiles, StoreError};
use fieldkeep_transfer::{Brought, Talk, TransferError, answer, possession, take};
use tokio::sync::Notify;

use crate::engine::Found;
use crate::limits::{Amount, Throttle};
use crate::server::Handle;

/// The files of a relay that serves.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    files: BlobFiles,
    engine: Handle,
    coming: Arc<Mutex<Coming>>,
    throttle: Arc<Throttle>,
}

/// Files that come in, from whom, and how that is ended.
type Coming = BTreeMap<BlobHash, (PublicKey, Arc<Notify>)>;

impl Files {
    pub(crate) fn new(directory: &Path, engine: Handle, throttle: Arc<Throttle>) -> Self {
        Self { files: BlobFiles::of(directory), engine, coming: Arc::default(), throttle }
    }

    /// Serves the lanes of a connection until it ends.
    pub(crate) async fn serve(self, sender: carrier::Sender) {
        let key = sender.peer();
        // How many there are at once is bounded by the connection.
        while let Ok(lane) = sender.accept_lane(priority::BLOB).await {
            let files = self.clone();
            tokio::spawn(async move {
                let asked = Amount { bytes: 0, changes: 1 };
                tokio::time::sleep(files.throttle.pause(key, asked)).await;
                if let Err(error) = files.lane(lane, key).await {
                    tracing::debug!(%error, "a file did not go over");
                }
            });
        }
    }

    async fn lane(&self, lane: Lane, key: PublicKey) -> Result<(), TransferError> {
        let mut talk = Talk::over(lane);
        let frame = talk.hear().await?;
        if let FileFrame::Upload(upload) = frame {
            self.brought(&mut talk, key, upload).await
        } else if let FileFrame::Download(download) = frame {
            self.wanted(&mut talk, key, download).await
        } else if let FileFrame::Removals(Removals { since }) = frame {
            self.removals(&mut talk, key, since).await
        } else {
            Err(TransferError::Nonsense)
        }
    }

    async fn brought(
        &self,
        talk: &mut Talk,
        key: PublicKey,
        upload: Upload,
    ) -> Result<(), TransferError> {
        let (hash, record) = (upload.hash, upload.record.clone());
        let whole = FileFrame::Whole(Whole { hash });
        let tree = match self.ask(move |engine| engine.file_brought(&key, &upload)).await? {
            Brought::Whole => return talk.conclude(&whole).await,
            Brought::Unfit(unfit) => return talk.conclude(&FileFrame::Unfit(unfit)).await,
            Brought::Prove(tree) => {
                let salt = drawn()?;
                talk.say(&FileFrame::Prove(Prove { salt })).await?;
                let FileFrame::Possession(shown) = talk.hear().await? else {
                    return Err(TransferError::Nonsense);
                };
                let file = self.files.open(&hash)?;
                let expected = off(move || possession(&file, &salt)).await?;
                if shown.digest != expected {
                    let text = "what was said of the file is not so: nothing was opened";
                    return talk.conclude(&unfit("possession", text, false)).await;
                }
                tree
            }
            Brought::Take(tree) => {
                let files = self.files.clone();
                let Some(incoming) = off(move || files.receive(tree)).await? else {
                    self.end_of_same(&hash, &key);
                    let text = "this file comes in at the moment";
                    return talk.conclude(&unfit("busy", text, true)).await;
                };
                let ended = self.begin(hash, key);
                let coming = async {
                    talk.say(&FileFrame::Ready(Ready { from: incoming.at() })).await?;
                    let before = AtomicU64::new(incoming.at());
                    let progress = |at: u64| {
                        let bytes = at.saturating_sub(before.swap(at, Ordering::Relaxed));
                        self.throttle.pause(key, Amount { bytes, changes: 0 })
                    };
                    take(talk, incoming, progress).await
                };
                let taken = tokio::select! {
                    taken = coming => taken,
                    () = ended.notified() => Err(TransferError::Nonsense),
                };
                self.coming().remove(&hash);
                match taken {
                    Ok(tree) => tree,
                    Err(TransferError::Wrong(at)) => {
                        let text = format!("what came from byte {at} on is not the file's");
                        return talk.conclude(&unfit("wrong", &text, true)).await;
                    }
                    Err(TransferError::Store(error)) => {
                        let text = format!("the relay cannot store it: {error}");
                        return talk.conclude(&unfit("storage", &text, true)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let files = self.files.clone();
        // On the thread that removes files: it is here when it is said to be.
        let shown = move |engine: &mut crate::Engine| {
            let there = files.is_there(&hash);
            there.then(|| engine.file_shown(&key, &record, &tree)).transpose()
        };
        match self.ask(shown).await? {
            Some(true) => talk.conclude(&whole).await,
            Some(false) => {
                let text = "no record that this device may write names the file any more";
                talk.conclude(&unfit("not-named", text, true)).await
            }
            None => {
                let text = "the file was removed meanwhile: it is taken in anew";
                talk.conclude(&unfit("busy", text, true)).await
            }
        }
    }

    async fn wanted(
        &self,
        talk: &mut Talk,
        key: PublicKey,
        download: Download,
    ) -> Result<(), TransferError> {
        let hash = download.hash;
        let asked = move |engine: &mut crate::Engine| engine.file_wanted(&key, &download);
        match self.ask(asked).await? {
            Found::Here(tree) => answer(talk, Some((tree, self.files.open(&hash)?))).await,
            Found::Absent => answer(talk, None).await,
            Found::Removed(time) => {
                let files = vec![Removal { hash, time: Some(time) }];
                talk.conclude(&FileFrame::Removed(Removed { number: 0, files })).await
            }
        }
    }

    async fn removals(
        &self,
        talk: &mut Talk,
        key: PublicKey,
        since: u64,
    ) -> Result<(), TransferError> {
        let removed = self.ask(move |engine| engine.removals(&key, since)).await?;
        talk.conclude(&FileFrame::Removed(removed)).await
    }

    fn begin(&self, hash: BlobHash, key: PublicKey) -> Arc<Notify> {
        let ended = Arc::new(Notify::new());
        self.coming().insert(hash, (key, Arc::clone(&ended)));
        ended
    }

    /// Whose signal was lost brings the file anew: what waits for more on the connection of before is
    /// ended.
    fn end_of_same(&self, hash: &BlobHash, key: &PublicKey) {
        if let Some((_, ended)) = self.coming().get(hash).filter(|(of, _)| of == key) {
            ended.notify_one();
        }
    }

    fn coming(&self) -> MutexGuard<'_, Coming> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the engine; what that changed is durable when it answers.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut crate::Engine) -> Result<T, ReplicaError> + Send + 'static,
    ) -> Result<T, TransferError> {
        let gone = || StoreError::Disk("the relay stops".into());
        let asked = self.engine.call(move |engine| (question(engine), engine.unsaved()));
        let (answer, before) = asked.await.ok_or_else(gone)?;
        let unsaved = self.engine.call(|engine| engine.unsaved()).await.ok_or_else(gone)?;
        if unsaved != before {
            return Err(StoreError::Full.into());
        }
        Ok(answer.map_err(|error| StoreError::Disk(error.to_string()))?)
    }
}

fn unfit(code: &str, text: &str, again: bool) -> FileFrame {
    FileFrame::Unfit(Unfit { code: code.to_owned(), text: text.to_owned(), again })
}

/// Does something with the disk, off the async threads.
async fn off<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(act).await;
    done.unwrap_or_else(|error| Err(StoreError::Disk(error.to_string())))
}

fn drawn() -> Result<[u8; 32], StoreError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Disk(error.to_string()))?;
    Ok(bytes)
}

/// Takes removed files off the disk. What they were removed with has to be durable; that they are gone
/// is so with the next commit.
///
/// # Errors
/// When the store fails. What the disk does not let go is tried again when the relay starts.
pub fn sweep(engine: &mut crate::Engine, directory: &Path) -> Result<(), ReplicaError> {
    let lying = engine.lying()?;
    if lying.is_empty() {
        return Ok(());
    }
    match BlobFiles::of(directory).remove_whole(&lying) {
        Ok(()) => engine.note_gone(&lying),
        Err(error) => {
            tracing::error!(%error, "a removed file stays on the disk until the next start");
            Ok(())
        }
    }
}
