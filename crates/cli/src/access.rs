//! Reaching a directory: this process owns it if it is free; else its owner is asked.
//!
//! Two processes never write to one directory. A short command that owns it meanwhile is waited for;
//! an owner that neither ends nor answers is told by its process id.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_device::Device;
use fieldkeep_relay::limits::Report;
use fieldkeep_relay::{Config, Directory, Engine, Handle, LastBackup};
use fieldkeep_replica::Replica;
use fieldkeep_store::{Home, HomeError, Reader, Settings as _, home};

use crate::execute::{self, Sink};
use crate::progress::{Look, Watched};
use crate::request::Request;
use crate::response::Response;
use crate::socket;
use fieldkeep_console::{Code, Failure, Porter, Trouble};

/// How long another short command is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the judging of what was taken in is waited for.
const JUDGING: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A directory that commands are executed on, here or by its owner.
#[derive(Debug)]
pub(crate) struct Access {
    directory: PathBuf,
    owner: Option<Owner>,
}

/// The owned directory.
#[derive(Debug)]
pub(crate) enum Owner {
    /// A device's.
    Device(DeviceOwner),
    /// A relay's.
    Relay(RelayOwner),
}

/// An owned device.
#[derive(Debug)]
pub(crate) struct DeviceOwner {
    /// The device.
    pub(crate) device: Device,
    /// The runtime of the loop that keeps it connected, if this process runs one.
    pub(crate) runtime: Option<tokio::runtime::Handle>,
    /// Who opens the console, if this process serves one.
    pub(crate) porter: Option<Porter>,
}

/// An owned relay.
#[derive(Debug)]
pub(crate) struct RelayOwner {
    directory: PathBuf,
    engine: RelayEngine,
    /// Whoever compares a catalog with all the data holds this: one at a time.
    pub(crate) comparing: Arc<Mutex<()>>,
}

#[derive(Debug)]
enum RelayEngine {
    /// Opened when it is first needed: most commands only read.
    Here(Mutex<RelayState>),
    /// It serves, on its own thread.
    Serving(Handle, tokio::runtime::Handle),
}

#[derive(Debug)]
enum RelayState {
    Closed(Option<Box<Directory>>),
    Open(Box<Engine>, Box<Home>),
}

/// Whose a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Device,
    Relay,
}

impl Access {
    /// Reaches for a directory.
    ///
    /// # Errors
    /// When it is none of ours.
    pub(crate) fn new(directory: &Path) -> Result<Self, Failure> {
        kind(directory)?;
        Ok(Self { directory: directory.to_owned(), owner: None })
    }

