//! Settings of a device: `device.toml` in its directory, which people write as well as commands do. A key
//! that is not known is an error that names those that are.
//!
//! ```toml
//! console = "127.0.0.1:7442"   # where `serve` has its console
//! listen = "0.0.0.0:7441"      # where it listens for other devices
//! nearby = true                # whether it is found on the local network
//!
//! [files]
//! download = "unmetered"       # which attached files are fetched by themselves: "none" unless it says so,
//!                              # "all", or "unmetered" for connections that are not paid by the byte
//! under = 5000000              # only files of at most so many bytes
//!
//! [type.order]
//! read = "last_valid"          # what `get` returns of a held record; "as_merged" unless it says so
//! scopes = ["42", "43"]        # what is exchanged, of what was granted; all of it unless it says so
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fieldkeep_model::status::{Forecast, State, Subscriptions};
use fieldkeep_model::{Outcome, TypeName};
use fieldkeep_replica::{RecordView, ReplicaError};
use fieldkeep_store::StoreError;
use serde::Deserialize;
use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::control::ControlError;
use crate::device::Device;
use crate::engine::Engine;

/// The file's name.
const FILE: &str = "device.toml";

/// What a device's user has set.
///
/// ```
/// # use fieldkeep_device::Settings;
/// # let directory = tempfile::tempdir()?;
/// std::fs::write(directory.path().join("device.toml"), "nearby = true\n")?;
/// let settings = Settings::read(directory.path())?;
/// assert_eq!((settings.nearby, settings.listen), (Some(true), None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where `serve` has its console.
    pub console: Option<SocketAddr>,
    /// Where other devices are listened for.
    pub listen: Option<SocketAddr>,
    /// Whether this device is found on the local network.
    pub nearby: Option<bool>,
    /// Which attached files are fetched by themselves.
    #[serde(default)]
    pub files: FileSettings,
    /// What is set of types.
    #[serde(default, rename = "type")]
    pub types: BTreeMap<TypeName, TypeSettings>,
}

/// Which attached files are fetched by themselves; every other one when somebody asks for it.
///
/// ```
/// # use fieldkeep_device::{Download, FileSettings, Settings};
/// # let directory = tempfile::tempdir()?;
/// let file = directory.path().join("device.toml");
/// std::fs::write(file, "[files]\ndownload = \"all\"\nunder = 5000000\n")?;
/// let files = Settings::read(directory.path())?.files;
/// assert_eq!(files, FileSettings { download: Download::All, under: Some(5_000_000) });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// On which connections.
    #[serde(default)]
    pub download: Download,
    /// At most so many bytes; any if it is not set.
    pub under: Option<u64>,
}

/// On which connections attached files are fetched by themselves.
///
/// [`FileSettings`] has the example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Download {
    /// On none.
    #[default]
    None,
    /// On those that are not paid by the byte: the application says which they are.
    Unmetered,
    /// On all.
    All,
}

/// What is set of a type.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let visit = "visit".parse()?;
/// device.subscribe(&visit, Some("42"))?;
/// let settings = device.settings();
/// assert_eq!(settings.types[&visit].scopes, Some(["42".to_owned()].into()));
/// assert_eq!(settings.types[&visit].read, None); // As it is by default.
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeSettings {
    /// What `get` returns of a record that is held.
    pub read: Option<Read>,
    /// The scopes that are exchanged, of those that were granted; all of them if none are named.
    pub scopes: Option<BTreeSet<String>>,
}

/// What is read of a record that breaks a rule.
///
/// ```
/// # use fieldkeep_device::Read;
/// assert_eq!("last_valid".parse(), Ok(Read::LastValid));
/// assert_eq!(Read::default(), Read::AsMerged);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// Its present content, with the reasons.
    #[default]
    AsMerged,
    /// What it was when it last passed; nothing of it if it never did.
    LastValid,
}

