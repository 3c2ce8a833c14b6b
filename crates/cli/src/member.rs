//! Members, as they are named on the command line.

use fieldkeep_model::{DeviceNumber, Member, MembershipLog};

use crate::output::safe;
use fieldkeep_console::{Code, Failure};

/// The devices of that name, or that number: those that were revoked too.
///
/// # Errors
/// When there is none.
pub(crate) fn named<'l>(log: &'l MembershipLog, who: &str) -> Result<Vec<&'l Member>, Failure> {
    let devices = || log.members().values().filter(|member| !member.relay);
    let named: Vec<&Member> = devices().filter(|member| member.name == who).collect();
    let numbered = || devices().filter(|member| who.parse() == Ok(member.number)).collect();
    let found = if named.is_empty() { numbered() } else { named };
    if found.is_empty() { Err(nobody(log, who)) } else { Ok(found) }
}

fn nobody(log: &MembershipLog, who: &str) -> Failure {
    let devices = log.members().values().filter(|member| !member.relay);
    let names: Vec<_> = devices.map(|m| format!("{} ({})", safe(&m.name), m.number)).collect();
    let known = if names.is_empty() { "nobody".into() } else { names.join(", ") };
    let message = format!("no device is called `{}`", safe(who));
    Failure::new(Code::NotFound, message, format!("there is {known}"))
}

/// The number of the one device of that name or number: one that was revoked, where no other has the name.
///
/// # Errors
/// When there is none, or several have that name.
pub(crate) fn only(log: &MembershipLog, who: &str) -> Result<DeviceNumber, Failure> {
    let all = named(log, who)?;
    let current: Vec<&Member> = all.iter().copied().filter(|member| !member.revoked).collect();
    match (&current[..], &all[..]) {
        ([member], _) | ([], [member]) => Ok(member.number),
        (_, several) => Err(ambiguous(who, several)),
    }
}

/// Says that a device has a name already that another is about to have.
pub(crate) fn note_namesake(log: &MembershipLog, name: &str) {
    let mut current = log.members().values().filter(|member| !member.relay && !member.revoked);
    if let Some(Member { number, .. }) = current.find(|member| member.name == name) {
        crate::note(&format!(
            "device {number} is called `{}` too: commands take the numbers of both from now on",
            safe(name)
        ));
    }
}

fn ambiguous(who: &str, several: &[&Member]) -> Failure {
    let numbers: Vec<_> = several.iter().map(|member| member.number.to_string()).collect();
    let message = format!("several devices are called `{}`", safe(who));
    Failure::new(Code::Usage, message, format!("name one by its number: {}", numbers.join(", ")))
}

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
        ([], None) => Err(nobody(log, who)),
        (several, _) => Err(ambiguous(who, several)),
    }
}
