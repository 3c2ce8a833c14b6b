//! The gate of a relay's console: every request passes here, and what it may do is decided here alone.
//!
//! It comes by the console's own name. What changes something is a form of this console's own page, with
//! the token of the session that it was made for. Who comes has a session, whose account is as it was when
//! that began, and may do what is asked. What is not listed as harmless needs the highest role.

use std::time::Instant;

use axum::Form;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest as _, Multipart, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use fieldkeep_relay::OperatorRole;
use fieldkeep_store::Operators as _;

use super::App;
use super::sessions::{is_form_token, stamp};
use crate::doors::{cookie_named, dress, foreign, is_from, is_ours, misdirected};
use crate::pages::segment;
use crate::refusal::Refusal;
use crate::{Code, Failure};

/// The longest body of a request, in bytes: a catalog is the longest that is sent.
const BODY: usize = 2 * 1024 * 1024;
/// The field of a form that shows whose it is.
const TOKEN: &str = "token";

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) name: String,
    pub(super) role: OperatorRole,
    /// What the cookie holds.
    pub(super) secret: String,
}

/// What a form says, whose token was good.
#[derive(Clone, Debug, Default)]
pub(super) struct Posted(Vec<(String, String)>);

impl Posted {
    /// A field; empty where it was not sent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.whole(name).trim()
    }

    /// The same as it was sent: of a password every space counts.
    pub(super) fn whole(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map_or("", |(_, value)| value)
    }

    /// All of them.
    pub(super) fn fields(&self) -> &[(String, String)] {
        &self.0
    }
}

/// The cookies of a console: of a session, and of somebody who is about to sign in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cookie {
    Session,
    Before,
}

impl App {
    /// What a cookie is called. A browser sends cookies to every port of a host: each console has its own.
    fn cookie_name(&self, cookie: Cookie) -> String {
        let port = self.0.address.port();
        let (prefix, secure) = match self.is_secure() {
            true => ("__Host-", String::new()),
            false => ("", format!("-{port}")),
        };
        let what = match cookie {
            Cookie::Session => "operator",
            Cookie::Before => "before",
        };
        format!("{prefix}fieldkeep-{what}{secure}")
    }

    fn is_secure(&self) -> bool {
        self.0.proxy.as_ref().is_some_and(crate::Origin::is_secure)
    }

    /// Sets a cookie, or takes it back.
    pub(super) fn cookie(&self, cookie: Cookie, secret: Option<&str>) -> String {
        let name = self.cookie_name(cookie);
        let life = if secret.is_some() { "" } else { "; Max-Age=0" };
        let secure = if self.is_secure() { "; Secure" } else { "" };
        let secret = secret.unwrap_or_default();
        format!("{name}={secret}; Path=/; HttpOnly; SameSite=Strict{secure}{life}")
    }

    /// What a cookie holds.
    pub(super) fn shown<'h>(&self, headers: &'h HeaderMap, cookie: Cookie) -> Option<&'h str> {
        cookie_named(headers, &self.cookie_name(cookie))
    }

    /// Whose session it is, if it is one and its account is what it was when it began.
    async fn who(&self, secret: &str, uses: bool) -> Result<Option<Who>, Failure> {
        let Some(signed) = self.sessions().of(secret, uses, Instant::now()) else {
            return Ok(None);
        };
        let name = signed.name.clone();
        let account =
            self.on_disk(move |app| Ok::<_, Failure>(app.office().reader()?.operator(&name)?));
        let account = account.await?.filter(|account| stamp(account) == signed.account);
        let role = account.and_then(|account| account.role.parse().ok());
        let Some(role) = role else {
            self.sessions().end(secret);
            return Ok(None);
        };
        Ok(Some(Who { name: signed.name, role, secret: secret.to_owned() }))
    }
}

/// Lets in whoever may come in, and says with every answer what a page may do.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let asset = request.uri().path().starts_with("/assets/");
    let mut response = match admit(&app, request).await {
        Ok(request) => next.run(request).await,
        Err(response) => *response,
    };
    dress(&mut response, asset);
    response
}

/// What a request needs, by what it asks for: this is the one list of it.
fn needed(method: &Method, path: &str) -> OperatorRole {
    let acts = *method == Method::POST;
    match path {
        "/sign-out" | "/seen" => OperatorRole::View,
        "/access" => OperatorRole::Administer,
        _ if !acts => OperatorRole::View,
        _ if path.starts_with("/quarantine/") => OperatorRole::Judge,
        _ => OperatorRole::Administer,
    }
}

