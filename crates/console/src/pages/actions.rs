//! What needs a connection: the catalog's actions and queries as forms, what they came to, and the calls
//! of the last days.

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use fieldkeep_catalog::{Catalog, Inputs};
use fieldkeep_device::OnlineError;
use serde_json::{Map, Value};

use super::form::{self, Input, Shape};
use super::words::{self, label, several};
use super::{Answer, Chrome, back, html, page, segment};
use crate::Failure;
use crate::server::App;
use crate::shape::{self, CallRow};

/// How long the relay may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An action or a query.
#[derive(Debug)]
struct Offer {
    name: String,
    label: String,
    description: String,
    path: String,
    inputs: Vec<Input>,
    /// Why it was refused when it was asked for last, here.
    problem: Option<Failure>,
}

#[derive(Template)]
#[template(path = "actions.html")]
struct Actions {
    chrome: Chrome,
    actions: Vec<Offer>,
    queries: Vec<Offer>,
    calls: Vec<CallRow>,
    online: bool,
}

#[derive(Template)]
#[template(path = "answer.html")]
struct Answered {
    chrome: Chrome,
    answer: shape::Answer,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/actions", get(actions))
        .route("/actions/{name}", post(call))
        .route("/queries/{name}", post(ask))
}

async fn actions(State(app): State<App>) -> Response {
    page(&app, |app| shown(app, None)).await
}

/// What was typed for an action or a query that was refused, and why.
type Refused<'a> = (&'a str, &'a form::Answers, Failure);

fn shown(app: &App, refused: Option<Refused<'_>>) -> Result<Actions, Failure> {
    let chrome = Chrome::of(app, "actions", "Actions", "/actions")?;
    let blank = form::Answers::default();
    let offer = |kind: &str, name: &String, description: &String, inputs: &Inputs| {
        let path = format!("/{kind}/{}", segment(name));
        let typed = refused.as_ref().filter(|(refused, ..)| *refused == path);
        let answers = typed.map_or(&blank, |(_, answers, _)| *answers);
        let (name, description) = (name.clone(), description.clone());
        let label = label(&name);
        let inputs = form::fields(&inputs.fields, &Map::new(), answers);
        let problem = typed.map(|(.., failure)| failure.clone());
        Offer { label, name, description, path, inputs, problem }
    };
    let catalog = app.device().catalog();
    let actions = catalog
        .iter()
        .flat_map(Catalog::actions)
        .map(|(name, action)| offer("actions", name, &action.description, &action.input));
    let queries = catalog
        .iter()
        .flat_map(Catalog::queries)
        .map(|(name, query)| offer("queries", name, &query.description, &query.params));
    let (actions, queries) = (actions.collect(), queries.collect());
    let calls = app.device().calls()?.into_iter().map(CallRow::from).collect();
    Ok(Actions { chrome, actions, queries, calls, online: app.device().is_online() })
}

async fn call(
    State(app): State<App>,
    Path(name): Path<String>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Answer {
    let answers = form::Answers::new(pairs);
    let done = async {
        let catalog = app.device().catalog().ok_or(OnlineError::NoCatalog)?;
        let known = || OnlineError::unknown("action", &name, catalog.actions().keys());
        let action = catalog.action(&name).ok_or_else(known)?;
        let input = action.input.read_words(&answers.words())?;
        Ok::<_, Failure>(app.device().call(&name, &input, PATIENCE).await?)
    };
    match done.await {
        Ok(called) => {
            let written = several(called.records.len(), "record");
            let mut text = format!("{} is done: {written} written", label(&name));
            text.extend(called.answer.iter().map(|answer| format!(". The host says: {answer}")));
            app.desk().tell(true, text, "");
            Ok(back("/actions"))
        }
        Err(failure) => {
            refused(&app, format!("/actions/{}", segment(&name)), answers, failure).await
        }
    }
}

async fn ask(
    State(app): State<App>,
    Path(name): Path<String>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Answer {
    let answers = form::Answers::new(pairs);
    let done = async {
        let catalog = app.device().catalog().ok_or(OnlineError::NoCatalog)?;
        let known = || OnlineError::unknown("query", &name, catalog.queries().keys());
        let query = catalog.query(&name).ok_or_else(known)?;
        let params = query.params.read_words(&answers.words())?;
        Ok::<_, Failure>(app.device().ask(&name, &params, PATIENCE).await?)
    };
    match done.await {
        Ok(answer) => {
            let answered = move |app: &App| {
                let chrome = Chrome::of(app, "actions", &label(&name), "/actions")?;
                Ok::<_, Failure>(Answered { chrome, answer: answer.into() })
            };
            Ok(html(&app.on_disk(answered).await?))
        }
        Err(failure) => {
            refused(&app, format!("/queries/{}", segment(&name)), answers, failure).await
        }
    }
}

/// The page once more, with what was typed and why it was refused.
async fn refused(app: &App, path: String, answers: form::Answers, failure: Failure) -> Answer {
    let page = app.on_disk(move |app| shown(app, Some((&path, &answers, failure)))).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, html(&page)).into_response())
}

impl Answered {
    fn cell(&self, value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => words::value(value),
        }
    }
}

impl Actions {
    fn state(&self, call: &CallRow) -> String {
        call.state.replace('_', " ")
    }

    fn tone(&self, call: &CallRow) -> &'static str {
        match call.state.as_str() {
            "done" => "good",
            "refused" => "bad",
            _ => "warn",
        }
    }
}
