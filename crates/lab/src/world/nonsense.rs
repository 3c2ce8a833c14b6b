//! What a peer says that may not say it: frames that the other side never receives in any phase,
//! unknown frames, and bytes that are none.

use fieldkeep_model::{Epoch, RecordId, RecordKey, SegmentId, TypeName};
use fieldkeep_protocol::frame::{Credit, Frame, GoAway, OfferReply, Proof, Stats};

use super::network::Side;
use crate::Dice;

/// Something that ends the session, whatever phase it is in, as if that side had said it.
pub(crate) fn bytes(dice: &mut Dice, from: Side) -> Vec<u8> {
    let segment = SegmentId([7; 16]);
    let key = || {
        let ty = TypeName::new("order").expect("a type's name");
        RecordKey::new(ty, RecordId::new("x").expect("a record's id"))
    };
    let to_relay = [
        Frame::Stats(Stats::default()),
        Frame::GoAway(GoAway { retry_ms: 1 }),
        Frame::Proof(Proof { segment, pos: 1, heads: [0; 32], records: 1, rows: [0; 16] }),
        Frame::OfferReply(OfferReply {
            epoch: Epoch::default(),
            root: [0; 16],
            segments: Vec::new(),
            round: 1,
        }),
    ];
    let to_device =
        [Frame::Credit(Credit { segment, pos: 1 }), Frame::Rejudge(key()), Frame::Rejudge(key())];
    match (dice.below(4), from) {
        // An unknown odd frame; one that is longer than any may be; one whose body is none.
        (0, _) => vec![101, 0],
        (1, _) => vec![1, 0xff, 0xff, 0xff, 0x7f],
        (2, Side::Device) => dice.pick(&to_relay).encode(),
        (2, Side::Relay) => dice.pick(&to_device).encode(),
        (_, _) => vec![9, 3, 0xff, 0xff, 0xff],
    }
}
