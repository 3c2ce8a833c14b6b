//! The limits that make costs static. They are enforced where records are judged, so that the
//! bounds computed when a catalog is parsed hold for every record that a rule sees.

/// A catalog's source, in bytes.
pub const CATALOG: usize = 256 * 1024;
/// A rule's source, in bytes.
pub const RULE: usize = 4 * 1024;
/// How deep brackets, conditionals and prefix operators nest in a rule's source, added up.
pub const NESTING: usize = 32;
/// How deep the expression tree of a rule is.
pub const TREE: usize = 64;
/// What a rule may cost: a step is one node of the expression evaluated once, or 64 bytes copied or
/// compared: 50 to 150 ns, measured.
pub const STEPS: u64 = 1_000_000;
/// A module of WebAssembly, in bytes.
pub const MODULE: usize = 128 * 1024;
/// What a judgement by a module may cost: a step is about one operation. All of
/// them took less than 20 ms, measured with an empty loop.
pub const MODULE_FUEL: u64 = 5_000_000;
/// The memory of a module, in bytes.
pub const MODULE_MEMORY: usize = 4 * 1024 * 1024;
/// Children of a set.
pub const CHILDREN: usize = 1_000;
/// Items of any list or object within a json field.
pub const JSON_ITEMS: usize = 10_000;
/// How deep a json field nests.
pub const JSON_DEPTH: usize = 32;
/// A text in a register, in bytes.
pub const REGISTER: usize = 16 * 1024;
/// A collaborative text, in bytes.
pub const TEXT: usize = 256 * 1024;
/// All texts and keys of a record, in bytes.
pub const RECORD: usize = 1024 * 1024;
/// A template's source, in bytes.
pub const TEMPLATE: usize = 4 * 1024;
/// What a template may cost: a step is one instruction, or 64 bytes of what it makes: at most 10 ms.
pub const FUEL: u64 = 50_000;
/// What a record comes to as shared text, in bytes.
pub const SHARED: usize = 64 * 1024;
/// A compiled regular expression, in bytes.
pub const PATTERN: usize = 1024 * 1024;
/// How many errors of a catalog are told at once.
pub const ERRORS: usize = 100;
