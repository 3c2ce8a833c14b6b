//! Exchanging files beside a session: one is sent and one fetched at a time, for as long as the connection
//! lasts. What was begun goes on where it is with the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use fieldkeep_link::LaneError;
use fieldkeep_link::carrier::Sender;
use fieldkeep_model::{BlobHash, BlobTree, PublicKey, RecordKey};
use fieldkeep_protocol::blob::{Download as Wanted, Possession, Ready, Unfit, Whole};
use fieldkeep_protocol::{FileFrame, priority};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{BlobFiles, Blobs as _, StoreError, Upload};
use fieldkeep_transfer::{Talk, TransferError, answer, give, possession, take};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::removed_on;
use crate::device::{Device, Event, now};
use crate::engine::note_fetched;
use crate::settings::Download;
use crate::sync::Way;

/// The pause before something is tried again that may be otherwise in a moment.
const MOMENT: Duration = Duration::from_millis(200);
/// How often it is tried again on one connection.
const TRIES: u32 = 25;
/// How often bytes that are not the file's are sent again: they may be wrong here.
const WRONG: u32 = 2;
/// How often another device is asked for a file.
const PEER_TRIES: u32 = 5;
/// Files that are looked at for what is to be fetched by rule.
const LOOKED_AT: u32 = 64;

impl Device {
    /// Exchanges files over a connection for as long as this is polled. The relay gets what it lacks, and
    /// is asked for what is lacking here; another device is asked, and given what it asks for and may
    /// have.
    pub(crate) async fn exchange_files(&self, way: Way, sender: &Sender) -> Infallible {
        match way {
            Way::Relay => {
                {
                    let mut book = self.0.transfers.open();
                    (book.rested, book.unheard) = (BTreeSet::new(), false);
                }
                let sent = self.each(sender, Self::next_upload, Self::send_file);
                let fetched = self.each(sender, Self::next_download, Self::fetch_file);
                tokio::join!(sent, fetched, self.hear_of_removed(sender));
            }
            Way::Peer(_) => {
                tokio::join!(self.give_files(sender), self.fetch_files_from_peer(sender));
            }
        }
        std::future::pending().await
    }

    async fn give_files(&self, sender: &Sender) {
        let key = sender.peer();
        while let Ok(lane) = sender.accept_lane(priority::BLOB).await {
            if let Err(error) = self.give_file(Talk::over(lane), &key).await {
                tracing::debug!(%error, "a file did not go over");
            }
        }
    }

    async fn give_file(&self, mut talk: Talk, key: &PublicKey) -> Result<(), TransferError> {
        let FileFrame::Download(asked) = talk.hear().await? else {
            return Err(TransferError::Nonsense);
        };
        let found = match self.engine().file_for(key, &asked)? {
            Some(tree) => Some((tree, BlobFiles::of(self.directory()).open(&asked.hash)?)),
            None => None,
        };
        answer(&mut talk, found).await
    }

    /// What is lacking here another device may have; what it does not give, the relay may.
    async fn fetch_files_from_peer(&self, sender: &Sender) {
        let mut events = self.watch();
        let mut refused = BTreeMap::new();
        loop {
            let looked = self.0.transfers.looked.notified();
            let Ok(found) = self.next_download() else { return };
            let found = found.filter(|(hash, _)| refused.get(hash).is_none_or(|n| *n < PEER_TRIES));
            let Some(found) = found.filter(|_| !self.files_paused().unwrap_or(true)) else {
                tokio::select! {
                    () = looked => {}
                    () = changed(&mut events) => {}
                }
                continue;
            };
            let fetched = self.fetch_file(sender, &found).await;
            self.0.transfers.open().fetching.remove(&found.0);
            match fetched {
                Ok(()) => self.0.transfers.has_ended(),
                Err(TransferError::Lane(LaneError::Closed(_))) => return,
                Err(error) => {
                    tracing::debug!(hash = %found.0, %error, "another device did not give a file");
                    *refused.entry(found.0).or_insert(0u32) += 1;
                    sleep(MOMENT).await;
                }
            }
        }
    }

    /// Whether files wait that can go over the present connection.
    pub(crate) fn has_files_to_exchange(&self) -> Result<bool, StoreError> {
        Ok(!self.files_paused()?
            && (self.has_removed_to_hear()?
                || self.next_upload()?.is_some()
                || self.next_download()?.is_some()))
    }

