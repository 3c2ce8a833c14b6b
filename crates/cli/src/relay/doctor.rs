//! `relay doctor`: what is stored against what it should be, read beside whoever serves it.

use std::path::Path;
use std::process::ExitCode;

use fieldkeep_console::shape::Check;
use fieldkeep_console::{Code, Failure, Trouble};
use fieldkeep_relay::{Examined, examine};

use crate::access::{Access, Kind, kind};
use crate::health::tell_checks;
use crate::output::Output;
use crate::request::Request;
use crate::response::Response;
use crate::time::now_ms;

pub(super) fn run(
    directory: &Path,
    repair: bool,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    if kind(directory)? == Kind::Device {
        let message = format!("{} is a device's directory", directory.display());
        return Err(
            Failure::new(Code::Usage, message, "`fieldkeep doctor` looks at a device").into()
        );
    }
    let mut examined = examine(directory, now_ms()).map_err(Failure::from)?;
    let mut repaired = None;
    if repair {
        repaired = Some(mend(directory, &examined)?);
        examined = examine(directory, now_ms()).map_err(Failure::from)?;
    }
    let checks: Vec<Check> = examined.checks.into_iter().map(Check::from).collect();
    tell_checks(&checks, repaired, "relay-doctor", output)
}

/// Has the owner derive again what is not what it should be.
fn mend(directory: &Path, examined: &Examined) -> Result<u64, Trouble> {
    let segments = examined.mendable.iter().map(ToString::to_string).collect();
    let Response::Taken(mended) = Access::new(directory)?.ask(Request::Mend(segments))? else {
        return Err(Failure::unexpected().into());
    };
    Ok(mended)
}
