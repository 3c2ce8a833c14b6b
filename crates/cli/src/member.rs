//! Members, as they are named on the command line.

use fieldkeep_model::{Member, MembershipLog};

use crate::output::safe;
use fieldkeep_console::{Code, Failure};

/// The device of that name or number.
///
/// # Errors
/// When there is none, it is revoked, or several have that name.
pub(crate) fn find<'l>(log: &'l MembershipLog, who: &str) -> Result<&'l Member, Failure> {
    let devices = || log.members().values().filter(|member| !member.relay);
    let named: Vec<&Member> = devices().filter(|member| member.name == who).collect();
    let current: Vec<&Member> = named.iter().copied().filter(|member| !member.revoked).collect();
    let number = who.parse().ok();
    let numbered = devices().find(|member| Some(member.number) == number);
    match (&current[..], numbered.or(named.first().copied())) {
        ([member], _) => Ok(member),
        ([], Some(member)) if !member.revoked => Ok(member),
        ([], Some(member)) => {
            let message = format!("`{}` is revoked already", safe(&member.name));
            let remedy = "the person comes back with a new ticket: `fieldkeep relay invite`";
            Err(Failure::new(Code::Usage, message, remedy))
        }
        ([], None) => {
            let names: Vec<_> =
                devices().map(|m| format!("{} ({})", safe(&m.name), m.number)).collect();
            let known = if names.is_empty() { "nobody".into() } else { names.join(", ") };
            let message = format!("no device is called `{}`", safe(who));
            Err(Failure::new(Code::NotFound, message, format!("there is {known}")))
        }
        (several, _) => {
            let numbers: Vec<_> = several.iter().map(|m| m.number.to_string()).collect();
            let message = format!("several devices are called `{}`", safe(who));
            Err(Failure::new(
                Code::Usage,
                message,
                format!("name one by its number: {}", numbers.join(", ")),
            ))
        }
    }
}
