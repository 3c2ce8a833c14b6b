//! Importing: many records in batches, with a note of how far it has come that is saved with each.
//!
//! Whoever is stopped in the middle goes on from the note: nothing is written twice, and nothing is
//! missing. New records that lie together become one change together: an import is no gesture of a
//! person, and a change for each row would cost twice as much. Knows no file: an import is whatever the application names alike the next time.

use fieldkeep_model::{RecordEdit, RecordKey};
use fieldkeep_replica::{PutError, ReplicaError, Wrote};
use fieldkeep_store::{Settings as _, StoreError};
use minicbor::{Decode, Encode};

use crate::device::{Device, now};

/// How far an import has come.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// device.import_batch("shops.csv", 0, 2, &[])?;
/// let imported = device.imported("shops.csv")?.expect("it has begun");
/// assert!(imported.done < imported.total); // It goes on behind so many.
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Imported {
    /// How many of its records are saved: the first ones.
    #[n(0)]
    pub done: u64,
    /// How many it has.
    #[n(1)]
    pub total: u64,
    /// When the last of them was saved, milliseconds UTC.
    #[n(2)]
    pub time: i64,
}

/// Why a batch of an import was not saved; those before it are.
///
/// ```
/// # use fieldkeep_device::ImportError;
/// # fieldkeep_lab::camp::example(async |device| {
/// device.import_batch("shops.csv", 0, 9, &[])?;
/// let refused = device.import_batch("shops.csv", 5, 9, &[]); // Only so many would be behind it.
/// assert!(matches!(refused, Err(ImportError::OutOfStep { saved: 0, from: 5 })));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// As many as that are saved by now: somebody else imports the same, or it was restarted.
    #[error("{saved} records of this import are saved, and not {from}: it runs elsewhere, too")]
    OutOfStep {
        /// How many are saved.
        saved: u64,
        /// Behind how many the batch was to come.
        from: u64,
    },
    /// A record cannot be written.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Put(error.into())
    }
}

impl Device {
    /// How far an import of that name has come; nothing if it never began.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert!(device.imported("shops.csv")?.is_none());
    /// device.import_batch("shops.csv", 0, 2, &[])?;
    /// let imported = device.imported("shops.csv")?.expect("it has begun");
    /// assert_eq!((imported.done, imported.total), (0, 2));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn imported(&self, name: &str) -> Result<Option<Imported>, StoreError> {
        let kept = self.engine().replica().store().setting(&setting(name))?;
        Ok(kept.and_then(|kept| minicbor::decode(&kept).ok()))
    }

    /// Writes the records of an import that come behind `from` others; it has `total` of them. They
    /// are durable together, and with them how far the import has come. From 0 it begins anew.
    ///
    /// ```
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let name = |name: &str| vec![Edit::Put("name".into(), Scalar::Str(name.into()))].into();
    /// let key = || RecordKey::new("customer".parse().expect("a name"), fieldkeep_device::fresh_id());
    /// device.import_batch("shops.csv", 0, 2, &[(key(), name("Pier"))])?;
    /// // Here the process may end. The next one goes on behind the first record.
    /// let saved = device.imported("shops.csv")?.expect("it has begun").done;
    /// device.import_batch("shops.csv", saved, 2, &[(key(), name("Market"))])?;
    /// assert_eq!(device.counts(&"customer".parse()?)?.local, 3);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`ImportError`]; nothing of the batch was saved then.
    pub fn import_batch(
        &self,
        name: &str,
        from: u64,
        total: u64,
        edits: &[(RecordKey, RecordEdit)],
    ) -> Result<Vec<Wrote>, ImportError> {
        let key = setting(name);
        self.write_all(|replica| {
            let kept = replica.store().setting(&key)?;
            let kept: Option<Imported> = kept.and_then(|kept| minicbor::decode(&kept).ok());
            let saved = kept.map_or(0, |kept| kept.done);
            if from > 0 && from != saved {
                return Err(ImportError::OutOfStep { saved, from });
            }
            let wrote = replica.put_many(edits, now())?;
            let imported = Imported { done: from + edits.len() as u64, total, time: now() };
            let imported = minicbor::to_vec(imported).expect("encoding into memory cannot fail");
            replica.store_mut().set(&key, &imported)?;
            Ok(wrote)
        })
    }

    /// Which of these writes would not be taken, by their place; nothing is written.
    ///
    /// ```
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key: RecordKey = "customer/c1".parse()?;
    /// device.delete(&key)?;
    /// let name = vec![Edit::Put("name".into(), Scalar::Str("Pier".into()))];
    /// let refused = device.rehearse(&[(key, name.into())])?;
    /// assert_eq!(refused[0].0, 0); // It was deleted.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn rehearse(
        &self,
        edits: &[(RecordKey, RecordEdit)],
    ) -> Result<Vec<(usize, PutError)>, ReplicaError> {
        let mut engine = self.engine();
        // What waits to be saved would be undone with it.
        engine.replica_mut().commit()?;
        let mut refused = Vec::new();
        let mut failed = None;
        for (at, (key, edit)) in edits.iter().enumerate() {
            match engine.replica_mut().put(key, edit, now()) {
                Ok(_) => {}
                Err(PutError::Replica(error)) => {
                    failed = Some(error);
                    break;
                }
                Err(error) => refused.push((at, error)),
            }
        }
        engine.replica_mut().forget()?;
        self.0.identify_again(&mut engine)?;
        failed.map_or(Ok(refused), Err)
    }
}

/// Where an import's note is kept.
fn setting(name: &str) -> String {
    format!("import {}", blake3::hash(name.as_bytes()).to_hex())
}
