//! Giving a file: its bytes from one on, no more ahead of what the other side has than a window.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use bytes::Bytes;
use fieldkeep_model::BlobTree;
use fieldkeep_protocol::FileFrame;
use fieldkeep_protocol::blob::{BLOB_WINDOW, Tree, Unfit};
use fieldkeep_store::StoreError;
use tokio::sync::{mpsc, watch};

use crate::talk::{Heard, Talk, TransferError};

/// Bytes that are read from the disk at once.
const PIECE: usize = 64 * 1024;
/// Pieces that are read ahead.
const AHEAD: usize = 4;

/// A file that is given to whoever asks.
#[derive(Debug)]
pub struct Given {
    /// What verifies it.
    pub tree: BlobTree,
    /// Its bytes.
    pub file: File,
    /// Whether whoever gives it waits for the relay to have it.
    pub waits: bool,
}

/// Answers whoever asks for a file: with what verifies it, and its bytes from where he has them; or that
/// there is none for him, in the same words whether it is absent or forbidden.
///
/// # Errors
/// See [`TransferError`].
pub async fn answer(talk: &mut Talk, found: Option<Given>) -> Result<(), TransferError> {
    let Some(Given { tree, file, waits }) = found else {
        let text = "there is no such file for this device".to_owned();
        let unfit = Unfit { code: "absent".to_owned(), text, again: true };
        return talk.conclude(&FileFrame::Unfit(unfit)).await;
    };
    let size = tree.size();
    let waits = waits.then_some(true);
    talk.say(&FileFrame::Tree(Tree { size, tree: tree.to_bytes(), waits })).await?;
    if let FileFrame::Ready(ready) = talk.hear().await?
        && ready.from <= size
    {
        return give(talk, file, size, ready.from, |_| {}).await;
    }
    Err(TransferError::Nonsense)
}

/// Gives a file's bytes from an offset on, and waits until the other side has all of it, durably.
/// `progress` is told how far that is.
///
/// # Errors
/// See [`TransferError`]: also that the other side found bytes that are not the file's.
pub async fn give(
    talk: &mut Talk,
    file: File,
    size: u64,
    from: u64,
    progress: impl Fn(u64),
) -> Result<(), TransferError> {
    let (pieces, read) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || read_pieces(file, from, size, &pieces));
    let (confirmed, ahead) = watch::channel(from);
    let Talk { writer, heard } = talk;
    let sending = async {
        let (mut read, mut ahead, mut sent) = (read, ahead, from);
        while let Some(piece) = read.recv().await {
            let piece: Bytes = piece;
            let room = |confirmed: &u64| sent < confirmed.saturating_add(BLOB_WINDOW);
            if ahead.wait_for(room).await.is_err() {
                // The other side has said its last word: that is what is told.
                return Ok(());
            }
            sent += piece.len() as u64;
            writer.write(piece).await?;
        }
        writer.finish();
        Ok(())
    };
    let hearing = hear_until_whole(heard, confirmed, size, progress);
    let (sent, heard) = tokio::join!(sending, hearing);
    let read = reading.await.unwrap_or_else(|_| Err(StoreError::Disk("reading ended".into())));
    // What the other side says explains more than that it no longer listens.
    heard.and(sent).and(read.map_err(TransferError::from))
}

async fn hear_until_whole(
    heard: &mut Heard,
    confirmed: watch::Sender<u64>,
    size: u64,
    progress: impl Fn(u64),
) -> Result<(), TransferError> {
    loop {
        let frame = heard.frame().await?;
        if let FileFrame::Got(got) = frame
            && got.at <= size
        {
            confirmed.send_replace(got.at);
            progress(got.at);
        } else if let FileFrame::Whole(_) = frame {
            progress(size);
            return Ok(());
        } else {
            return Err(TransferError::Nonsense);
        }
    }
}

fn read_pieces(
    mut file: File,
    from: u64,
    size: u64,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| StoreError::Disk(error.to_string());
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut left = size.saturating_sub(from);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; most];
        file.read_exact(&mut piece).map_err(failed)?;
        left -= most as u64;
        if pieces.blocking_send(Bytes::from(piece)).is_err() {
            break;
        }
    }
    Ok(())
}
