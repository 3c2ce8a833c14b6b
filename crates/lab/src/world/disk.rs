//! Disks: stores in memory that keep what was committed, are copied, put back, and run full.
//!
//! What a directory knows of its own file is modelled as the product's shells do it: the identity of
//! the file is written into it, and one that is not its own is a copy.

use fieldkeep_store::{Settings as _, Store, StoreError};

/// Pages that a full disk still takes: none.
const FULL: Option<u32> = Some(0);

/// A file with an identity that the file system gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File(pub(crate) u64);

const IDENTITY: &str = "identity";

impl File {
    /// Whether a store was written to another file last.
    pub(crate) fn is_copy(self, store: &Store) -> Result<bool, StoreError> {
        let recorded = store.setting(IDENTITY)?;
        Ok(recorded.is_some_and(|recorded| recorded != self.0.to_be_bytes()))
    }

    /// Notes in a store that this is its file. The caller commits.
    pub(crate) fn note(self, store: &mut Store) -> Result<(), StoreError> {
        store.set(IDENTITY, &self.0.to_be_bytes())
    }
}

/// Lets a disk run full, or frees it.
pub(crate) fn fill(store: &mut Store, full: bool) -> Result<(), StoreError> {
    store.bound_growth(if full { FULL } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_holds_what_was_committed_and_nothing_later() {
        let mut store = Store::in_memory().expect("it opens");
        store.set("a", b"1").expect("it writes");
        store.commit().expect("it commits");
        let copy = store.copy().expect("it copies");
        store.set("a", b"2").expect("it writes");
        store.commit().expect("it commits");
        assert_eq!(copy.setting("a").expect("it reads").as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn a_copied_file_is_noticed_until_it_is_noted() {
        let mut store = Store::in_memory().expect("it opens");
        File(1).note(&mut store).expect("it writes");
        store.commit().expect("it commits");
        let mut copy = store.copy().expect("it copies");
        assert!(!File(1).is_copy(&copy).expect("it reads"));
        assert!(File(2).is_copy(&copy).expect("it reads"));
        File(2).note(&mut copy).expect("it writes");
        assert!(!File(2).is_copy(&copy).expect("it reads"));
    }

    #[test]
    fn a_full_disk_refuses_and_keeps_what_it_has() {
        let mut store = Store::in_memory().expect("it opens");
        store.set("a", b"1").expect("it writes");
        store.commit().expect("it commits");
        fill(&mut store, true).expect("it fills");
        let large = vec![0; 100_000];
        let refused = store.set("b", &large).and_then(|()| store.commit());
        assert!(matches!(refused, Err(StoreError::Full)));
        store.rollback();
        fill(&mut store, false).expect("it is freed");
        store.set("b", &large).and_then(|()| store.commit()).expect("there is room");
        assert_eq!(store.setting("a").expect("it reads").as_deref(), Some(&b"1"[..]));
    }
}
