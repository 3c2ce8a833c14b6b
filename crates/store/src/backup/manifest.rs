//! The manifest: what a backup is of, when it was taken, and the hash of everything in it.
//!
//! Two lines of text: a JSON object, and the hash of that line. People read it when a relay is lost, so it
//! is JSON; nobody edits it, so a byte that changed makes it none.

use serde::{Deserialize, Serialize};

/// What the first line begins with.
const FORMAT: &str = "fieldkeep-backup-1";

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    /// Rises with each backup in a folder.
    pub number: u64,
    /// The moment as which the store stands in it, milliseconds UTC.
    pub taken: i64,
    /// The version of the software that made it.
    pub version: String,
    /// The organisation's id.
    pub organisation: String,
    /// Its name.
    pub name: String,
    /// The counter of the log's epoch.
    pub epoch: u64,
    /// The number of the catalog in force, 0 without one.
    pub catalog: u64,
    /// Entries of the membership log.
    pub members: u64,
    /// Segments.
    pub segments: u64,
    /// Changes in their logs: where all of them end.
    pub changes: u64,
    /// blake3 over each segment's id, the length of its log and the chain there, in the order of ids.
    pub logs: String,
    /// Records, deleted ones included.
    pub records: u64,
    /// The database.
    pub database: Part,
    /// The other files of the copy.
    pub files: Vec<Part>,
    /// The attached files.
    pub attached: Attached,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// blake3 of it, in hexadecimal.
    pub blake3: String,
}

/// The attached files of a backup. Their names are their hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// How many.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
    /// blake3 over the hash and the length (8 bytes) of each, in the order of hashes, in hexadecimal.
    pub blake3: String,
    /// Those that the relay should have had and did not, or not sound.
    pub lacking: Vec<String>,
}

impl Manifest {
    /// A manifest, with everything that is to be said in it.
    #[must_use]
    pub fn of(number: u64, taken: i64, database: Part) -> Self {
        Self {
            format: FORMAT.to_owned(),
            number,
            taken,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            organisation: String::new(),
            name: String::new(),
            epoch: 0,
            catalog: 0,
            members: 0,
            segments: 0,
            changes: 0,
            logs: String::new(),
            records: 0,
            database,
            files: Vec::new(),
            attached: Attached::default(),
        }
    }

    /// The bytes of its file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_string(self).expect("it is plain data");
        text.push('\n');
        let hash = blake3::hash(text.as_bytes()).to_hex();
        text.push_str(&format!("blake3 {hash}\n"));
        text.into_bytes()
    }

    /// Reads it; nothing where it is not what was written.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (line, rest) = text.split_at(text.find('\n')? + 1);
        let hash = rest.strip_prefix("blake3 ")?.strip_suffix('\n')?;
        let sound = blake3::hash(line.as_bytes()).to_hex().as_str() == hash;
        let read: Self = serde_json::from_str(line).ok()?;
        (sound && read.format == FORMAT).then_some(read)
    }
}
