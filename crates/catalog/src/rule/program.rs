//! Rules in WebAssembly: a module that stands in the catalog, and so judges on every device as it does
//! on the relay.
//!
//! It exports `memory`, `input(length) -> address`, where that many bytes are to be put, and
//! `judge(length) -> i32`, which reads them there: 1 if the record satisfies the rule, 0 if not; whatever
//! else it answers holds the record as one that the rule cannot judge. The bytes are JSON, an object of
//! `record`, `previous` and `refs`.
//!
//! A module imports nothing, and each judgement has a fresh instance of it: what it says depends on its
//! input alone. The interpreter counts fuel, not time, and what an operation costs belongs to its
//! version, which is pinned: no verdict depends on the machine.

use std::fmt;

use wasmi::{
    CompilationMode, Config, EnforcedLimits, Engine, Error, ExternType, Instance, Linker, Memory,
    Module, Store, StoreLimits, StoreLimitsBuilder, TrapCode, ValType,
};

use crate::limit;

/// Calls within calls.
const DEPTH: usize = 256;
/// Entries of a module's table of functions.
const TABLE: usize = 1_024;

/// A module that judges.
pub(crate) struct Program {
    module: Module,
    hash: blake3::Hash,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({})", self.hash.to_hex())
    }
}

/// Why a module is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProgramError {
    /// Not a module of the kind that rules may be.
    #[error("not a WebAssembly module that rules can use: {0}")]
    Unsound(String),
    /// It would reach for something outside of itself.
    #[error("the module imports `{0}`, and a rule reaches for nothing")]
    Imports(String),
    /// What a rule is called by is not there.
    #[error("the module does not export `{0}`")]
    Lacks(&'static str),
    /// It cannot be begun within the limits.
    #[error("the module cannot be begun: {0}")]
    Begin(String),
}

impl ProgramError {
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Unsound(_) => {
                "compile it for wasm32-unknown-unknown, without threads and SIMD".into()
            }
            Self::Imports(_) => {
                "build it without an operating system: no clock, files or printing".into()
            }
            Self::Lacks(_) => {
                "export `memory`, `input(length) -> address` and `judge(length) -> i32`".into()
            }
            Self::Begin(_) => format!(
                "it may have {} MiB of memory, and take {} steps to begin",
                limit::MODULE_MEMORY / (1024 * 1024),
                limit::MODULE_FUEL
            ),
        }
    }
}

impl Program {
    /// Checks a module, and begins it once.
    pub(crate) fn new(wasm: &[u8]) -> Result<Self, ProgramError> {
        let mut config = Config::default();
        config
            .consume_fuel(true)
            .compilation_mode(CompilationMode::Eager)
            .enforced_limits(EnforcedLimits::strict())
            .ignore_custom_sections(true)
            .set_max_recursion_depth(DEPTH)
            .wasm_multi_memory(false);
        let unsound = |error: Error| ProgramError::Unsound(error.to_string());
        let module = Module::new(&Engine::new(&config), wasm).map_err(unsound)?;
        if let Some(import) = module.imports().next() {
            return Err(ProgramError::Imports(format!("{}.{}", import.module(), import.name())));
        }
        let takes_a_length = |name| match module.get_export(name) {
            Some(ExternType::Func(ty))
                if ty.params() == [ValType::I32] && ty.results() == [ValType::I32] =>
            {
                Ok(())
            }
            _ => Err(ProgramError::Lacks(name)),
        };
        if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
            return Err(ProgramError::Lacks("memory"));
        }
        takes_a_length("input")?;
        takes_a_length("judge")?;
        let program = Self { hash: blake3::hash(wasm), module };
        program.begin().map_err(ProgramError::Begin)?;
        Ok(program)
    }

    /// blake3 of the module.
    pub(crate) fn hash(&self) -> blake3::Hash {
        self.hash
    }

    /// Whether what is in the input satisfies the rule, or why that cannot be said.
    pub(crate) fn holds(&self, input: &str) -> Result<bool, String> {
        let (mut store, instance, memory) = self.begin()?;
        let length = i32::try_from(input.len()).map_err(|_| "its input is too large".to_owned())?;
        let call = |store: &mut Store<StoreLimits>, name| {
            let function =
                instance.get_typed_func::<i32, i32>(&*store, name).map_err(|e| told(&e))?;
            function.call(store, length).map_err(|error| told(&error))
        };
        // An address is 32 bits without a sign.
        let address = call(&mut store, "input")? as u32;
        let room = usize::try_from(address).ok();
        room.and_then(|address| memory.write(&mut store, address, input.as_bytes()).ok())
            .ok_or_else(|| "the module gives no room for its input".to_owned())?;
        match call(&mut store, "judge")? {
            1 => Ok(true),
            0 => Ok(false),
            other => Err(format!("the module answers {other}, and not 0 or 1")),
        }
    }

    fn begin(&self) -> Result<(Store<StoreLimits>, Instance, Memory), String> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(limit::MODULE_MEMORY)
            .table_elements(TABLE)
            .instances(1)
            .memories(1)
            .tables(1)
            .trap_on_grow_failure(true)
            .build();
        let mut store = Store::new(self.module.engine(), limits);
        store.limiter(|limits| limits);
        store.set_fuel(limit::MODULE_FUEL).map_err(|error| told(&error))?;
        let linker = Linker::new(self.module.engine());
        let begun = linker.instantiate_and_start(&mut store, &self.module);
        let instance = begun.map_err(|error| told(&error))?;
        let memory = instance.get_memory(&store, "memory");
        let memory = memory.ok_or_else(|| "the module has no memory".to_owned())?;
        Ok((store, instance, memory))
    }
}

/// Why a module did not come to an end, in words that quote nothing of its input.
fn told(error: &Error) -> String {
    match error.as_trap_code() {
        Some(TrapCode::OutOfFuel) => format!("it takes more than {} steps", limit::MODULE_FUEL),
        Some(TrapCode::StackOverflow) => "its calls nest too deep".to_owned(),
        Some(TrapCode::GrowthOperationLimited) => {
            format!("it takes more than {} MiB of memory", limit::MODULE_MEMORY / (1024 * 1024))
        }
        Some(code) => format!("the module failed: {}", code.trap_message()),
        None => format!("the module failed: {error}"),
    }
}
