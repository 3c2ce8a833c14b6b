//! Rules: CEL expressions over `record`, `previous` and `refs`, whose names, reads and cost are
//! known when the catalog is parsed; modules of WebAssembly; and rules in Rust that a relay brings.
//!
//! Refuses what it cannot bound. Evaluating a rule yields true, false, or a sentence that says why
//! it could not be evaluated; it never panics through, and the sentence quotes no values, because a
//! value may belong to a record that the reader may not see.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::extractors::This;
use cel::parser::PrattParser;
use cel::{Context, ExecutionError, IdedExpr, Value};
use fieldkeep_model::TypeName;
use regex::Regex;

use crate::error::Place;
use crate::limit;
use crate::object::{Field, Kind, ObjectType};

mod bound;
mod dead;
mod nesting;
pub(crate) mod program;
pub(crate) mod values;

pub use dead::Dead;
use program::Program;

/// A rule of an object type.
pub struct Rule {
    /// Its name within the type.
    pub name: String,
    /// What decides: the expression as it is written, or the module or judge with what it reads.
    pub text: String,
    /// What to tell the user whose record breaks it.
    pub reason: String,
    /// The fields of the record that it reads, as `quantity` or `lines.quantity`.
    pub reads: Vec<String>,
    /// The bound on its cost, out of its [`budget`](Self::budget).
    pub steps: u64,
    /// Where it stands in the catalog.
    pub(crate) place: Place,
    /// The fields whose referents it looks into.
    pub(crate) refs: BTreeSet<String>,
    /// The fields of `record` and `previous` that it needs to see.
    pub(crate) needs: BTreeSet<String>,
    pub(crate) by: By,
}

/// What decides whether a record satisfies a rule.
pub(crate) enum By {
    /// An expression.
    Expression(IdedExpr),
    /// A module.
    Module(Arc<Program>),
    /// A rule in Rust, by its name.
    Judge(String),
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({}: {})", self.name, self.text)
    }
}

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Longer than [`limit::RULE`].
    #[error("the rule is longer than {} KiB", limit::RULE / 1024)]
    TooLong,
    /// Nested deeper than [`limit::NESTING`] or [`limit::TREE`].
    #[error("the rule nests too deep")]
    TooDeep,
    /// Not an expression.
    #[error("not an expression: {0}")]
    Syntax(String),
    /// A name that rules do not know; with the nearest that they do.
    #[error("unknown {what} `{name}`")]
    Unknown {
        /// A variable, field, function or reference.
        what: &'static str,
        /// The name.
        name: String,
        /// The way out.
        remedy: String,
    },
    /// A construct of CEL that rules do not have.
    #[error("rules do not support {0}")]
    Unsupported(&'static str),
    /// A pattern that is no literal, or does not compile to a linear automaton.
    #[error("`matches` needs a literal pattern: {0}")]
    Pattern(String),
    /// A loop over something that has no order, or is no list.
    #[error("{0} run over lists, and this is none")]
    NotAList(&'static str),
    /// It yields something else than true or false.
    #[error("the rule does not yield true or false")]
    NotBoolean,
    /// Its bound is above [`limit::STEPS`].
    #[error("the rule may take {0} steps for the largest record, above {limit}", limit = limit::STEPS)]
    Cost(u64),
}

impl RuleError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        let remedy = match self {
            Self::Unknown { remedy, .. } => remedy,
            Self::TooLong | Self::TooDeep => "split it into several rules",
            Self::Syntax(_) | Self::Unsupported(_) => {
                "write a CEL expression over the names that stand for something here"
            }
            Self::Pattern(_) => "write it in quotes, without look-around and back-references",
            Self::NotAList(_) => "loop over a set, a list in brackets, or a filtered one",
            Self::NotBoolean => "compare it with something",
            Self::Cost(_) => "avoid loops within loops, and give texts a maxLength",
        };
        remedy.to_owned()
    }
}

/// What an expression is about, and so which names it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// A record that is judged: `record`, `previous` and `refs`.
    Record,
    /// A record that is about to be edited: `before`.
    Before,
    /// A call: `input`, `records`, `caller` and `call`.
    Call,
}

impl About {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Record => &["record", "previous", "refs"],
            Self::Before => &["before"],
            Self::Call => &["input", "records", "caller", "call"],
        }
    }
}

