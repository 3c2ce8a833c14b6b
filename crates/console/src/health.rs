//! How a relay is doing, over HTTP on a port of its own: `/healthz`, `/readyz` and `/metrics`, for whoever
//! watches it. Shows counts and nothing of anybody's records, asks for no password, and changes nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fieldkeep_relay::Vitals;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{Code, Failure};

/// What Prometheus is told that the metrics are.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The port on which a process tells how its relay is doing, as long as this lives.
#[derive(Debug)]
pub struct Health {
    address: SocketAddr,
    stage: Stage,
    served: JoinHandle<()>,
}

/// How far the process is.
type Stage = Arc<Mutex<Life>>;

#[derive(Clone, Debug)]
enum Life {
    Opens,
    Serves(Box<Vitals>),
    Stops,
}

impl Health {
    /// Answers at an address from now on; port 0 takes any free one. Until it is told more, the relay is
    /// being opened.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let refused = |error: std::io::Error| {
            let message = format!("the health port {address} cannot be opened: {error}");
            Failure::new(Code::Failure, message, "give another address: --health 127.0.0.1:0")
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let stage = Stage::new(Mutex::new(Life::Opens));
        let routes = Router::new()
            .route("/healthz", get(alive))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(Arc::clone(&stage));
        let served = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "nobody is told any more how the relay is; it goes on");
            }
        });
        Ok(Self { address, stage, served })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The relay serves.
    pub fn serves(&self, vitals: Vitals) {
        self.enter(Life::Serves(Box::new(vitals)));
    }

    /// The relay stops.
    pub fn stops(&self) {
        self.enter(Life::Stops);
    }

    fn enter(&self, life: Life) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = life;
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.served.abort();
    }
}

fn life(stage: &Stage) -> Life {
    stage.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Whether the process is worth keeping: one that opens or stops is.
async fn alive(State(stage): State<Stage>) -> Response {
    match life(&stage) {
        Life::Serves(vitals) if !vitals.is_alive() => unavailable("the relay has stopped"),
        Life::Serves(_) | Life::Opens | Life::Stops => "alive\n".into_response(),
    }
}

/// Whether devices are served, and what they bring is saved.
async fn ready(State(stage): State<Stage>) -> Response {
    let trouble = match life(&stage) {
        Life::Opens => Some("the relay is being opened".to_owned()),
        Life::Serves(vitals) => vitals.trouble(),
        Life::Stops => Some("the relay stops".to_owned()),
    };
    trouble.map_or_else(|| "ready\n".into_response(), |trouble| unavailable(&trouble))
}

async fn metrics(State(stage): State<Stage>) -> Response {
    match life(&stage) {
        Life::Serves(vitals) => ([(CONTENT_TYPE, OPENMETRICS)], vitals.metrics()).into_response(),
        Life::Opens => unavailable("the relay is being opened"),
        Life::Stops => unavailable("the relay stops"),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}
