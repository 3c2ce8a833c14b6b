//! `call`, `calls` and `ask`: what the relay does and answers at once.

use std::process::ExitCode;

use serde_json::Value;

use crate::access::Access;
use crate::args::{Ask, Call, Directory};
use crate::output::{Align, Output, Table, safe};
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::shape::CallRow;
use fieldkeep_console::{Failure, Trouble};

pub(crate) fn call(args: Call, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let millis = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Call(args.action.clone(), args.input, millis);
    let Response::Called(called) = Access::new(&dir.path()?)?.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("call", &called)?;
        return Ok(ExitCode::SUCCESS);
    }
    for record in &called.records {
        output.line(&format!("wrote {}", safe(record)))?;
    }
    if let Some(answer) = called.answer.as_ref().filter(|answer| !answer.is_empty()) {
        output.line(&safe(answer))?;
    }
    output.line(&format!("{} is done", args.action))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn ask(args: Ask, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let millis = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Ask(args.query, args.params, millis);
    let Response::Answered(answer) = Access::new(&dir.path()?)?.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("ask", &answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let numeric = |at: usize| {
        !answer.rows.is_empty()
            && answer.rows.iter().all(|row| row.get(at).is_some_and(Value::is_number))
    };
    let columns =
        answer.columns.iter().enumerate().map(|(at, name)| {
            (name.as_str(), if numeric(at) { Align::Right } else { Align::Left })
        });
    let mut table = Table::new(&columns.collect::<Vec<_>>());
    for row in &answer.rows {
        table.row(row.iter().map(cell).collect());
    }
    table.print(output.writer())?;
    if !answer.whole {
        crate::note("there are more rows than an answer has: narrow the question down");
    }
    Ok(ExitCode::SUCCESS)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

pub(crate) fn calls(dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let Response::Calls(calls) = Access::new(&dir.path()?)?.ask(Request::Calls)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("calls", &serde_json::json!({ "calls": calls }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = ["call", "what", "state", "time"].map(|name| (name, Align::Left));
    let mut table = Table::new(&columns);
    for call in calls {
        let CallRow { number, what, state, reason, time, .. } = call;
        let state = state.replace('_', " ");
        let state = reason.map_or(state.clone(), |reason| format!("{state}: {reason}"));
        table.row(vec![number.to_string(), what, state, time]);
    }
    table.print(output.writer())?;
    Ok(ExitCode::SUCCESS)
}
