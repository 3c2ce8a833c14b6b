//! Whatever bytes a peer sends: they are frames, or an error, and nothing panics.

use fieldkeep_protocol::frame::{Frame, FrameBuffer};
use fieldkeep_protocol::{FRAME_MAX, Offer, Phase, Role, Session};

/// The first byte says where the rest is cut in two.
pub(crate) fn frames(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let (first, second) = bytes.split_at(bytes.len() * usize::from(*cut) / 256);
    let mut whole = FrameBuffer::default();
    whole.push(bytes);
    let mut parts = FrameBuffer::default();
    parts.push(first);
    let mut early = Vec::new();
    while let Ok(Some(frame)) = parts.next(FRAME_MAX) {
        early.push(frame);
    }
    parts.push(second);
    for at in 0.. {
        let frame = whole.next(FRAME_MAX);
        if at < early.len() {
            assert_eq!(frame.as_ref().ok().and_then(Option::as_ref), early.get(at));
        } else {
            assert_eq!(frame, parts.next(FRAME_MAX), "however it is cut");
        }
        let Ok(Some(frame)) = frame else { break };
        survives(&frame);
    }
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
