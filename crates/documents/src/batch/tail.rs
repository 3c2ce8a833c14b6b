//! What follows a change's header: the actors that it refers to, and the columns of its operations.
//!
//! Taken apart column by column, so that a column of all changes in a batch lies in one stream.
//! Nothing is interpreted but lengths, and the action column for the number of operations.

use fieldkeep_model::ActorId;
use fieldkeep_model::header::write_uleb;

use super::BatchError;
use super::stream::{Cursor, Reader, Writer};
use super::{Actors, stream_of};

/// The specifications of the columns that changes have, ascending.
const COLUMNS: [u32; 14] = [1, 2, 17, 19, 21, 52, 66, 86, 87, 112, 113, 115, 148, 165];
/// The column that says what each operation does.
const ACTION: usize = 6;

/// The lengths of a tail's columns.
type Lengths = [Option<usize>; COLUMNS.len()];

/// Takes a tail apart and gives the number of its operations; `None` if it is no tail.
pub(super) fn strip(tail: &[u8], actors: &mut Actors, out: &mut Writer) -> Option<u64> {
    let mut cursor = Cursor(tail);
    let others = cursor.length().ok()?;
    out.uleb(stream_of::OTHERS, others as u64);
    for _ in 0..others {
        cursor.length().ok()?;
        let actor = ActorId::from_slice(cursor.take(ActorId::LEN).ok()?)?;
        out.uleb(stream_of::OTHERS, actors.index(actor));
    }
    let mut lengths = Lengths::default();
    let (mut shape, columns) = (0u64, cursor.length().ok()?);
    for _ in 0..columns {
        let spec = cursor.uleb().ok()?;
        let nth = COLUMNS.iter().position(|known| u64::from(*known) == spec)?;
        lengths[nth] = Some(cursor.length().ok()?);
        shape |= 1 << nth;
    }
    out.uleb(stream_of::SHAPE, shape);
    let mut ops = 0;
    for (nth, length) in lengths.iter().enumerate() {
        let Some(length) = length else { continue };
        let column = cursor.take(*length).ok()?;
        out.uleb(stream_of::LENGTHS + nth, *length as u64);
        out.bytes(stream_of::COLUMNS + nth, column);
        if nth == ACTION {
            ops = count(column);
        }
    }
    Some(ops)
}

/// Puts the next tail together behind a header, and gives the number of its operations.
pub(super) fn join(
    body: &mut Vec<u8>,
    actors: &[ActorId],
    from: &mut Reader<'_>,
) -> Result<u64, BatchError> {
    let others = from.of(stream_of::OTHERS).length()?;
    write_uleb(body, others as u64);
    for _ in 0..others {
        let index = from.of(stream_of::OTHERS).length()?;
        let actor = actors.get(index).ok_or(BatchError::Malformed)?;
        write_uleb(body, ActorId::LEN as u64);
        body.extend_from_slice(actor.as_bytes());
    }
    let shape = from.of(stream_of::SHAPE).uleb()?;
    if shape >> COLUMNS.len() != 0 {
        return Err(BatchError::Malformed);
    }
    write_uleb(body, u64::from(shape.count_ones()));
    let mut lengths = Lengths::default();
    for (nth, spec) in COLUMNS.into_iter().enumerate() {
        if shape >> nth & 1 == 1 {
            let length = from.of(stream_of::LENGTHS + nth).length()?;
            write_uleb(body, u64::from(spec));
            write_uleb(body, length as u64);
            lengths[nth] = Some(length);
        }
    }
    let mut ops = 0;
    for (nth, length) in lengths.into_iter().enumerate() {
        let Some(length) = length else { continue };
        let column = from.of(stream_of::COLUMNS + nth).take(length)?;
        body.extend_from_slice(column);
        if nth == ACTION {
            ops = count(column);
        }
    }
    Ok(ops)
}

/// How many values the runs of an integer column stand for; of a malformed one, as far as it can be
/// read. Both sides count alike, and only predict with it.
fn count(column: &[u8]) -> u64 {
    let mut cursor = Cursor(column);
    let mut total = 0u64;
    while let Ok(run) = cursor.sleb() {
        let (values, literals) = match run {
            0 => (cursor.uleb().unwrap_or(0), 0),
            1.. => (run.unsigned_abs(), 1),
            _ => (run.unsigned_abs(), run.unsigned_abs()),
        };
        total = total.saturating_add(values);
        for _ in 0..literals {
            if cursor.uleb().is_err() {
                return total;
            }
        }
    }
    total
}
