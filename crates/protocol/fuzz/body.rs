//! Whatever bytes a peer sends, or a bundle has: they are frames, or an error, and nothing panics.

use fieldkeep_protocol::blob::BLOB_FRAME_MAX;
use fieldkeep_protocol::bundle::{Reader, Survey};
use fieldkeep_protocol::frame::{Frame, FrameBuffer};
use fieldkeep_protocol::{FRAME_MAX, FileFrame, Framed, Offer, Phase, Role, Session};

/// The first byte says where the rest is cut in two.
pub(crate) fn frames(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    read(*cut, bytes, FRAME_MAX, survives);
    for role in [Role::Device, Role::Relay] {
        for phase in [Phase::Opening, Phase::Stranger, Phase::Open] {
            let mut session = Session::new(role);
            session.enter(phase);
            if session.receive(0, bytes).is_ok() {
                while let Ok(Some(_)) = session.next(0) {}
            }
        }
    }
}

/// Those of a file's stream; the first byte says where the rest is cut in two.
pub(crate) fn files(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    read(*cut, bytes, BLOB_FRAME_MAX, |frame: &FileFrame| {
        let mut buffer = FrameBuffer::default();
        buffer.push(&frame.encode());
        assert_eq!(buffer.next(u32::MAX).as_ref(), Ok(&Some(frame.clone())));
    });
}

/// A bundle: read to its end, or to where it is found to be none; and looked through as a whole.
pub(crate) fn bundles(bytes: &[u8]) {
    if let Ok(mut reader) = Reader::open(bytes) {
        while let Ok(Some(_)) = reader.next_entry() {}
    }
    if let Ok(mut reader) = Reader::open(bytes) {
        while reader.entries(3).is_ok_and(|entries| !entries.is_empty()) {}
        while let Ok(Some(_)) = reader.next_file() {
            while let Ok(Some(_)) = reader.next_piece() {}
        }
    }
    drop(Survey::of(bytes));
}

/// Reads frames as a whole and cut in two: they are the same.
fn read<F: Framed + PartialEq + std::fmt::Debug>(
    cut: u8,
    bytes: &[u8],
    max: u32,
    look: impl Fn(&F),
) {
    let (first, second) = bytes.split_at(bytes.len() * usize::from(cut) / 256);
    let mut whole = FrameBuffer::default();
    whole.push(bytes);
    let mut parts = FrameBuffer::default();
    parts.push(first);
    let mut early = Vec::new();
    while let Ok(Some(frame)) = parts.next::<F>(max) {
        early.push(frame);
    }
    parts.push(second);
    for at in 0.. {
        let frame = whole.next::<F>(max);
        if at < early.len() {
            assert_eq!(frame.as_ref().ok().and_then(Option::as_ref), early.get(at));
        } else {
            assert_eq!(frame, parts.next::<F>(max), "however it is cut");
        }
        let Ok(Some(frame)) = frame else { break };
        look(&frame);
    }
}

/// What was read is written and read again as the same.
fn survives(frame: &Frame) {
    let mut buffer = FrameBuffer::default();
    buffer.push(&frame.encode());
    assert_eq!(buffer.next(u32::MAX).as_ref(), Ok(&Some(frame.clone())));
    if let Frame::Offer(offer) = frame
        && let Some(entries) = offer.entries()
    {
        let again = Offer::new(offer.epoch, offer.round, offer.root, &entries);
        assert_eq!(again.entries(), Some(entries));
    }
}
