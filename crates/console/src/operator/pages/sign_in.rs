//! Signing in and out.

use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use fieldkeep_store::Operators as _;
use serde::Deserialize;

use super::{Answer, html};
use crate::assets;
use crate::doors::secret;
use crate::operator::App;
use crate::operator::accounts::{Refused, known_as};
use crate::operator::gate::{Cookie, Posted, Who};
use crate::operator::sessions::form_token;
use crate::pages::back;
use crate::words::several;

#[derive(Template)]
#[template(path = "operator/sign_in.html")]
struct SignIn {
    organisation: String,
    /// Whether nobody has an account yet.
    nobody: bool,
    token: String,
    /// Where to go afterwards.
    to: String,
    name: String,
    /// Why it did not go well.
    problem: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Towards {
    to: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/sign-in", get(shown).post(sign_in)).route("/sign-out", post(sign_out))
}

async fn shown(
    State(app): State<App>,
    who: Option<Extension<Who>>,
    headers: HeaderMap,
    Query(Towards { to }): Query<Towards>,
) -> Answer {
    if who.is_some() {
        return Ok(Redirect::to("/").into_response());
    }
    // Another page that is open keeps its token.
    let known = app.shown(&headers, Cookie::Before).filter(|known| known.len() == SECRET);
    let before = known.map_or_else(secret, |known| Ok(known.to_owned()))?;
    let page = form(&app, &before, to, String::new(), None).await?;
    let cookie = app.cookie(Cookie::Before, Some(&before));
    Ok(([(header::SET_COOKIE, cookie)], page).into_response())
}

/// The length of a secret as a word.
const SECRET: usize = 52;

async fn form(
    app: &App,
    before: &str,
    to: String,
    name: String,
    problem: Option<String>,
) -> Answer {
    let token = form_token(before);
    let page = app.read(move |_, reading| {
        let nobody = reading.store.operators()?.is_empty();
        let organisation = reading.members.name().to_owned();
        Ok(SignIn { organisation, nobody, token, to, name, problem })
    });
    Ok(html(&page.await?))
}

async fn sign_in(
    State(app): State<App>,
    who: Option<Extension<Who>>,
    headers: HeaderMap,
    Extension(posted): Extension<Posted>,
) -> Answer {
    let [name, to] = ["name", "to"].map(|field| posted.text(field).to_owned());
    if who.is_some() {
        return Ok(back(&to));
    }
    let (status, problem, wait) =
        match app.signs_in(&name, posted.whole("password").to_owned()).await {
            Ok(account) => {
                let session = app.sessions().begin(&account, Instant::now())?;
                app.note(&account.name, "sign_in", "").await;
                let cookies = AppendHeaders([
                    (header::SET_COOKIE, app.cookie(Cookie::Session, Some(&session))),
                    (header::SET_COOKIE, app.cookie(Cookie::Before, None)),
                ]);
                return Ok((cookies, back(&to)).into_response());
            }
            Err(Refused::Failed(failure)) => return Err(failure.into()),
            Err(Refused::Wrong) => {
                app.note(&known_as(&name), "refused", "wrong name or password").await;
                let text = "This name and this password do not belong together.".to_owned();
                (StatusCode::FORBIDDEN, text, None)
            }
            Err(Refused::TooOften(wait, fresh)) => {
                if fresh {
                    app.note(&known_as(&name), "refused", "tried too often").await;
                }
                let text = format!("This was tried too often: try again in {}.", patience(wait));
                (StatusCode::TOO_MANY_REQUESTS, text, Some(wait))
            }
        };
    let before = app.shown(&headers, Cookie::Before).unwrap_or_default().to_owned();
    let page = form(&app, &before, to, name, Some(problem)).await?;
    let seconds = wait.map(|wait| [(header::RETRY_AFTER, wait.as_secs().max(1).to_string())]);
    Ok((status, seconds.map(AppendHeaders), page).into_response())
}

fn patience(wait: Duration) -> String {
    match wait.as_secs() {
        0..60 => "a minute".to_owned(),
        seconds => several(seconds.div_ceil(60), "minute"),
    }
}

async fn sign_out(State(app): State<App>, Extension(who): Extension<Who>) -> Response {
    app.sessions().end(&who.secret);
    app.note(&who.name, "sign_out", "").await;
    let cookie = app.cookie(Cookie::Session, None);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/sign-in")).into_response()
}

impl SignIn {
    fn asset(&self, name: &str) -> String {
        assets::url(name)
    }
}
