//! How much a verdict says: whoever writes a record may break rules in thousands of places at once, and
//! the verdict still has to fit a frame, beside the record as it last was valid.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::verdict::{Arg, ArgValue, Opening};
use fieldkeep_model::{Culprit, Reason};

use crate::judging::plain;

/// What stands for the reasons that are not told.
pub(crate) const MORE: &str = "more";
/// The bytes of the reasons, and those of what opens their sealed arguments.
const REASONS: usize = 64 * 1024;
/// The bytes of the culprits.
const CULPRITS: usize = 128 * 1024;
/// The bytes of the fields of one culprit.
const FIELDS: usize = 8 * 1024;

/// Leaves the first reasons, as many as a verdict has room for, and tells how many more there are.
pub(crate) fn limit_reasons(reasons: &mut Vec<Reason>, openings: &mut Vec<Opening>) {
    let seals: Vec<_> = openings.iter().map(Opening::seal).collect();
    let sizes: BTreeMap<_, _> =
        seals.iter().zip(&*openings).map(|(s, o)| (s, encoded(o))).collect();
    let (all, mut bytes) = (reasons.len(), 0);
    reasons.retain(|reason| {
        bytes += encoded(reason);
        bytes += sealed(reason).filter_map(|seal| sizes.get(seal)).sum::<usize>();
        bytes <= REASONS
    });
    let more = all - reasons.len();
    if more == 0 {
        return;
    }
    let kept: BTreeSet<_> = reasons.iter().flat_map(sealed).copied().collect();
    let mut own = seals.iter().map(|seal| kept.contains(seal));
    openings.retain(|_| own.next().expect("a seal for each"));
    let count = Arg { name: "count".to_owned(), value: ArgValue::Open(more.to_string()) };
    reasons.push(Reason { args: vec![count], ..plain(MORE) });
}

/// Leaves the newest culprits, as many as a verdict has room for, each with its first fields.
pub(crate) fn limit_culprits(culprits: &mut Vec<Culprit>) {
    let (mut newest, mut bytes) = (0, 0);
    for culprit in culprits.iter_mut().rev() {
        let mut fields = 0;
        culprit.fields.retain(|field| {
            fields += field.len();
            fields <= FIELDS
        });
        bytes += encoded(&*culprit);
        if bytes > CULPRITS {
            break;
        }
        newest += 1;
    }
    culprits.drain(..culprits.len() - newest);
}

fn encoded<T: minicbor::Encode<()>>(value: &T) -> usize {
    minicbor::to_vec(value).expect("encoding into memory cannot fail").len()
}

fn sealed(reason: &Reason) -> impl Iterator<Item = &[u8; 16]> {
    reason.args.iter().filter_map(|arg| match &arg.value {
        ArgValue::Sealed(seal) => Some(seal),
        ArgValue::Open(_) => None,
    })
}
