//! Who may come in: one-time URLs, the sessions that they open, and what a request has to show.
//!
//! A page of another site cannot speak for the user: what changes something has to come from a page of
//! this very origin, or carry the session itself. A name that somebody points at this machine opens
//! nothing either: the console is addressed by number, or as `localhost`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::refusal::Refusal;
use crate::server::App;
use crate::{Code, Failure, assets};

/// How long a one-time URL may be used.
const URL_LIFE: Duration = Duration::from_secs(600);
/// One-time URLs that are open, and sessions: the oldest gives way.
const AT_ONCE: usize = 16;
/// The cookie that a session lies in is called this and the port: a browser sends cookies to every port
/// of a host, and another console's is not to take this one's place.
const COOKIE: &str = "fieldkeep-";
/// What a page may load and do: nothing that is not this console's own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The keys that are about.
#[derive(Debug, Default)]
pub(crate) struct Doors(Mutex<Keys>);

#[derive(Debug, Default)]
struct Keys {
    /// One-time keys, and until when each may be used.
    once: VecDeque<(String, Instant)>,
    sessions: VecDeque<String>,
    /// Sessions of programs, which are to end nobody's in a browser.
    tokens: VecDeque<String>,
}

impl Doors {
    /// A key that opens one session.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn cut_key(&self) -> Result<String, Failure> {
        let key = secret()?;
        let mut keys = self.keys();
        keys.once.push_back((key.clone(), Instant::now() + URL_LIFE));
        while keys.once.len() > AT_ONCE {
            keys.once.pop_front();
        }
        Ok(key)
    }

    /// A session of its own, for a program.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn token(&self) -> Result<String, Failure> {
        kept(&mut self.keys().tokens)
    }

    /// Takes a one-time key for a session; nothing if it is none, was used, or is too old.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn enter(&self, key: &str) -> Result<Option<String>, Failure> {
        let known = {
            let mut keys = self.keys();
            let now = Instant::now();
            keys.once.retain(|(_, until)| *until > now);
            let at = keys.once.iter().position(|(other, _)| same(other, key));
            at.and_then(|at| keys.once.remove(at))
        };
        known.map(|_| kept(&mut self.keys().sessions)).transpose()
    }

    /// Ends a session.
    pub(crate) fn leave(&self, session: &str) {
        self.keys().sessions.retain(|other| !same(other, session));
    }

    fn admits(&self, session: &str) -> bool {
        // All are compared: how long it takes says nothing of any.
        let keys = self.keys();
        let all = keys.sessions.iter().chain(&keys.tokens);
        all.fold(false, |found, other| found | same(other, session))
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A secret that is kept with others: the oldest gives way.
fn kept(secrets: &mut VecDeque<String>) -> Result<String, Failure> {
    let secret = secret()?;
    secrets.push_back(secret.clone());
    while secrets.len() > AT_ONCE {
        secrets.pop_front();
    }
    Ok(secret)
}

/// Compares secrets in a time that depends on nothing but their length.
fn same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && differences == 0
}

/// Random bytes as a word.
///
/// # Errors
/// When the system has no randomness.
pub(crate) fn secret() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(Code::Failure, format!("no randomness: {error}"), "try again")
    })?;
    Ok(data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase())
}

/// The session that a request shows, and whether it shows it by itself, which no page of another site
/// can have it do.
pub(crate) fn shown(headers: &HeaderMap, address: SocketAddr) -> Option<(&str, bool)> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(session) = bearer.and_then(|value| value.strip_prefix("Bearer ")) {
        return Some((session, true));
    }
    cookie_named(headers, &format!("{COOKIE}{}", address.port())).map(|session| (session, false))
}

/// The cookie of a name.
pub(crate) fn cookie_named<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies =
        cookies.flat_map(|value| value.split(';')).filter_map(|c| c.trim().split_once('='));
    cookies.find(|(other, _)| *other == name).map(|(_, value)| value)
}

/// The cookie of a session; of one that ends where there is none.
pub(crate) fn cookie(session: Option<&str>, address: SocketAddr) -> String {
    let life = if session.is_some() { "" } else { "; Max-Age=0" };
    let (port, session) = (address.port(), session.unwrap_or_default());
    format!("{COOKIE}{port}={session}; Path=/; HttpOnly; SameSite=Strict{life}")
}

/// Lets in whoever may come in, and says with every answer what a page may do.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let api = request.uri().path().starts_with("/api/");
    let asset = request.uri().path().starts_with("/assets/");
    let mut response = match admit(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) if api => refusal.into_json(),
        Err(refusal) => refusal.into_page(),
    };
    dress(&mut response, asset);
    response
}