async fn admit(app: &App, request: Request) -> Result<Request, Box<Response>> {
    let no = |refusal: Refusal| Box::new(refusal.into_page());
    let (mut parts, body) = request.into_parts();
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let own = match &app.0.proxy {
        Some(proxy) if host.eq_ignore_ascii_case(proxy.host()) => proxy.to_string(),
        None if is_ours(host, app.0.address) => format!("http://{host}"),
        Some(_) | None => {
            return Err(no(misdirected("open the address that `fieldkeep relay serve` prints")));
        }
    };
    let path = parts.uri.path().to_owned();
    let acts = parts.method == Method::POST;
    if !acts && !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Box::new(StatusCode::METHOD_NOT_ALLOWED.into_response()));
    }
    if !acts && path.starts_with("/assets/") {
        return Ok(Request::from_parts(parts, body));
    }
    if acts && !is_from(&parts.headers, &own) {
        return Err(no(foreign()));
    }
    let by_itself = parts.headers.contains_key("hx-request") || path.starts_with("/events");
    let secret = app.shown(&parts.headers, Cookie::Session).map(str::to_owned);
    let who = match &secret {
        Some(secret) => app.who(secret, !by_itself).await.map_err(|failure| no(failure.into()))?,
        None => None,
    };
    let signs_in = path == "/sign-in";
    if who.is_none() && !signs_in {
        return Err(Box::new(unknown(acts || by_itself, &parts.uri.to_string())));
    }
    let body = if acts {
        let posted = posted(&parts.headers, body).await.map_err(no)?;
        let secret = match &who {
            Some(who) => Some(who.secret.as_str()),
            None => app.shown(&parts.headers, Cookie::Before),
        };
        // Whoever is signed in already is only led on by it.
        let idle = signs_in && who.is_some();
        if !idle && !secret.is_some_and(|secret| is_form_token(secret, posted.text(TOKEN))) {
            return Err(no(foreign()));
        }
        parts.extensions.insert(posted);
        Body::empty()
    } else {
        body
    };
    if let Some(who) = who {
        let needed = needed(&parts.method, &path);
        if who.role < needed && !signs_in {
            if let Some(rest) = app.is_noted(&who.name) {
                app.note(&who.name, "denied", format!("{} {path}{rest}", parts.method)).await;
            }
            let text = format!("this needs the role {needed}, and {} has {}", who.name, who.role);
            let remedy = "nothing was done: whoever runs the relay gives roles, with \
                          `fieldkeep relay operator role`";
            return Err(no(Failure::new(Code::Denied, text, remedy).into()));
        }
        parts.extensions.insert(who);
    }
    Ok(Request::from_parts(parts, body))
}

/// What somebody gets who is not signed in: the way to do that, unless he was about to do something.
fn unknown(stays: bool, to: &str) -> Response {
    if !stays {
        return Redirect::to(&format!("/sign-in?to={}", segment(to))).into_response();
    }
    let text = "nobody is signed in here any more";
    let remedy = "sign in again: what was asked for was not done";
    Refusal::new(StatusCode::UNAUTHORIZED, Code::Denied, text, remedy).into_page()
}

/// What a form says, whichever way it was sent.
async fn posted(headers: &HeaderMap, body: Body) -> Result<Posted, Refusal> {
    let too_long = |_| {
        let text = "this is longer than anything that is sent here";
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::Usage, text, "nothing was done")
    };
    let unclear = || {
        Refusal::from(Failure::new(
            Code::Usage,
            "this form is not to be understood",
            "nothing was done",
        ))
    };
    let bytes = to_bytes(body, BODY).await.map_err(too_long)?;
    let kind = headers.get(header::CONTENT_TYPE).cloned();
    let is_parted = kind.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/"));
    let mut request = Request::builder().method(Method::POST);
    if let Some(kind) = kind {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    let request = request.body(Body::from(bytes)).map_err(|_| unclear())?;
    if !is_parted {
        let form = Form::<Vec<(String, String)>>::from_request(request, &()).await;
        return Ok(Posted(form.map_err(|_| unclear())?.0));
    }
    let mut parts = Multipart::from_request(request, &()).await.map_err(|_| unclear())?;
    let mut fields = Vec::new();
    while let Some(field) = parts.next_field().await.map_err(|_| unclear())? {
        let name = field.name().unwrap_or_default().to_owned();
        fields.push((name, field.text().await.map_err(|_| unclear())?));
    }
    Ok(Posted(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_needs_the_highest_role() {
        use OperatorRole::{Administer, Judge, View};
        for (method, path, role) in [
            (Method::GET, "/", View),
            (Method::GET, "/catalog", View),
            (Method::GET, "/limits", View),
            (Method::GET, "/backup", View),
            (Method::GET, "/access", Administer),
            (Method::POST, "/sign-out", View),
            (Method::POST, "/quarantine/order/o1/dismiss", Judge),
            (Method::POST, "/quarantine/rejudge", Judge),
            (Method::POST, "/catalog/publish", Administer),
            (Method::POST, "/backup", Administer),
            (Method::POST, "/anything", Administer),
        ] {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
    }
}