impl Read {
    /// A record as it is read; nothing where it is not to be seen yet.
    pub(crate) fn of(self, mut view: RecordView) -> Option<RecordView> {
        if self == Self::LastValid && breaks_a_rule(view.state) {
            view.fields = view.last_valid.clone()?;
        }
        Some(view)
    }
}

/// Whether a record is held, waits, or is likely to be held.
fn breaks_a_rule(state: State) -> bool {
    match state {
        State::Judged(Outcome::Held | Outcome::Waiting) | State::Forecast(Forecast::LikelyHeld) => {
            true
        }
        State::Judged(Outcome::Valid)
        | State::Forecast(Forecast::LikelyValid | Forecast::NeedsRelay) => false,
    }
}

impl FromStr for Read {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "as_merged" => Ok(Self::AsMerged),
            "last_valid" => Ok(Self::LastValid),
            other => Err(format!("`{other}` is neither as_merged nor last_valid")),
        }
    }
}

/// Why settings were not read or written.
///
/// ```
/// # use fieldkeep_device::Settings;
/// # let directory = tempfile::tempdir()?;
/// std::fs::write(directory.path().join("device.toml"), "nearbye = true\n")?;
/// let unclear = Settings::read(directory.path()).expect_err("a typo").to_string();
/// assert!(unclear.contains("line 1") && unclear.contains("`nearbye`"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file says what nobody understands.
    #[error("{}: {problem}", file.display())]
    Unclear {
        /// The file.
        file: PathBuf,
        /// What, and where.
        problem: String,
    },
    /// The file system refuses.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Why a subscription was not changed; nothing was.
///
/// ```
/// # use fieldkeep_device::SubscribeError;
/// # fieldkeep_lab::camp::example(async |device| {
/// let refused = device.subscribe(&"order".parse()?, Some("42"));
/// assert!(matches!(refused, Err(SubscribeError::Unscoped(_)))); // Orders are kept in one piece.
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The type is not there.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The type is kept in one piece.
    #[error("{0} has no scopes: it is exchanged as a whole, or paused")]
    Unscoped(TypeName),
    /// This device may not read the scope.
    #[error("this device was not granted {ty}={scope}")]
    NotGranted {
        /// The type.
        ty: TypeName,
        /// The scope.
        scope: String,
    },
    /// Every scope was granted, so that one cannot be taken from a list.
    #[error("{0} is exchanged as a whole: say what is wanted of it first")]
    Whole(TypeName),
    /// Something there is on this device alone.
    #[error("{changes} changes in {ty}={scope} are not on the relay yet")]
    Unsaved {
        /// The type.
        ty: TypeName,
        /// The scope.
        scope: String,
        /// How many changes.
        changes: u64,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The disk refuses.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for SubscribeError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

impl Settings {
    /// Reads the settings of a directory; none if there is no file.
    ///
    /// ```
    /// # use fieldkeep_device::Settings;
    /// # let directory = tempfile::tempdir()?;
    /// assert_eq!(Settings::read(directory.path())?, Settings::default()); // There is no file.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the file cannot be read, or says what nobody understands.
    pub fn read(directory: &Path) -> Result<Self, SettingsError> {
        let file = directory.join(FILE);
        let text = read(&file)?;
        let unclear = |error: toml::de::Error| SettingsError::Unclear {
            file: file.clone(),
            problem: error.to_string().trim_end().to_owned(),
        };
        toml::from_str(&text).map_err(unclear)
    }

    /// What is read of a held record of a type.
    ///
    /// ```
    /// # use fieldkeep_device::{Read, Settings};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// std::fs::write(
    ///     device.directory().join("device.toml"),
    ///     "[type.order]\nread = \"last_valid\"\n",
    /// )?;
    /// let settings = Settings::read(device.directory())?;
    /// assert_eq!(settings.reads(&"order".parse()?), Read::LastValid);
    /// assert_eq!(settings.reads(&"customer".parse()?), Read::AsMerged);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn reads(&self, ty: &TypeName) -> Read {
        self.types.get(ty).and_then(|ty| ty.read).unwrap_or_default()
    }

    pub(crate) fn subscriptions(&self) -> Subscriptions {
        let types = self.types.iter();
        types.filter_map(|(ty, set)| Some((ty.clone(), set.scopes.clone()?))).collect()
    }
}