/// Says with an answer what a page may do, and who may keep it.
pub(crate) fn dress(response: &mut Response, asset: bool) {
    let headers = response.headers_mut();
    let mut say = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    say(header::CONTENT_SECURITY_POLICY, POLICY);
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::X_FRAME_OPTIONS, "DENY");
    // Not none at all: without one a browser does not say where a form comes from.
    say(header::REFERRER_POLICY, "same-origin");
    say(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    say(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if !asset {
        say(header::CACHE_CONTROL, "no-store");
    }
}

fn admit(app: &App, request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_ours(host, app.address()) {
        return Err(misdirected("open the address that `fieldkeep console` prints"));
    }
    let path = request.uri().path();
    if path.starts_with("/assets/") || path.starts_with("/enter/") {
        return Ok(());
    }
    let session = shown(headers, app.address()).filter(|(session, _)| app.doors().admits(session));
    let Some((_, by_itself)) = session else {
        let remedy = "`fieldkeep console` prints an address that opens one";
        return Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            Code::Denied,
            "there is no session here",
            remedy,
        ));
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || by_itself || is_from(headers, &format!("http://{host}")) {
        return Ok(());
    }
    Err(foreign())
}

/// What somebody gets who comes by another name.
pub(crate) fn misdirected(remedy: &str) -> Refusal {
    let text = "this console is reached by its number, or as localhost";
    Refusal::new(StatusCode::MISDIRECTED_REQUEST, Code::Denied, text, remedy)
}

/// What a form gets that is on another site's page.
pub(crate) fn foreign() -> Refusal {
    let text = "this did not come from a page of this console, and nothing was done";
    Refusal::new(StatusCode::FORBIDDEN, Code::Denied, text, "open the console itself")
}

/// Whether a request comes from a page of this console, whose origin that is.
pub(crate) fn is_from(headers: &HeaderMap, own: &str) -> bool {
    match headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()) {
        Some(origin) => origin == own,
        // Where a browser leaves the origin out, it says this.
        None => headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin"),
    }
}

/// Whether a name is this console's: a number, or `localhost`, with its port.
pub(crate) fn is_ours(host: &str, address: SocketAddr) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, Some(80)),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let known = match name.parse::<IpAddr>() {
        Ok(number) => number.is_loopback() || !address.ip().is_loopback(),
        Err(_) => name == "localhost",
    };
    known && port == Some(address.port())
}

/// What a one-time URL answers: the session, and the way to the first page. Not a redirect, which a
/// browser would follow without the new cookie where the URL was opened from another site.
pub(crate) fn welcome(session: &str, address: SocketAddr) -> Response {
    let headers = [
        (header::SET_COOKIE, cookie(Some(session), address)),
        (header::REFRESH, "0; url=/".to_owned()),
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
    ];
    let icon = assets::url("icon.svg");
    let page = format!(
        "<!doctype html><title>Fieldkeep</title><link rel=\"icon\" href=\"{icon}\">\
         <a href=\"/\">Open the console</a>"
    );
    (headers, page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_one_session_and_no_second() {
        let doors = Doors::default();
        let key = doors.cut_key().expect("randomness");
        assert!(doors.enter("another").expect("randomness").is_none());
        let session = doors.enter(&key).expect("randomness").expect("it is good");
        assert!(doors.enter(&key).expect("randomness").is_none(), "it was used");
        assert!(doors.admits(&session) && !doors.admits(&key) && !doors.admits(""));
        doors.leave(&session);
        assert!(!doors.admits(&session));
    }

    #[test]
    fn a_name_that_points_here_is_none_of_ours() {
        let here: SocketAddr = "127.0.0.1:7442".parse().expect("an address");
        for host in ["127.0.0.1:7442", "localhost:7442", "[::1]:7442"] {
            assert!(is_ours(host, here), "{host}");
        }
        for host in ["evil.example:7442", "127.0.0.1:80", "192.168.1.5:7442", "localhost", ""] {
            assert!(!is_ours(host, here), "{host}");
        }
        let everywhere: SocketAddr = "0.0.0.0:7442".parse().expect("an address");
        assert!(is_ours("192.168.1.5:7442", everywhere));
        assert!(!is_ours("evil.example:7442", everywhere));
    }

    #[test]
    fn the_oldest_session_gives_way() {
        let doors = Doors::default();
        let first = doors.token().expect("randomness");
        let others: Vec<_> = (0..AT_ONCE).map(|_| doors.token().expect("randomness")).collect();
        assert!(!doors.admits(&first));
        assert!(others.iter().all(|session| doors.admits(session)));
    }
}
