//! What is exchanged with the relay, and what it is asked.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use fieldkeep_model::TypeName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, told};
use crate::Failure;
use crate::pages::type_name;
use crate::server::App;
use crate::shape::{CallRow, Called, ClearPlan, Paused, Resynced, Synced};

/// How long something is tried unless it is told otherwise.
const PATIENCE: u64 = 60;

/// What is done here.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sync))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(resync))
        .routes(routes!(clear_plan))
        .routes(routes!(call))
        .routes(routes!(calls))
        .routes(routes!(ask))
}

#[derive(Deserialize, IntoParams)]
struct Patience {
    /// How long it is tried, in seconds.
    timeout_s: Option<u64>,
}

impl Patience {
    fn duration(&self, most: u64) -> Duration {
        Duration::from_secs(self.timeout_s.unwrap_or(most).clamp(1, 3_600))
    }
}

/// Exchanges everything with the relay, and proves that both have the same.
#[utoipa::path(post, path = "/sync", params(Patience), responses((status = 200, body = Synced)))]
async fn sync(State(app): State<App>, Query(patience): Query<Patience>) -> Answer {
    let report = app.device().sync(patience.duration(PATIENCE)).await.map_err(Failure::from)?;
    let paused = app.device().paused().map_err(Failure::from)?;
    Ok(told("sync", &Synced::new(report, paused)))
}

#[derive(Deserialize, IntoParams)]
struct OfType {
    /// The type; all if absent.
    r#type: Option<String>,
}

impl OfType {
    fn ty(&self) -> Result<Option<TypeName>, Failure> {
        self.r#type.as_deref().map(type_name).transpose()
    }
}

/// Has the relay run an action of the catalog: a JSON object is its input.
#[utoipa::path(post, path = "/actions/{name}", params(("name" = String, Path), Patience),
    request_body = Object, responses((status = 200, body = Called)))]
async fn call(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(patience): Query<Patience>,
    Json(input): Json<Map<String, Value>>,
) -> Answer {
    let called = app.device().call(&name, &input, patience.duration(PATIENCE)).await;
    Ok(told("call", &Called::from(called.map_err(Failure::from)?)))
}

#[derive(Serialize, ToSchema)]
struct Calls {
    calls: Vec<CallRow>,
}

/// This device's calls of the last days, newest first, and what came of them.
#[utoipa::path(get, path = "/calls", responses((status = 200, body = Calls)))]
async fn calls(State(app): State<App>) -> Answer {
    let calls = app.on_disk(|app| app.device().calls().map_err(Failure::from)).await?;
    Ok(told("calls", &Calls { calls: calls.into_iter().map(CallRow::from).collect() }))
}

/// Asks the relay a query of the catalog: a JSON object has its parameters.
#[utoipa::path(post, path = "/queries/{name}", params(("name" = String, Path), Patience),
    request_body = Object, responses((status = 200, body = crate::shape::Answer)))]
async fn ask(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(patience): Query<Patience>,
    Json(params): Json<Map<String, Value>>,
) -> Answer {
    let answer = app.device().ask(&name, &params, patience.duration(PATIENCE)).await;
    Ok(told("ask", &crate::shape::Answer::from(answer.map_err(Failure::from)?)))
}

/// Exchanges nothing of a type, or of all, until it is resumed.
#[utoipa::path(post, path = "/pause", params(OfType), responses((status = 200, body = Paused)))]
async fn pause(State(app): State<App>, Query(of): Query<OfType>) -> Answer {
    paused(app, move |app| Ok(app.device().pause(of.ty()?.as_ref())?)).await
}

/// Exchanges a type again, or all.
#[utoipa::path(post, path = "/resume", params(OfType), responses((status = 200, body = Paused)))]
async fn resume(State(app): State<App>, Query(of): Query<OfType>) -> Answer {
    paused(app, move |app| Ok(app.device().resume(of.ty()?.as_ref())?)).await
}

#[derive(Deserialize, IntoParams)]
struct Again {
    /// The type; all that are not paused if absent.
    r#type: Option<String>,
    /// Whether what this device may not read any more is removed.
    #[serde(default)]
    clear: bool,
    /// How long it is tried, in seconds.
    timeout_s: Option<u64>,
}

/// Downloads a type again, or all. What is unsaved or in use stays.
#[utoipa::path(post, path = "/resync", params(Again), responses((status = 200, body = Resynced)))]
async fn resync(State(app): State<App>, Query(again): Query<Again>) -> Answer {
    let ty = again.r#type.as_deref().map(type_name).transpose()?;
    let patience = Patience { timeout_s: again.timeout_s }.duration(600);
    let done = match again.clear {
        true => app.device().clear_and_resync(ty.as_ref(), patience).await,
        false => app.device().resync(ty.as_ref(), patience).await,
    };
    Ok(told("resync", &Resynced::from(done.map_err(Failure::from)?)))
}

/// What clearing would remove, and what stays.
#[utoipa::path(get, path = "/clear-plan", params(OfType), responses((status = 200, body = ClearPlan)))]
async fn clear_plan(State(app): State<App>, Query(of): Query<OfType>) -> Answer {
    let plan =
        app.on_disk(move |app| app.device().clear_plan(of.ty()?.as_ref()).map_err(Failure::from));
    Ok(told("clear-plan", &ClearPlan::from(plan.await?)))
}

async fn paused(
    app: App,
    act: impl FnOnce(&App) -> Result<(), Failure> + Send + 'static,
) -> Answer {
    let paused = app.on_disk(move |app| {
        act(app)?;
        app.device().paused().map_err(Failure::from)
    });
    Ok(told("paused", &Paused::from(paused.await?)))
}