    /// Does one thing after the other until the connection ends.
    async fn each<N>(
        &self,
        sender: &Sender,
        next: impl Fn(&Self) -> Result<Option<N>, StoreError>,
        act: impl AsyncFn(&Self, &Sender, &N) -> Result<(), TransferError>,
    ) where
        N: Named,
    {
        let mut events = self.watch();
        let mut tries = 0;
        loop {
            let looked = self.0.transfers.looked.notified();
            let paused = self.files_paused().unwrap_or(true);
            let found = if paused { Ok(None) } else { next(self) };
            let found = match found {
                Ok(found) => found,
                Err(error) => return tracing::error!(%error, "files are not exchanged"),
            };
            let Some(found) = found else {
                self.0.transfers.has_ended();
                tokio::select! {
                    () = looked => {}
                    () = changed(&mut events) => {}
                }
                continue;
            };
            let done = act(self, sender, &found).await;
            let hash = found.hash();
            {
                let mut book = self.0.transfers.open();
                book.sending.remove(&hash);
                book.fetching.remove(&hash);
            }
            match done {
                Ok(()) => tries = 0,
                Err(TransferError::Lane(LaneError::Closed(_))) => return,
                Err(error) => {
                    tries += 1;
                    let most = match &error {
                        TransferError::Unfit(unfit) if unfit.code == "wrong" => WRONG,
                        TransferError::Unfit(unfit) if unfit.again => TRIES,
                        TransferError::Wrong(_) => WRONG,
                        TransferError::Lane(_) => TRIES,
                        TransferError::Unfit(_)
                        | TransferError::Nonsense
                        | TransferError::Store(_) => 0,
                    };
                    if tries < most {
                        sleep(MOMENT).await;
                        continue;
                    }
                    tries = 0;
                    tracing::warn!(%hash, %error, "a file did not go over");
                    self.0.transfers.open().rested.insert(hash);
                    let permanent = matches!(&error, TransferError::Unfit(unfit) if !unfit.again || unfit.code == "wrong");
                    if let Err(error) = found.failed(self, &error.to_string(), permanent) {
                        return tracing::error!(%error, "files are not exchanged");
                    }
                }
            }
            self.0.transfers.has_ended();
        }
    }

    fn next_upload(&self) -> Result<Option<Upload>, StoreError> {
        let rested = self.0.transfers.open().rested.clone();
        let next = self.engine().next_upload(&rested)?;
        if next.is_some() { Ok(next) } else { self.next_return() }
    }

    async fn send_file(&self, sender: &Sender, upload: &Upload) -> Result<(), TransferError> {
        let Some(brought) = self.engine().upload(upload)? else {
            // It was removed again meanwhile.
            return Ok(self.uploaded(upload)?);
        };
        let (hash, size) = (upload.hash, brought.size);
        let mut talk = Talk::over(sender.open_lane(priority::BLOB).await?);
        talk.say(&FileFrame::Upload(brought)).await?;
        let files = BlobFiles::of(self.directory());
        let mut answer = talk.hear().await?;
        if let FileFrame::Prove(prove) = &answer {
            let (file, salt) = (files.open(&hash)?, prove.salt);
            let shown = tokio::task::spawn_blocking(move || possession(&file, &salt)).await;
            let ended = |_| StoreError::Disk("reading ended".into());
            let digest = shown.map_err(ended)??;
            talk.say(&FileFrame::Possession(Possession { digest })).await?;
            answer = talk.hear().await?;
        }
        if let FileFrame::Ready(ready) = answer
            && ready.from <= size
        {
            let progress = |sent| {
                self.0.transfers.open().sending.insert(hash, sent);
            };
            progress(ready.from);
            give(&mut talk, files.open(&hash)?, size, ready.from, progress).await?;
        } else if !matches!(answer, FileFrame::Whole(_)) {
            return Err(TransferError::Nonsense);
        }
        Ok(self.uploaded(upload)?)
    }

    fn uploaded(&self, upload: &Upload) -> Result<(), StoreError> {
        self.engine().may_report();
        let done = self.with_replica(|replica| {
            let store = replica.store_mut();
            store.forget_removal(&upload.hash)?;
            Ok::<_, ReplicaError>(store.take_upload(&upload.hash, &upload.key)?)
        });
        self.changed(&upload.key);
        done.map_err(disk)
    }

    fn changed(&self, key: &RecordKey) {
        // Nobody may watch.
        let _ = self.0.events.send(Event::Changed(vec![key.clone()]));
    }

