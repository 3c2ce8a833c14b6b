//! `advice`, `explain` and `doctor`: what is wrong, with a device or with one record, and what to do.

use std::process::ExitCode;

use fieldkeep_model::RecordKey;
use serde_json::json;

use crate::access::Access;
use crate::args::Directory;
use crate::output::{Output, safe, several};
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::shape::Check;
use fieldkeep_console::{Code, Failure, Trouble};

pub(crate) fn advice(dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::Advice(advice) = access.ask(Request::Advice)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("advice", &json!({ "advice": advice }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if advice.is_empty() {
        output.line(
            "all is well: everything here is proven equal to the relay, and nothing is unsaved",
        )?;
    }
    for one in advice {
        let since = one.since.map(|since| format!("  (since {since})")).unwrap_or_default();
        output.line(&format!("{}{since}", safe(&one.text)))?;
        output.line(&format!("  {}", one.command))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn explain(
    key: RecordKey,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::Explained(explained) = access.ask(Request::Explain((key.ty, key.id)))? else {
        return Err(Failure::unexpected().into());
    };
    let here = explained.record.is_some();
    if output.is_json() {
        output.object("explain", &explained)?;
    } else {
        for sentence in &explained.sentences {
            output.line(&safe(sentence))?;
        }
        if let Some(segment) = &explained.segment {
            output.line(&format!("  segment {}", safe(segment)))?;
        }
        for culprit in explained.record.iter().flat_map(|r| &r.verdict).flat_map(|v| &v.culprits) {
            let fields = culprit.fields.join(", ");
            let change = &culprit.change[..8.min(culprit.change.len())];
            let (person, device) = (safe(&culprit.person), safe(&culprit.device));
            output.line(&format!(
                "  the rule objects to {fields}: {person} on {device}, change {change}"
            ))?;
        }
        for (writer, head) in explained.writers.iter().zip(&explained.heads) {
            let changes = if writer.changes == 1 { "change" } else { "changes" };
            output.line(&format!(
                "  {} wrote {} {changes}, the last {} ({})",
                safe(&writer.device),
                writer.changes,
                writer.last,
                &head[..8.min(head.len())]
            ))?;
        }
    }
    Ok(if here { ExitCode::SUCCESS } else { ExitCode::from(Code::NotFound.number()) })
}

pub(crate) fn doctor(
    repair: bool,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::Checked(checks, repaired) = access.ask(Request::Doctor(repair))? else {
        return Err(Failure::unexpected().into());
    };
    tell_checks(&checks, repaired, "doctor", output)
}

/// Tells what a doctor found, and how many segments were derived again; the exit code says whether something
/// is wrong.
pub(crate) fn tell_checks(
    checks: &[Check],
    repaired: Option<u64>,
    schema: &str,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let wrong = checks.iter().any(|check| check.finding == "wrong");
    if output.is_json() {
        output.object(schema, &json!({ "checks": checks, "derived_again": repaired }))?;
    } else {
        if let Some(segments) = repaired {
            let what = several(segments, "segment");
            output.line(&format!("derived {what} again; changes were not touched"))?;
        }
        for check in checks {
            let mark = match check.finding.as_str() {
                "fine" => "ok   ",
                "notice" => "note ",
                _ => "WRONG",
            };
            output.line(&format!("{mark}  {:<11} {}", check.name, safe(&check.text)))?;
            if let Some(remedy) = &check.remedy {
                output.line(&format!("                   {}", safe(remedy)))?;
            }
        }
    }
    Ok(if wrong { ExitCode::from(Code::Integrity.number()) } else { ExitCode::SUCCESS })
}