/// What is known of who calls.
static CALLER: LazyLock<BTreeMap<String, Field>> =
    LazyLock::new(|| BTreeMap::from([("name".to_owned(), Field::plain(Kind::Register))]));
/// What is known of a call: a text that nothing else has for an id, and when it came, in milliseconds.
static CALL: LazyLock<BTreeMap<String, Field>> = LazyLock::new(|| {
    let field = |name: &str, kind| (name.to_owned(), Field::plain(kind));
    BTreeMap::from([field("id", Kind::Register), field("time", Kind::Counter)])
});

/// The names that an expression may use.
pub(crate) struct Vocabulary<'a> {
    about: About,
    fields: &'a BTreeMap<String, Field>,
    refs: BTreeMap<&'a str, &'a BTreeMap<String, Field>>,
}

impl<'a> Vocabulary<'a> {
    pub(crate) fn new(ty: &'a ObjectType, types: &'a BTreeMap<TypeName, ObjectType>) -> Self {
        let registers = ty.fields.iter().filter(|(_, field)| field.children.is_empty());
        let refs = registers.filter_map(|(name, field)| {
            Some((name.as_str(), &types.get(field.reference.as_ref()?)?.fields))
        });
        Self { about: About::Record, fields: &ty.fields, refs: refs.collect() }
    }

    pub(crate) fn before(ty: &'a ObjectType) -> Self {
        Self { about: About::Before, fields: &ty.fields, refs: BTreeMap::new() }
    }

    pub(crate) fn call(
        input: &'a BTreeMap<String, Field>,
        records: impl Iterator<Item = (&'a str, &'a BTreeMap<String, Field>)>,
    ) -> Self {
        Self { about: About::Call, fields: input, refs: records.collect() }
    }
}

/// What the rules of a catalog share: the functions, and the compiled patterns.
pub(crate) struct Engine {
    context: Context<'static, 'static>,
    patterns: BTreeMap<String, Regex>,
}

impl Engine {
    pub(crate) fn new() -> Self {
        Self { context: Context::default(), patterns: BTreeMap::new() }
    }

    /// Makes the collected patterns available to `matches`.
    pub(crate) fn seal(&mut self) {
        let patterns = std::mem::take(&mut self.patterns);
        let matches = move |This(text): This<Arc<String>>, pattern: Arc<String>| {
            patterns.get(pattern.as_str()).is_some_and(|regex| regex.is_match(&text))
        };
        // Fails only where cel's own `matches` is compiled in: the same linear engine, without the
        // patterns prepared.
        self.context.add_function("matches", matches).ok();
    }

    /// The scope in which the rules of one record are evaluated.
    pub(crate) fn scope(&self) -> &Context<'static, 'static> {
        &self.context
    }
}

/// A rule as it is written.
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) reason: String,
    pub(crate) place: Place,
}

impl Rule {
    /// A rule that an expression decides.
    pub(crate) fn compile(
        written: Written,
        cel: String,
        vocabulary: &Vocabulary<'_>,
        engine: &mut Engine,
    ) -> Result<Self, RuleError> {
        let expr = parse(&cel)?;
        let bound = bound::bound(&expr, vocabulary)?;
        if !bound.truth {
            return Err(RuleError::NotBoolean);
        }
        engine.patterns.extend(bound.patterns);
        let (refs, needs, steps) = (bound.refs, bound.needs, bound.steps);
        let reads = bound.reads.into_iter().collect();
        let Written { name, reason, place } = written;
        let by = By::Expression(expr);
        Ok(Self { name, text: cel, reason, reads, steps, place, refs, needs, by })
    }

    /// A rule that a module decides, or a judge of the relay, by what it declares that it reads.
    pub(crate) fn declared(
        written: Written,
        by: By,
        title: &str,
        needs: BTreeSet<String>,
        refs: BTreeSet<String>,
    ) -> Self {
        let listed = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>();
        let mut text = format!("{title} reads {}", listed(&needs).join(", "));
        if !refs.is_empty() {
            text.push_str(&format!(" and looks into {}", listed(&refs).join(", ")));
        }
        let reads = listed(&needs.union(&refs).cloned().collect());
        let steps = if matches!(by, By::Module(_)) { limit::MODULE_FUEL } else { 0 };
        let Written { name, reason, place } = written;
        Self { name, text, reason, reads, steps, place, refs, needs, by }
    }