    /// The next file that somebody waits for, or that is to be fetched by rule.
    fn next_download(&self) -> Result<Option<(BlobHash, RecordKey)>, StoreError> {
        let open = self.0.transfers.open();
        let wanted = open.wanted.iter().find(|(hash, _)| !open.failed.contains_key(hash));
        let wanted = wanted.map(|(hash, key)| (*hash, key.clone()));
        drop(open);
        if let Some((hash, key)) = wanted
            && !self.engine().replica().store().has_blob(&hash)?
        {
            return Ok(Some((hash, key)));
        }
        let rule = self.settings().files;
        let metered = self.0.transfers.metered.load(std::sync::atomic::Ordering::Relaxed);
        match rule.download {
            Download::None => return Ok(None),
            Download::Unmetered if metered => return Ok(None),
            Download::Unmetered | Download::All => {}
        }
        let lacking = self.engine().replica().store().blobs_lacking(LOOKED_AT)?;
        for (hash, key) in lacking {
            let rested = {
                let open = self.0.transfers.open();
                open.rested.contains(&hash) || open.failed.contains_key(&hash)
            };
            if rested {
                continue;
            }
            let Some(view) = self.as_merged(&key)? else { continue };
            let file = self.files_of(&view).into_iter().find(|file| file.hash == hash);
            if file.is_some_and(|file| rule.under.is_none_or(|under| file.size <= under)) {
                return Ok(Some((hash, key)));
            }
        }
        Ok(None)
    }

    async fn fetch_file(
        &self,
        sender: &Sender,
        (hash, key): &(BlobHash, RecordKey),
    ) -> Result<(), TransferError> {
        let hash = *hash;
        let mut talk = Talk::over(sender.open_lane(priority::BLOB).await?);
        talk.say(&FileFrame::Download(Wanted { hash, record: key.clone() })).await?;
        let answer = talk.hear().await?;
        if let FileFrame::Removed(removed) = &answer
            && let Some(time) =
                removed.files.iter().find(|one| one.hash == hash).map(|one| one.time)
            && self.members().by_tls(&sender.peer()).is_some_and(|member| member.relay)
        {
            self.keep_removed(removed, None)?;
            let text = removed_on(time.unwrap_or_default());
            let code = "removed".to_owned();
            return Err(TransferError::Unfit(Unfit { code, text, again: false }));
        }
        let FileFrame::Tree(tree) = answer else { return Err(TransferError::Nonsense) };
        // By that size the catalog's limits and the rule for downloads let it in.
        let named = self.engine().files_named(key)?;
        if !named.iter().any(|file| file.hash == hash && file.size == tree.size) {
            let text = "the record names no such file of that size: nothing was fetched".to_owned();
            return Err(TransferError::Unfit(Unfit {
                code: "size".to_owned(),
                text,
                again: false,
            }));
        }
        let tree = BlobTree::new(hash, tree.size, &tree.tree);
        let tree = tree.map_err(|_| TransferError::Nonsense)?;
        let files = BlobFiles::of(self.directory());
        let begun = tokio::task::spawn_blocking(move || files.receive(tree)).await;
        let begun = begun.map_err(|_| StoreError::Disk("writing ended".into()))??;
        // What the connection before this one left is being written.
        let incoming = begun.ok_or(LaneError::BrokenOff)?;
        let progress = |got| {
            self.0.transfers.open().fetching.insert(hash, got);
            Duration::ZERO
        };
        progress(incoming.at());
        talk.say(&FileFrame::Ready(Ready { from: incoming.at() })).await?;
        let tree = take(&mut talk, incoming, progress).await?;
        self.with_replica(|replica| note_fetched(replica, key, &tree, now())).map_err(disk)?;
        talk.conclude(&FileFrame::Whole(Whole { hash })).await?;
        self.changed(key);
        Ok(())
    }
}

/// What is exchanged.
trait Named {
    fn hash(&self) -> BlobHash;

    /// Keeps why it did not go over, where trying again is of no use by itself.
    fn failed(&self, device: &Device, why: &str, permanent: bool) -> Result<(), StoreError>;
}

impl Named for Upload {
    fn hash(&self) -> BlobHash {
        self.hash
    }

    fn failed(&self, device: &Device, why: &str, permanent: bool) -> Result<(), StoreError> {
        if !permanent {
            return Ok(());
        }
        let failed = Self { failed: Some(why.to_owned()), ..self.clone() };
        let kept = device.with_replica(|replica| {
            Ok::<_, ReplicaError>(replica.store_mut().put_upload(&failed)?)
        });
        device.changed(&self.key);
        kept.map_err(disk)
    }
}

impl Named for (BlobHash, RecordKey) {
    fn hash(&self) -> BlobHash {
        self.0
    }

    fn failed(&self, device: &Device, why: &str, _: bool) -> Result<(), StoreError> {
        device.0.transfers.open().failed.insert(self.0, why.to_owned());
        device.changed(&self.1);
        Ok(())
    }
}

pub(super) fn disk(error: ReplicaError) -> StoreError {
    if let ReplicaError::Store(error) = error {
        return error;
    }
    StoreError::Disk(error.to_string())
}

/// Ends when records have changed: one that names a file may be on the relay by then.
async fn changed(events: &mut tokio::sync::broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Changed(_)) | Err(RecvError::Lagged(_)) => return,
            Ok(Event::Met(_) | Event::Left(_) | Event::Strip(_) | Event::Status) => {}
            // The device itself holds the other end.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