impl Device {
    /// What this device's user has set, as it was when the directory was opened, and with what was
    /// changed since by this.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let visit = "visit".parse()?;
    /// assert!(device.settings().types.is_empty());
    /// device.subscribe(&visit, Some("42"))?;
    /// assert!(device.settings().types.contains_key(&visit));
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.0.settings()
    }

    /// Exchanges a scope of a type, and of that type nothing else than what was subscribed to; all that
    /// was granted where no scope is named.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let visit = "visit".parse()?;
    /// device.subscribe(&visit, Some("42"))?; // That outlet, and no other.
    /// assert!(device.paused()?.unsubscribes(&visit, "41"));
    /// device.subscribe(&visit, None)?; // All that was granted.
    /// assert!(!device.paused()?.unsubscribes(&visit, "41"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(&self, ty: &TypeName, scope: Option<&str>) -> Result<(), SubscribeError> {
        let Some(scope) = scope else {
            self.known_type(Some(ty))?;
            return self.change_scopes(ty, |_| Ok(None));
        };
        self.scoped(ty)?;
        if !self.member()?.may(ty, scope) {
            return Err(SubscribeError::NotGranted { ty: ty.clone(), scope: scope.to_owned() });
        }
        self.change_scopes(ty, |wanted| {
            let mut wanted = wanted.unwrap_or_default();
            wanted.insert(scope.to_owned());
            Ok(Some(wanted))
        })
    }

    /// Exchanges nothing of a scope any more. What is here of it stays, until it is cleared.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let visit = "visit".parse()?;
    /// device.subscribe(&visit, Some("42"))?;
    /// device.unsubscribe(&visit, "42")?;
    /// assert!(device.paused()?.unsubscribes(&visit, "42"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn unsubscribe(&self, ty: &TypeName, scope: &str) -> Result<(), SubscribeError> {
        self.scoped(ty)?;
        let granted = self.granted(ty)?;
        self.change_scopes(ty, |wanted| {
            let mut wanted = wanted.or(granted).ok_or_else(|| SubscribeError::Whole(ty.clone()))?;
            wanted.remove(scope);
            Ok(Some(wanted))
        })
    }

    /// The scopes of a type that were granted one by one; nothing where all were.
    fn granted(&self, ty: &TypeName) -> Result<Option<BTreeSet<String>>, StoreError> {
        let me = self.member()?;
        let mut of_type = me.grants.iter().filter(|grant| grant.ty.as_ref() == Some(ty)).peekable();
        if of_type.peek().is_none() {
            return Ok(None);
        }
        Ok(of_type.map(|grant| grant.scope.clone()).collect())
    }

    /// Whether a type is kept in scopes.
    fn scoped(&self, ty: &TypeName) -> Result<(), SubscribeError> {
        self.known_type(Some(ty))?;
        let catalog = self.catalog();
        let object = catalog.as_ref().and_then(|catalog| catalog.ty(ty));
        match object {
            Some(object) if object.scope.is_none() => Err(SubscribeError::Unscoped(ty.clone())),
            Some(_) | None => Ok(()),
        }
    }

    /// Changes the scopes of a type that are exchanged, in the file and from now on.
    fn change_scopes(
        &self,
        ty: &TypeName,
        change: impl FnOnce(
            Option<BTreeSet<String>>,
        ) -> Result<Option<BTreeSet<String>>, SubscribeError>,
    ) -> Result<(), SubscribeError> {
        // Nobody writes between the look and the change.
        let mut engine = self.engine();
        let mut subscriptions = Settings::read(self.directory())?.subscriptions();
        let wanted = change(subscriptions.remove(ty))?;
        let mut left_out = engine.stored_pauses()?;
        left_out.scopes = subscriptions;
        left_out.scopes.extend(wanted.clone().map(|wanted| (ty.clone(), wanted)));
        let mut alone = engine.alone(&left_out)?.into_iter().filter(|(of, ..)| of == ty);
        if let Some((ty, scope, changes)) = alone.next() {
            return Err(SubscribeError::Unsaved { ty, scope, changes });
        }
        write_scopes(&self.directory().join(FILE), ty, wanted.as_ref())?;
        Ok(self.apply(&mut engine, Settings::read(self.directory())?)?)
    }

    /// Has what the file says hold from now on.
    pub(crate) fn apply_settings(&self, settings: Settings) -> Result<(), ReplicaError> {
        self.apply(&mut self.engine(), settings)
    }

    fn apply(&self, engine: &mut Engine, settings: Settings) -> Result<(), ReplicaError> {
        let scopes = settings.subscriptions();
        self.0.set_settings(settings);
        let left_out = engine.subscribing(scopes)?;
        self.leave_out(engine, left_out)
    }
}

