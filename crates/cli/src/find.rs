//! `search` and `watch`: records by the words in them, and as they change.

use std::process::ExitCode;

use fieldkeep_device::Device;
use fieldkeep_model::TypeName;

use crate::access::{Access, DeviceOwner, Owner, own};
use crate::args::Directory;
use crate::execute;
use crate::output::{self, Output, Stream};
use crate::request::Request;
use crate::socket;
use crate::sync::{Stop, runtime};
use fieldkeep_console::shape::Record;
use fieldkeep_console::{Code, Trouble};

pub(crate) fn search(
    text: &[String],
    ty: Option<TypeName>,
    limit: usize,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let request = Request::Search(text.join(" "), ty, limit);
    if output.is_json() {
        let mut stream = Stream::new(output, "search", &[]);
        access.ask_for_records(request, &mut |record| Ok(stream.push(&record)?))?;
        stream.end(&[])?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut found = 0;
    access.ask_for_records(request, &mut |record| {
        found += 1;
        Ok(output::record(output.writer(), &record)?)
    })?;
    if found == 0 {
        crate::note("no record has all of these words");
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells of records as they change: through the process that keeps the device synced, or as that.
pub(crate) fn watch(
    ty: Option<TypeName>,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let directory = dir.path()?;
    let request = Request::Watch(ty);
    let runtime = runtime()?;
    runtime.spawn(async {
        if let Ok(mut stop) = Stop::new() {
            stop.asked().await;
        }
        // Nothing is under way that is not durable.
        std::process::exit(i32::from(Code::Interrupted.number()));
    });
    if socket::is_answering(&directory) {
        let tell = &mut |record: Record| tell(output, &record);
        socket::ask(&directory, &request, tell)?;
        return Ok(ExitCode::SUCCESS);
    }
    let device = own(&directory, Device::open)?;
    let kept = device.clone();
    runtime.spawn(async move { kept.keep_synced().await });
    let handle = runtime.handle().clone();
    let owner = Owner::Device(DeviceOwner { device, runtime: Some(handle), porter: None });
    execute::execute(&owner, request, &mut |record| tell(output, &record))?;
    Ok(ExitCode::SUCCESS)
}

fn tell(output: &mut Output, record: &Record) -> Result<(), Trouble> {
    if output.is_json() {
        output.object("watch-record", record)?;
    } else {
        output::record(output.writer(), record)?;
    }
    Ok(output.flush()?)
}
