//! What a change's message says: who wrote it, and what for where a relay wrote it in a new generation.
//!
//! The message is the person's name, and nothing else, for everything that people write. What a relay
//! writes when it starts a type afresh has a second line (`docs/format.md`).

use crate::header::limit;
use crate::{ActorId, ChangeHash};

/// The second line of what a generation begins with.
const BEGINNING: &str = "the beginning of a generation";
/// What the second line of a change that was carried over begins with.
const CARRIED: &str = "carried over ";

/// What a change's message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing<'m> {
    /// Who wrote it.
    pub person: &'m str,
    /// What it is in its generation.
    pub part: Part,
}

/// What a change is in its segment's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Somebody wrote it there.
    Ordinary,
    /// A relay wrote what stood when the generation began.
    Beginning,
    /// A relay wrote what that change of an earlier generation did.
    Carried(ActorId, ChangeHash),
}

impl<'m> Writing<'m> {
    /// What a message says.
    #[must_use]
    pub fn read(message: &'m str) -> Self {
        let ordinary = Self { person: message, part: Part::Ordinary };
        let Some((person, line)) = message.rsplit_once('\n') else { return ordinary };
        let part = if line == BEGINNING { Some(Part::Beginning) } else { carried(line) };
        part.map_or(ordinary, |part| Self { person, part })
    }

    /// The message that says it. A name that leaves no room is cut.
    #[must_use]
    pub fn message(&self) -> String {
        let line = match self.part {
            Part::Ordinary => String::new(),
            Part::Beginning => format!("\n{BEGINNING}"),
            Part::Carried(actor, hash) => format!("\n{CARRIED}{actor} {hash}"),
        };
        let room = self.person.floor_char_boundary(limit::MESSAGE - line.len());
        format!("{}{line}", &self.person[..room])
    }
}

fn carried(line: &str) -> Option<Part> {
    let (actor, hash) = line.strip_prefix(CARRIED)?.split_once(' ')?;
    Some(Part::Carried(actor.parse().ok()?, hash.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_who_wrote_what_in_the_place_of_whom() {
        let carried = Part::Carried(ActorId([7; ActorId::LEN]), ChangeHash([9; 32]));
        for part in [Part::Ordinary, Part::Beginning, carried] {
            let message = Writing { person: "Ann", part }.message();
            assert_eq!(Writing::read(&message), Writing { person: "Ann", part });
        }
        let long = "ä".repeat(limit::MESSAGE);
        let message = Writing { person: &long, part: carried }.message();
        assert!(message.len() <= limit::MESSAGE && Writing::read(&message).part == carried);
        let two_lines = "Ann\nMay";
        assert_eq!(Writing::read(two_lines), Writing { person: two_lines, part: Part::Ordinary });
    }
}