fn read(file: &Path) -> Result<String, SettingsError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(SettingsError::Io { file: file.to_owned(), error }),
    }
}

/// Writes the scopes of a type, and leaves everything else in the file as it is.
fn write_scopes(
    file: &Path,
    ty: &TypeName,
    wanted: Option<&BTreeSet<String>>,
) -> Result<(), SettingsError> {
    let unclear = |problem: String| SettingsError::Unclear { file: file.to_owned(), problem };
    let mut text: DocumentMut = read(file)?.parse().map_err(|error| unclear(format!("{error}")))?;
    let implicit = || {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    };
    let types = text.entry("type").or_insert_with(implicit);
    let types = types.as_table_like_mut().ok_or_else(|| unclear("`type` is no table".into()))?;
    let of_type = types.entry(ty.as_str()).or_insert_with(|| Item::Table(Table::new()));
    let of_type = of_type.as_table_like_mut();
    let of_type = of_type.ok_or_else(|| unclear(format!("`type.{ty}` is no table")))?;
    match wanted {
        Some(wanted) => {
            let scopes: Array = wanted.iter().map(String::as_str).collect();
            drop(of_type.insert("scopes", value(scopes)));
        }
        None => drop(of_type.remove("scopes")),
    }
    if of_type.is_empty() {
        types.remove(ty.as_str());
    }
    let beside = file.with_extension("toml.new");
    let written = std::fs::write(&beside, text.to_string());
    let written = written.and_then(|()| std::fs::rename(&beside, file));
    written.map_err(|error| SettingsError::Io { file: file.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(FILE), text).expect("it is written");
        Settings::read(directory.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_that_is_not_known_is_named_with_those_that_are() {
        let error = settings("[type.order]\nreed = \"last_valid\"\n").expect_err("a typo");
        assert!(error.contains("line 2") && error.contains("`read`"), "{error}");
        let error = settings("[type.order]\nread = \"last\"\n").expect_err("a typo");
        assert!(error.contains("`last_valid`"), "{error}");
        assert_eq!(settings(""), Ok(Settings::default()));
    }

    #[test]
    fn what_people_wrote_stays_when_a_command_writes() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join(FILE);
        let written = "# mine\nnearby = false # no radio\n\n[type.order]\nread = \"last_valid\"\n";
        std::fs::write(&file, written).expect("it is written");
        let order = TypeName::new("order").expect("a name");
        let wanted = BTreeSet::from(["42".to_owned()]);
        write_scopes(&file, &order, Some(&wanted)).expect("it writes");
        let text = std::fs::read_to_string(&file).expect("it reads");
        assert!(text.starts_with(written) && text.contains("scopes = [\"42\"]"), "{text}");
        write_scopes(&file, &order, None).expect("it writes");
        assert_eq!(std::fs::read_to_string(&file).expect("it reads"), written);
        std::fs::remove_file(&file).expect("it was there");
        write_scopes(&file, &order, Some(&wanted)).expect("it writes");
        let read = Settings::read(directory.path()).expect("it reads");
        assert_eq!(read.subscriptions(), Subscriptions::from([(order, wanted)]));
    }
}