    /// Has a request executed that answers without records.
    ///
    /// # Errors
    /// Those of the request, and when the directory cannot be reached.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Response, Trouble> {
        self.ask_for_records(request, &mut |_| Ok(()))
    }

    /// The same, of a request that may take long: a terminal shows meanwhile how far it has come.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) fn ask_at_length(&mut self, request: Request) -> Result<Response, Trouble> {
        let _shown = Watched::begin(|| self.onlooker());
        self.ask(request)
    }

    /// Whoever asks beside this process's own request: the device itself where it is owned here.
    fn onlooker(&mut self) -> Look {
        if self.owner.is_none() {
            // Who cannot own it asks its owner.
            self.owner = Owner::open(&self.directory).ok();
        }
        if let Some(Owner::Device(DeviceOwner { device, .. })) = &self.owner {
            let device = device.clone();
            let owner = Owner::Device(DeviceOwner { device, runtime: None, porter: None });
            return Box::new(move |request| {
                execute::execute(&owner, request, &mut |_| Ok(())).ok()
            });
        }
        let directory = self.directory.clone();
        Box::new(move |request| socket::ask(&directory, &request, &mut |_| Ok(())).ok().flatten())
    }

    /// Has a request executed; its records go into the sink.
    ///
    /// # Errors
    /// Those of the request and the sink, and when the directory cannot be reached.
    pub(crate) fn ask_for_records(
        &mut self,
        request: Request,
        sink: Sink<'_>,
    ) -> Result<Response, Trouble> {
        let started = Instant::now();
        loop {
            if let Some(owner) = &self.owner {
                return execute::execute(owner, request, sink);
            }
            match Owner::open(&self.directory) {
                Ok(owner) => self.owner = Some(owner),
                Err(failure) if failure.code != Code::Locked => return Err(failure.into()),
                Err(failure) => {
                    if let Some(answer) = socket::ask(&self.directory, &request, sink)? {
                        return Ok(answer);
                    }
                    if started.elapsed() > PATIENCE {
                        return Err(failure.into());
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if let Some(Owner::Device(owner)) = &self.owner
            && let Err(error) = owner.device.close()
        {
            tracing::warn!(%error, "the caches were not saved; nothing is lost");
        }
    }
}

impl Owner {
    fn open(directory: &Path) -> Result<Self, Failure> {
        match kind(directory)? {
            Kind::Device => {
                let device = Device::open(directory)?;
                Ok(Self::Device(DeviceOwner { device, runtime: None, porter: None }))
            }
            Kind::Relay => {
                Ok(Self::Relay(RelayOwner::open(Directory::open(directory)?, directory)))
            }
        }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        match self {
            Self::Device(owner) => owner.device.directory(),
            Self::Relay(owner) => owner.directory(),
        }
    }
}

impl RelayOwner {
    fn open(opened: Directory, directory: &Path) -> Self {
        let state = RelayState::Closed(Some(Box::new(opened)));
        let engine = RelayEngine::Here(Mutex::new(state));
        Self { directory: directory.to_owned(), engine, comparing: Arc::default() }
    }

    /// A relay that serves.
    pub(crate) fn serving(directory: &Path, handle: Handle, comparing: Arc<Mutex<()>>) -> Self {
        let engine = RelayEngine::Serving(handle, tokio::runtime::Handle::current());
        Self { directory: directory.to_owned(), engine, comparing }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether it serves.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.engine, RelayEngine::Serving(..))
    }

    /// Does something with the engine; what it changed is durable afterwards.
    ///
    /// # Errors
    /// What `act` says, and when the engine has stopped.
    pub(crate) fn with_engine<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Engine) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        match &self.engine {
            RelayEngine::Serving(handle, runtime) => {
                let answer = runtime.block_on(handle.call(act));
                let stopped = || Failure::new(Code::Failure, "the relay stops", "try again");
                answer.ok_or_else(stopped)?
            }
            RelayEngine::Here(state) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let engine = state.engine()?;
                let result = act(engine)?;
                engine.commit()?;
                Ok(result)
            }
        }
    }

    /// The limits, and what is used of them.
    ///
    /// # Errors
    /// When the store or the configuration cannot be read, and when the engine has stopped.
    pub(crate) fn limits(&self) -> Result<Report, Failure> {
        if let RelayEngine::Serving(handle, runtime) = &self.engine {
            let stopped = || Failure::new(Code::Failure, "the relay stops", "try again");
            return Ok(runtime.block_on(handle.limits()).ok_or_else(stopped)??);
        }
        let limits = Config::read(&self.directory)?.limits;
        self.with_engine(move |engine| {
            engine.count_stored()?;
            Ok(engine.limits_report(limits)?)
        })
    }

    /// Notes that a backup was made. A relay that nobody serves is not opened for that: the key and the
    /// epoch are no matter of it.
    ///
    /// # Errors
    /// When the disk refuses, or the engine has stopped.
    pub(crate) fn note_backup(&self, backup: LastBackup) -> Result<(), Failure> {
        if let RelayEngine::Here(state) = &self.engine {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if let RelayState::Closed(Some(directory)) = &mut *state {
                return Ok(directory.note_backup(&backup)?);
            }
        }
        self.with_engine(move |engine| Ok(engine.note_backup(&backup)?))
    }

    /// Waits until everything that was taken in is merged and judged, but not for ever.
    ///
    /// # Errors
    /// When the engine fails, or has stopped.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        if let RelayEngine::Here(state) = &self.engine {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let engine = state.engine()?;
            while engine.work(crate::time::now_ms())? {
                engine.commit()?;
            }
            return Ok(());
        }
        let started = Instant::now();
        // Its thread judges a slice between two questions.
        while !self.with_engine(|engine| Ok(engine.is_idle()))? && started.elapsed() < JUDGING {}
        Ok(())
    }

    /// The same with the replica alone.
    ///
    /// # Errors
    /// What `act` says, and when the engine has stopped.
    pub(crate) fn with_replica<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Replica) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.with_engine(|engine| act(engine.replica_mut()))
    }
}

impl RelayState {
    /// The engine, with everything judged that waited when the relay was stopped.
    fn engine(&mut self) -> Result<&mut Engine, Failure> {
        if let Self::Closed(directory) = self {
            let failed =
                || Failure::new(Code::Failure, "the relay's store could not be opened", "");
            let directory = directory.take().ok_or_else(failed)?;
            let (replica, home, _) = directory.into_replica()?;
            let mut engine = Engine::new(replica);
            while engine.work(crate::time::now_ms())? {
                engine.commit()?;
            }
            *self = Self::Open(Box::new(engine), Box::new(home));
        }
        match self {
            Self::Open(engine, _home) => Ok(engine),
            Self::Closed(_) => unreachable!("opened above"),
        }
    }
}

/// Opens a directory that this process is to own for long, waiting for short commands.
///
/// # Errors
/// What `open` says; that another process owns it only after a while, or at once if it answers.
pub(crate) fn own<T, E: Into<Failure>>(
    directory: &Path,
    open: impl Fn(&Path) -> Result<T, E>,
) -> Result<T, Failure> {
    let started = Instant::now();
    loop {
        let failure = match open(directory).map_err(Into::into) {
            Ok(opened) => return Ok(opened),
            Err(failure) => failure,
        };
        if failure.code == Code::Locked && socket::is_answering(directory) {
            let remedy = "it serves this directory, and answers every other command: stop it first";
            return Err(Failure::new(Code::Failure, failure.message, remedy));
        }
        if failure.code != Code::Locked || started.elapsed() > PATIENCE {
            return Err(failure);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whose directory it is.
///
/// # Errors
/// When it is nobody's.
pub(crate) fn kind(directory: &Path) -> Result<Kind, Failure> {
    let absent = || Failure::from(HomeError::Absent(directory.to_owned()));
    let database = home::database(directory);
    if !database.is_file() {
        return Err(absent());
    }
    match Reader::open(&database)?.setting("role")?.as_deref() {
        Some(b"device") => Ok(Kind::Device),
        Some(b"relay") => Ok(Kind::Relay),
        Some(_) | None => Err(absent()),
    }
}