    /// What its cost is bounded by: [`limit::STEPS`] before it runs; [`limit::MODULE_FUEL`] while a module
    /// runs; nothing by us for a rule in Rust.
    #[must_use]
    pub fn budget(&self) -> Option<u64> {
        match &self.by {
            By::Expression(_) => Some(limit::STEPS),
            By::Module(_) => Some(limit::MODULE_FUEL),
            By::Judge(_) => None,
        }
    }

    /// Whether it may compare with the last valid state.
    pub(crate) fn reads_previous(&self) -> bool {
        match &self.by {
            By::Expression(_) => self.text.contains("previous"),
            By::Module(_) | By::Judge(_) => true,
        }
    }

    /// Whether it looks into records that the record refers to.
    #[must_use]
    pub fn looks_into_referents(&self) -> bool {
        !self.refs.is_empty()
    }

    /// Whether the record satisfies an expression, or why that cannot be said.
    pub(crate) fn holds(&self, scope: &Context<'_, '_>) -> Result<bool, String> {
        match &self.by {
            By::Expression(expr) => evaluate(expr, scope),
            By::Module(_) | By::Judge(_) => Err("it is no expression".to_owned()),
        }
    }
}

/// Whether an expression is true, or why that cannot be said.
fn evaluate(expr: &IdedExpr, scope: &Context<'_, '_>) -> Result<bool, String> {
    // A panic in the evaluator holds one record; everything else goes on.
    match catch_unwind(AssertUnwindSafe(|| Value::resolve(expr, scope))) {
        Ok(Ok(Value::Bool(holds))) => Ok(holds),
        Ok(Ok(_)) => Err("it yields neither true nor false".to_owned()),
        Ok(Err(error)) => Err(told(&error)),
        Err(_) => Err("the evaluator failed".to_owned()),
    }
}

/// An expression that yields a value.
pub(crate) struct Formula {
    expr: IdedExpr,
}

impl fmt::Debug for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Formula")
    }
}

impl Formula {
    pub(crate) fn compile(
        cel: &str,
        vocabulary: &Vocabulary<'_>,
        engine: &mut Engine,
    ) -> Result<Self, RuleError> {
        let expr = parse(cel)?;
        let bound = bound::bound(&expr, vocabulary)?;
        engine.patterns.extend(bound.patterns);
        Ok(Self { expr })
    }

    /// The value, or why there is none.
    pub(crate) fn value(&self, scope: &Context<'_, '_>) -> Result<serde_json::Value, String> {
        match catch_unwind(AssertUnwindSafe(|| Value::resolve(&self.expr, scope))) {
            Ok(Ok(value)) => values::json(&value),
            Ok(Err(error)) => Err(told(&error)),
            Err(_) => Err("the evaluator failed".to_owned()),
        }
    }
}

fn parse(source: &str) -> Result<IdedExpr, RuleError> {
    if source.len() > limit::RULE {
        return Err(RuleError::TooLong);
    }
    nesting::check(source)?;
    let parser = PrattParser::new().max_recursion_depth(limit::NESTING as u16);
    // The parser slices its source by bytes: whatever that may do to odd input stays here.
    let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse(source)));
    match parsed {
        Ok(Ok(expr)) => Ok(expr),
        Ok(Err(errors)) => {
            let first = errors.errors.first().map(|error| error.msg.as_str());
            Err(RuleError::Syntax(first.unwrap_or("it does not parse").to_owned()))
        }
        Err(_) => Err(RuleError::Syntax("it does not parse".to_owned())),
    }
}

/// An evaluation error without the values that it met.
fn told(error: &ExecutionError) -> String {
    if let ExecutionError::NoSuchKey(key) = error {
        format!("`{key}` is absent")
    } else if let ExecutionError::NoSuchOverload(overload) = error {
        overload.to_string()
    } else if let ExecutionError::FunctionError { function, .. } = error {
        format!("`{function}` cannot read its argument")
    } else if let ExecutionError::UnsupportedBinaryOperator(operator, ..) = error {
        format!("`{operator}` does not apply to these values")
    } else if matches!(
        error,
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_)
    ) {
        "division by zero".to_owned()
    } else if matches!(error, ExecutionError::Overflow(..)) {
        "a number grows beyond 64 bits".to_owned()
    } else if matches!(error, ExecutionError::IndexOutOfBounds(_)) {
        "an index lies outside of its list".to_owned()
    } else {
        "values of different kinds meet".to_owned()
    }
}
