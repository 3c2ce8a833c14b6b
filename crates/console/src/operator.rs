//! The console of a relay, for its operators: how it is doing, what is held and why, who its devices are,
//! and which catalog is in force.
//!
//! Everybody signs in with an account of his own; what each may do is asked at one gate. What changes
//! something does so through the relay's engine, under the operator's name.

mod accounts;
mod chart;
mod desk;
mod gate;
mod pages;
mod ring;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use fieldkeep_relay::{Engine, Office};
use fieldkeep_replica::{Reading, ReplicaError};
use tokio::net::TcpListener;

use crate::refusal::Refusal;
use crate::{Code, Failure, Origin, assets};

use accounts::Accounts;
use desk::Desk;
use gate::guard;
use ring::Ring;
use sessions::Sessions;

/// A relay's console that listens, and answers once its relay serves.
#[derive(Debug)]
pub struct OperatorConsole {
    listener: TcpListener,
    address: SocketAddr,
    proxy: Option<Origin>,
}

/// What the pages share.
#[derive(Clone, Debug)]
struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    office: Office,
    address: SocketAddr,
    proxy: Option<Origin>,
    accounts: Accounts,
    sessions: Sessions,
    desk: Desk,
    ring: Ring,
}

impl OperatorConsole {
    /// Listens at an address; port 0 takes any free one. Behind a proxy it is the proxy's origin by which
    /// it is reached, and by no other name.
    ///
    /// # Errors
    /// When the address is not to be had, or is none of loopback and no proxy that speaks TLS was named:
    /// passwords do not cross a network unencrypted.
    pub async fn bind(address: SocketAddr, proxy: Option<Origin>) -> Result<Self, Failure> {
        if !address.ip().is_loopback() && !proxy.as_ref().is_some_and(Origin::is_secure) {
            let message = format!("the console does not listen at {address}: it speaks no TLS");
            let remedy = "have a proxy speak it, and name its address: --behind-proxy https://…; or \
                          give an address of loopback: --console 127.0.0.1:7443";
            return Err(Failure::new(Code::Usage, message, remedy));
        }
        let refused = |error: std::io::Error| {
            let message = format!("the console cannot listen at {address}: {error}");
            let remedy = "give another: --console 127.0.0.1:0 takes any free port";
            Failure::new(Code::Failure, message, remedy)
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address, proxy })
    }

    /// Where browsers find it.
    #[must_use]
    pub fn origin(&self) -> String {
        origin(self.address, self.proxy.as_ref())
    }

    /// Answers until this is dropped.
    ///
    /// # Errors
    /// When the system takes the address away.
    pub async fn serve(self, office: Office) -> Result<(), Failure> {
        let Self { listener, address, proxy } = self;
        let app = App(Arc::new(Inner {
            office,
            address,
            proxy,
            accounts: Accounts::default(),
            sessions: Sessions::default(),
            desk: Desk::default(),
            ring: Ring::default(),
        }));
        let sampling = tokio::spawn(app.clone().keep_samples());
        let served = axum::serve(listener, router(app)).await;
        sampling.abort();
        let stopped =
            |error| Failure::new(Code::Failure, format!("the console stopped: {error}"), "");
        served.map_err(stopped)
    }
}

fn origin(address: SocketAddr, proxy: Option<&Origin>) -> String {
    proxy.map_or_else(|| format!("http://{address}"), ToString::to_string)
}

impl App {
    fn office(&self) -> &Office {
        &self.0.office
    }

    fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    fn desk(&self) -> &Desk {
        &self.0.desk
    }

    fn ring(&self) -> &Ring {
        &self.0.ring
    }

    /// Does something that waits for the disk.
    ///
    /// # Errors
    /// What `act` says.
    async fn on_disk<T, E>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || act(&app)).await;
        let failed = |_| Failure::new(Code::Failure, "this could not be done", "try again");
        done.map_err(failed)?.map_err(Into::into)
    }

    /// Does something with what is committed.
    ///
    /// # Errors
    /// What `act` says, and when the store cannot be read.
    async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self, Reading) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.on_disk(move |app| act(app, app.office().reading()?)).await
    }

    /// Does something with the engine; what it changed is durable afterwards.
    ///
    /// # Errors
    /// What `act` says, and when the relay has stopped.
    async fn with_engine<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Engine) -> Result<T, ReplicaError> + Send + 'static,
    ) -> Result<T, Failure> {
        let answer = self.office().call(act).await;
        let stopped = || Failure::new(Code::Failure, "the relay stops, and nothing was done", "");
        Ok(answer.ok_or_else(stopped)??)
    }

    /// Puts on the trail what an operator did, or was not let do.
    async fn note(&self, who: &str, act: &'static str, note: impl Into<String>) {
        let (who, note) = (who.to_owned(), note.into());
        let noted =
            self.with_engine(move |engine| engine.note_deed(crate::time::now(), &who, act, &note));
        if let Err(error) = noted.await {
            tracing::error!(%error, act, "what an operator did is not on the trail");
        }
    }
}

fn router(app: App) -> Router {
    Router::new()
        .merge(pages::routes())
        .merge(assets::routes())
        .fallback(async || Refusal::nowhere().into_page())
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}
