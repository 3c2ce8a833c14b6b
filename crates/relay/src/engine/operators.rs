//! Accounts of the console, and the trail of what operators did there. Each change of an account is on the
//! trail in the commit that has its effect.

use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Deed, OperatorRow, Operators as _};

use super::Engine;
use crate::operators::{OperatorRole, Password};

/// The longest note on the trail, in characters.
const NOTE: usize = 1_000;

/// What becomes of an account.
#[derive(Clone, Debug)]
pub enum AccountChange {
    /// It is made, with a role and a password.
    Add(OperatorRole, Password),
    /// It has another password.
    Password(Password),
    /// It may something else.
    Role(OperatorRole),
    /// It goes.
    Remove,
}

/// Why an account was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// It is there already.
    #[error("there is an operator of that name already")]
    Taken,
    /// It is not there.
    #[error("there is no operator of that name")]
    Absent,
}

impl Engine {
    /// Changes an account of the console, for whom; sessions of its operator end with their next request.
    /// A commit must follow.
    ///
    /// # Errors
    /// When the store fails; within, when the account is there already, or is not.
    pub fn change_account(
        &mut self,
        now: i64,
        by: &str,
        name: &str,
        change: AccountChange,
    ) -> Result<Result<(), AccountError>, ReplicaError> {
        let before = self.replica.store().operator(name)?;
        let (act, next) = match (change, before) {
            (AccountChange::Add(..), Some(_)) => return Ok(Err(AccountError::Taken)),
            (AccountChange::Add(role, password), None) => {
                let row = OperatorRow {
                    name: name.to_owned(),
                    role: role.word().to_owned(),
                    password: password.into_phc(),
                    time: now,
                    who: by.to_owned(),
                };
                ("add", Some(row))
            }
            (_, None) => return Ok(Err(AccountError::Absent)),
            (AccountChange::Password(password), Some(row)) => {
                ("password", Some(OperatorRow { password: password.into_phc(), ..row }))
            }
            (AccountChange::Role(role), Some(row)) => {
                ("role", Some(OperatorRow { role: role.word().to_owned(), ..row }))
            }
            (AccountChange::Remove, Some(_)) => ("remove", None),
        };
        let note = match &next {
            Some(row) => format!("{name}: {}", row.role),
            None => name.to_owned(),
        };
        let store = self.replica.store_mut();
        match next {
            Some(row) => {
                store.put_operator(&OperatorRow { time: now, who: by.to_owned(), ..row })?
            }
            None => store.remove_operator(name)?,
        }
        self.note_deed(now, by, act, &note)?;
        Ok(Ok(()))
    }

    /// Puts on the trail what an operator did on the console, or was not let do. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_deed(
        &mut self,
        now: i64,
        who: &str,
        act: &str,
        note: &str,
    ) -> Result<(), ReplicaError> {
        let note = note.chars().take(NOTE).collect();
        let deed = Deed { number: 0, time: now, who: who.to_owned(), act: act.to_owned(), note };
        Ok(self.replica.store_mut().add_deed(&deed)?)
    }
}
