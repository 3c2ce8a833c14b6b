//! What is asked of the console's accounts.

use fieldkeep_console::shape::{Deed, Operator};
use fieldkeep_console::{Code, Failure};
use fieldkeep_relay::{AccountChange, AccountError, OperatorRole, Password};
use fieldkeep_store::Operators as _;

use super::read::Reading;
use super::relay::relay;
use crate::access::Owner;
use crate::request::AccountWish;
use crate::response::Response;
use crate::time::now_ms;

pub(super) fn list(owner: &Owner) -> Result<Response, Failure> {
    relay(owner)?;
    let operators = Reading::open(owner)?.store.operators()?;
    Ok(Response::Operators(operators.into_iter().map(Operator::from).collect()))
}

pub(super) fn deeds(owner: &Owner, limit: u64) -> Result<Response, Failure> {
    relay(owner)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let deeds = Reading::open(owner)?.store.deeds(None, limit)?;
    Ok(Response::Deeds(deeds.into_iter().map(Deed::from).collect()))
}

pub(super) fn change(
    owner: &Owner,
    name: String,
    wish: AccountWish,
    by: String,
) -> Result<Response, Failure> {
    let role = |word: &str| word.parse().map_err(|_| Failure::unexpected());
    let password = |phc| Password::from_phc(phc).ok_or_else(Failure::unexpected);
    let change = match wish {
        AccountWish::Add(word, phc) => {
            let role: OperatorRole = role(&word)?;
            AccountChange::Add(role, password(phc)?)
        }
        AccountWish::Password(phc) => AccountChange::Password(password(phc)?),
        AccountWish::Role(word) => AccountChange::Role(role(&word)?),
        AccountWish::Remove => AccountChange::Remove,
    };
    relay(owner)?.with_engine(move |engine| {
        let changed = engine.change_account(now_ms(), &by, &name, change)?;
        changed.map_err(|error| refused(&name, error))?;
        Ok(Response::Taken(1))
    })
}

fn refused(name: &str, error: AccountError) -> Failure {
    let (code, remedy) = match error {
        AccountError::Taken => {
            let remedy =
                "nothing was changed: `relay operator password` and `role` change an account";
            (Code::Usage, remedy)
        }
        AccountError::Absent => {
            (Code::NotFound, "nothing was changed: `relay operator list` shows who has an account")
        }
    };
    Failure::new(code, format!("{name}: {error}"), remedy)
}
