//! The console of one device: its address, its routes, and what its pages share.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use fieldkeep_device::{AttachError, Device, PutError};
use fieldkeep_model::{RecordEdit, RecordKey};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::desk::Desk;
use crate::doors::{Doors, guard};
use crate::refusal::Refusal;
use crate::{Code, Failure, api, assets, live, pages};

/// The longest body of a request, in bytes: a record has at most 64 KiB as a change.
const BODY: usize = 1024 * 1024;
/// How long the relay may take to write a record that needs a connection.
const WRITING: Duration = Duration::from_secs(60);

/// A console that listens.
#[derive(Debug)]
pub struct Console {
    listener: TcpListener,
    app: App,
}

/// What the pages share.
#[derive(Clone, Debug)]
pub(crate) struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: Device,
    address: SocketAddr,
    doors: Doors,
    desk: Desk,
    /// The right to decode a picture: one at a time, because that takes memory.
    easel: Arc<Semaphore>,
}

/// Opens the console to whoever may ask for that: it is held by the process, and not by a page.
#[derive(Clone, Debug)]
pub struct Porter(App);

impl Console {
    /// Listens at an address; port 0 takes any free one.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub async fn bind(device: Device, address: SocketAddr) -> Result<Self, Failure> {
        let refused = |error: std::io::Error| {
            let message = format!("the console cannot listen at {address}: {error}");
            Failure::new(
                Code::Failure,
                message,
                "give another: --console 127.0.0.1:0 takes any free port",
            )
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (doors, desk) = (Doors::default(), Desk::default());
        let easel = Arc::new(Semaphore::new(1));
        let inner = Inner { device, address, doors, desk, easel };
        Ok(Self { listener, app: App(Arc::new(inner)) })
    }

    /// Who opens it.
    #[must_use]
    pub fn porter(&self) -> Porter {
        Porter(self.app.clone())
    }

    /// Answers until this is dropped.
    ///
    /// # Errors
    /// When the system takes the address away.
    pub async fn serve(self) -> Result<(), Failure> {
        let Self { listener, app } = self;
        let desk = tokio::spawn(app.clone().keep_desk());
        let served = axum::serve(listener, router(app)).await;
        desk.abort();
        served.map_err(|error| {
            Failure::new(Code::Failure, format!("the console stopped: {error}"), "start it again")
        })
    }
}

impl Porter {
    /// An address that opens the console once, within ten minutes.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn one_time_url(&self) -> Result<String, Failure> {
        Ok(format!("{}/enter/{}", self.origin(), self.0.doors().cut_key()?))
    }

    /// A session for a program, which shows it as `Authorization: Bearer …`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn token(&self) -> Result<String, Failure> {
        self.0.doors().token()
    }

    /// Where the console is.
    #[must_use]
    pub fn origin(&self) -> String {
        let mut address = self.0.address();
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }
}

impl App {
    pub(crate) fn device(&self) -> &Device {
        &self.0.device
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn doors(&self) -> &Doors {
        &self.0.doors
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.0.desk
    }

    /// The right to decode a picture, once nobody else does.
    pub(crate) async fn easel(&self) -> OwnedSemaphorePermit {
        let waiting = Arc::clone(&self.0.easel).acquire_owned();
        waiting.await.expect("it is never closed")
    }

    /// Does something with the device that waits for the disk.
    ///
    /// # Errors
    /// What `act` says.
    pub(crate) async fn on_disk<T, E>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Refusal>
    where
        T: Send + 'static,
        E: Into<Refusal> + Send + 'static,
    {
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || act(&app)).await;
        let failed = |_| Failure::new(Code::Failure, "this could not be done", "try again");
        done.map_err(failed)?.map_err(Into::into)
    }

    /// Writes a record, on a thread for such work; by way of the relay where its state asks for that.
    /// Returns whether it was.
    pub(crate) fn put(&self, key: &RecordKey, edit: &RecordEdit) -> Result<bool, Failure> {
        match self.device().put(key, edit) {
            Ok(_) => Ok(false),
            Err(PutError::NeedsConnection(_)) => {
                let written = self.device().put_online(key, edit, WRITING);
                tokio::runtime::Handle::current().block_on(written)?;
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what is made of a record as it is here, likewise. Returns whether there was anything to
    /// write.
    pub(crate) fn put_made(
        &self,
        key: &RecordKey,
        make: impl Fn() -> Result<RecordEdit, Failure>,
    ) -> Result<bool, Failure> {
        match self.device().put(key, &make()?) {
            Ok(written) => Ok(written.change.is_some()),
            Err(PutError::NeedsConnection(_)) => {
                let written = self.device().put_online_with(key, make, WRITING);
                tokio::runtime::Handle::current().block_on(written)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Attaches a file to a record, likewise.
    pub(crate) fn attach(
        &self,
        key: &RecordKey,
        field: &str,
        path: &Path,
        (name, media): (&str, Option<&str>),
    ) -> Result<(), Failure> {
        match self.device().attach(key, field, path, Some(name), media) {
            Ok(_) => Ok(()),
            Err(AttachError::Put(PutError::NeedsConnection(_))) => {
                let device = self.device();
                let attached = device.attach_online(key, field, path, Some(name), media, WRITING);
                tokio::runtime::Handle::current().block_on(attached)?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn router(app: App) -> Router {
    Router::new()
        .merge(pages::routes())
        .merge(live::routes())
        .merge(api::routes())
        .merge(assets::routes())
        .fallback(async || Refusal::nowhere().into_page())
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}
