//! What the forms of the pages ask for. Each is answered with the way back; what takes a while is begun,
//! and told when it ends.

use axum::Form;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{AppendHeaders, IntoResponse as _};
use axum::routing::post;
use fieldkeep_device::{Choice, Conflict};
use fieldkeep_model::{Edit, RecordEdit, TypeName};
use serde::Deserialize;

use super::words::several;
use super::{Answer, back, key, record_path, type_name};
use crate::desk::Work;
use crate::doors;
use crate::refusal::Refusal;
use crate::server::App;
use crate::{Code, Failure};

/// What a form says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    /// The type; all if empty.
    #[serde(rename = "type")]
    ty: String,
    /// Where to go afterwards.
    back: String,
    note: String,
    reason: String,
    owner: String,
    field: String,
    choice: String,
    /// The change to go back to.
    to: String,
    /// The value that was shown where it was chosen, as JSON.
    value: String,
    peer: String,
    address: String,
    repair: bool,
}

impl Said {
    fn ty(&self) -> Result<Option<TypeName>, Failure> {
        Some(self.ty.as_str()).filter(|ty| !ty.is_empty()).map(type_name).transpose()
    }
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/do/{act}", post(act))
        .route("/records/{type}/{id}/{act}", post(act_on))
        .route("/leave", post(leave))
}

async fn act(State(app): State<App>, Path(act): Path<String>, Form(said): Form<Said>) -> Answer {
    let to = said.back.clone();
    match act.as_str() {
        "sync" => app.begin(Work::Sync),
        "resync" => app.begin(Work::Download(said.ty()?, false)),
        "clear" => app.begin(Work::Download(said.ty()?, true)),
        "look" => app.begin(Work::Look),
        "meet" => app.begin(Work::Meet(said.peer.trim().to_owned())),
        "check" => app.begin(Work::Check(said.repair)),
        "seen" => app.desk().seen(),
        "pause" => {
            app.on_disk(move |app| app.device().pause(said.ty()?.as_ref()).map_err(Failure::from))
                .await?
        }
        "resume" => {
            app.on_disk(move |app| app.device().resume(said.ty()?.as_ref()).map_err(Failure::from))
                .await?
        }
        "retry" => app.on_disk(retry_all).await?,
        "files-retry" => {
            let retried = app.on_disk(|app| app.device().retry_files().map_err(Failure::from));
            let retried = several(retried.await?, "file");
            app.desk().tell(true, format!("{retried} to be tried again"), "");
        }
        "files-pause" => files_paused(&app, true).await?,
        "files-resume" => files_paused(&app, false).await?,
        "relay" => {
            let address = said.address.trim().parse().map_err(|_| {
                let remedy = "it looks like 192.0.2.7:7440";
                Failure::new(Code::Usage, format!("`{}` is no address", said.address), remedy)
            })?;
            let learnt =
                app.device().learn_relay(address, std::time::Duration::from_secs(10)).await;
            match learnt {
                Ok(()) => app.desk().tell(true, format!("The relay answers at {address}"), ""),
                Err(error) => {
                    let Failure { message, remedy, .. } = error.into();
                    app.desk().tell(false, message, remedy);
                }
            }
        }
        _ => return Err(Refusal::nowhere()),
    }
    Ok(back(&to))
}

async fn files_paused(app: &App, paused: bool) -> Result<(), Refusal> {
    app.on_disk(move |app| app.device().pause_files(paused).map_err(Failure::from)).await
}

/// Asks for a verdict on everything that needs attention.
fn retry_all(app: &App) -> Result<(), Failure> {
    let device = app.device();
    let wanted = device.attention()?.into_iter().filter(|view| view.dismissed.is_none());
    let wanted: Vec<_> = wanted.map(|view| view.key).collect();
    for key in &wanted {
        device.retry(key)?;
    }
    app.desk().tell(
        true,
        format!(
            "{}: judged again, with the next sync at the latest",
            several(wanted.len(), "record")
        ),
        "",
    );
    Ok(())
}

async fn act_on(
    State(app): State<App>,
    Path((ty, id, act)): Path<(String, String, String)>,
    Form(said): Form<Said>,
) -> Answer {
    app.on_disk(move |app| {
        let key = key(&ty, &id)?;
        let (device, desk) = (app.device(), app.desk());
        if device.as_merged(&key)?.is_none() {
            return Err(Failure::absent(&key).into());
        }
        match act.as_str() {
            "delete" => _ = app.put(&key, &RecordEdit::delete())?,
            "undelete" => {
                _ = app.put(&key, &RecordEdit { edits: Vec::new(), deleted: Some(false) })?;
            }
            "retry" => {
                device.retry(&key)?;
                desk.tell(true, "It is judged again, with the next sync at the latest", "");
            }
            "dismiss" => drop(device.dismiss(&key, Some(&said.note))?),
            "reopen" => drop(device.dismiss(&key, None)?),
            "pin" => device.pin(&key, "console", &said.reason)?.keep(),
            "unpin" => {
                let owner = Some(said.owner.as_str()).filter(|owner| !owner.is_empty());
                device.unpin(Some(&key), owner)?;
            }
            "detach" => {
                let removed = Edit::RemoveChild(said.field.clone(), said.choice.clone());
                app.put(&key, &vec![removed].into())?;
            }
            "resolve" => {
                let Ok(choice) = said.choice.parse::<Choice>();
                app.put_made(&key, || {
                    if let Choice::Concurrent(at) = choice {
                        is_still_there(&device.conflicts(&key)?, &said.field, at, &said.value)?;
                    }
                    Ok(device.resolving(&key, &said.field, &choice)?)
                })?;
            }
            "revert" => {
                let field = Some(said.field.as_str()).filter(|field| !field.is_empty());
                let moment = crate::time::moment(&said.to);
                let wrote = app.put_made(&key, || Ok(device.reverting(&key, field, &moment)?))?;
                let text = match wrote {
                    true => "Written as it was then, as an ordinary change",
                    false => "It is as it was then already",
                };
                desk.tell(true, text, "");
            }
            _ => return Err(Refusal::nowhere()),
        }
        let to = if said.back.is_empty() { record_path(&key.ty, &key.id) } else { said.back };
        Ok(back(&to))
    })
    .await
}

/// Values are chosen by their place among those that stand, and others may have come meanwhile.
fn is_still_there(
    conflicts: &[Conflict],
    field: &str,
    at: usize,
    shown: &str,
) -> Result<(), Failure> {
    let conflict = conflicts.iter().find(|conflict| conflict.field == field);
    let value = conflict.and_then(|conflict| conflict.values.get(at));
    let shown: Option<serde_json::Value> = serde_json::from_str(shown).ok();
    if value.is_some_and(|(value, ..)| Some(value) == shown.as_ref()) {
        return Ok(());
    }
    Err(Failure::others_by_now(field))
}

async fn leave(State(app): State<App>, headers: HeaderMap) -> Answer {
    if let Some((session, _)) = doors::shown(&headers, app.address()) {
        app.doors().leave(session);
    }
    let cookie = AppendHeaders([(header::SET_COOKIE, doors::cookie(None, app.address()))]);
    Ok((cookie, back("/")).into_response())
}
