//! What a rule may cost, which names it uses, and which fields it reads: found from its expression
//! alone, by following the largest shape that each part of it can have.
//!
//! A step is one node evaluated once, or 64 bytes copied or compared. The sizes that the shapes
//! begin with are those of [`limit`], which judging enforces. Because every copy is charged, the
//! steps bound the memory as well.

use std::collections::{BTreeMap, BTreeSet};

use cel::IdedExpr;
use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use regex::{Regex, RegexBuilder};

use self::shape::{Origin, Shape, literal_shape, nested_len};
use super::{About, CALL, CALLER, RuleError, Vocabulary};
use crate::error::suggestion;
use crate::limit;
use crate::object::Field;

mod loops;
mod shape;

/// What is known of a rule.
pub(super) struct Bound {
    pub(super) steps: u64,
    pub(super) reads: BTreeSet<String>,
    pub(super) needs: BTreeSet<String>,
    pub(super) refs: BTreeSet<String>,
    pub(super) patterns: BTreeMap<String, Regex>,
    /// Whether it may yield true or false.
    pub(super) truth: bool,
}

/// Bounds an expression.
pub(super) fn bound<'a>(
    expr: &'a IdedExpr,
    vocabulary: &'a Vocabulary<'a>,
) -> Result<Bound, RuleError> {
    check_depth(expr)?;
    let bound = Bound {
        steps: 0,
        reads: BTreeSet::new(),
        needs: BTreeSet::new(),
        refs: BTreeSet::new(),
        patterns: BTreeMap::new(),
        truth: false,
    };
    let mut walk = Walk { vocabulary, scopes: Vec::new(), bound };
    let cost = walk.visit(expr)?;
    if cost.steps > limit::STEPS {
        return Err(RuleError::Cost(cost.steps));
    }
    walk.bound.truth = matches!(cost.shape, Shape::Scalar | Shape::Any { .. });
    walk.bound.steps = cost.steps;
    Ok(walk.bound)
}

/// Refuses a deep tree before anything recurses into it: `a + a + …` is deep without brackets.
fn check_depth(root: &IdedExpr) -> Result<(), RuleError> {
    let mut open = vec![(root, 1)];
    while let Some((expr, depth)) = open.pop() {
        if depth > limit::TREE {
            return Err(RuleError::TooDeep);
        }
        open.extend(parts(&expr.expr).into_iter().map(|part| (part, depth + 1)));
    }
    Ok(())
}

pub(super) fn parts(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.iter().map(AsRef::as_ref).chain(&call.args).collect(),
        Expr::Comprehension(of) => {
            vec![&of.iter_range, &of.accu_init, &of.loop_cond, &of.loop_step, &of.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(of) => of.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

struct Cost<'a> {
    steps: u64,
    shape: Shape<'a>,
}

impl<'a> Cost<'a> {
    fn new(steps: u64, shape: Shape<'a>) -> Self {
        Self { steps, shape }
    }
}

/// What it costs to copy, compare or scan so many bytes.
fn scan(bytes: u64) -> u64 {
    bytes / 64 + 1
}

struct Walk<'a> {
    vocabulary: &'a Vocabulary<'a>,
    scopes: Vec<(&'a str, Shape<'a>)>,
    bound: Bound,
}

impl<'a> Walk<'a> {
    /// The cost of an expression whose value is used as a whole.
    fn visit(&mut self, expr: &'a IdedExpr) -> Result<Cost<'a>, RuleError> {
        let cost = self.visit_part(expr)?;
        self.note_whole(&cost.shape);
        Ok(cost)
    }

    /// Notes that all of a value is read.
    fn note_whole(&mut self, shape: &Shape<'a>) {
        let fields = self.vocabulary.fields.keys().cloned();
        if let Shape::Fields(Origin::Record, _) = shape {
            self.bound.reads.extend(fields.clone());
            self.bound.needs.extend(fields);
        } else if let Shape::Fields(Origin::Previous, _) = shape {
            self.bound.needs.extend(fields);
        } else if let Shape::Refs = shape {
            let refs = self.vocabulary.refs.keys().map(|field| (*field).to_owned());
            self.bound.refs.extend(refs.clone());
            self.bound.reads.extend(refs);
        }
    }

    /// The cost of an expression of which a part may be selected.
    fn visit_part(&mut self, expr: &'a IdedExpr) -> Result<Cost<'a>, RuleError> {
        match &expr.expr {
            Expr::Ident(name) => Ok(Cost::new(1, self.variable(name)?)),
            Expr::Literal(literal) => Ok(Cost::new(1, literal_shape(literal))),
            Expr::Select(select) => {
                let operand = self.visit_part(&select.operand)?;
                let copied = copied(&select.operand, &operand.shape);
                let shape = self.select(&operand.shape, &select.field)?;
                let shape = if select.test { Shape::Scalar } else { shape };
                Ok(Cost::new(operand.steps + copied + 1, shape))
            }
            Expr::List(list) => self.list(list.elements.iter()),
            Expr::Map(map) => {
                let parts = map.entries.iter().flat_map(|entry| entry_parts(&entry.expr));
                let cost = self.list(parts)?;
                let (len, bytes) = (cost.shape.len(), cost.shape.bytes());
                Ok(Cost::new(cost.steps, Shape::Any { len: len.max(nested_len()), bytes }))
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(_) => Err(RuleError::Unsupported("messages")),
            Expr::Unspecified => Err(RuleError::Syntax("a part is missing".to_owned())),
        }
    }

    fn variable(&self, name: &str) -> Result<Shape<'a>, RuleError> {
        if let Some((_, shape)) = self.scopes.iter().rev().find(|(bound, _)| *bound == name) {
            return Ok(shape.clone());
        }
        let own = |origin| Ok(Shape::Fields(origin, self.vocabulary.fields));
        match (self.vocabulary.about, name) {
            (About::Record, "record") | (About::Call, "input") => own(Origin::Record),
            (About::Record, "previous") | (About::Before, "before") => own(Origin::Previous),
            (About::Record, "refs") | (About::Call, "records") => Ok(Shape::Refs),
            (About::Call, "caller") => Ok(Shape::Fields(Origin::Other, &CALLER)),
            (About::Call, "call") => Ok(Shape::Fields(Origin::Other, &CALL)),
            _ if TYPES.contains(&name) => Ok(Shape::Scalar),
            _ => {
                let loops =
                    self.scopes.iter().map(|(name, _)| *name).filter(|name| *name != "@result");
                let known = self.vocabulary.about.names().iter().copied().chain(loops);
                Err(unknown("variable", name, suggestion(name, known)))
            }
        }
    }

    /// The shape of a field, noting that it is read.
    fn select(&mut self, of: &Shape<'a>, name: &str) -> Result<Shape<'a>, RuleError> {
        match of {
            Shape::Fields(origin, fields) => self.select_field(*origin, fields, name),
            Shape::Refs => {
                let refs = &self.vocabulary.refs;
                let Some((field, fields)) = refs.get_key_value(name) else {
                    let remedy = suggestion(name, refs.keys().copied());
                    return Err(unknown("reference", name, remedy));
                };
                self.bound.refs.insert((*field).to_owned());
                self.bound.reads.insert((*field).to_owned());
                Ok(Shape::Fields(Origin::Other, fields))
            }
            Shape::Any { len, bytes } => Ok(Shape::Any { len: *len, bytes: *bytes }),
            Shape::Scalar | Shape::Text(_) | Shape::List { .. } => {
                Err(unknown("field", name, "only records and children have fields".to_owned()))
            }
        }
    }

    fn select_field(
        &mut self,
        origin: Origin<'a>,
        fields: &'a BTreeMap<String, Field>,
        name: &str,
    ) -> Result<Shape<'a>, RuleError> {
        let child = matches!(origin, Origin::Child(_) | Origin::OtherChild);
        let Some((name, field)) = fields.get_key_value(name) else {
            if child && name == "id" {
                return Ok(Shape::Text(128));
            }
            let remedy = suggestion(name, fields.keys().map(String::as_str));
            return Err(unknown("field", name, remedy));
        };
        match origin {
            Origin::Record => {
                self.bound.reads.insert(name.clone());
                self.bound.needs.insert(name.clone());
            }
            Origin::Previous => {
                self.bound.needs.insert(name.clone());
            }
            Origin::Child(set) => {
                self.bound.reads.insert(format!("{set}.{name}"));
            }
            Origin::Other | Origin::OtherChild => {}
        }
        Ok(Shape::of_field(name, field, origin))
    }

    fn list(
        &mut self,
        elements: impl Iterator<Item = &'a IdedExpr>,
    ) -> Result<Cost<'a>, RuleError> {
        let (mut steps, mut len, mut bytes, mut item) = (1u64, 0, 16u64, Shape::Scalar);
        for element in elements {
            let cost = self.visit(element)?;
            steps = steps.saturating_add(cost.steps).saturating_add(scan(cost.shape.bytes()));
            bytes = bytes.saturating_add(cost.shape.bytes());
            item = item.join(cost.shape);
            len += 1;
        }
        Ok(Cost::new(steps, Shape::List { len, bytes, item: Box::new(item) }))
    }

    fn call(&mut self, call: &'a CallExpr) -> Result<Cost<'a>, RuleError> {
        let name = call.func_name.as_str();
        if let Some(target) = &call.target {
            return self.method(name, target, &call.args);
        }
        match (name, call.args.as_slice()) {
            (op::INDEX, [of, index]) => self.index(of, index),
            (op::CONDITIONAL, [condition, yes, no]) => {
                let condition = self.visit(condition)?;
                let (yes, no) = (self.visit(yes)?, self.visit(no)?);
                let steps = condition.steps + yes.steps.max(no.steps) + 1;
                Ok(Cost::new(steps, yes.shape.join(no.shape)))
            }
            (_, [one]) if UNARY.contains(&name) => {
                let one = self.visit(one)?;
                let operator =
                    [op::LOGICAL_NOT, op::NEGATE, op::NOT_STRICTLY_FALSE].contains(&name);
                let own = if operator { 1 } else { scan(one.shape.bytes()) };
                let text = name == "string";
                let shape =
                    if text { Shape::Text(one.shape.bytes().max(32)) } else { Shape::Scalar };
                Ok(Cost::new(one.steps.saturating_add(own), shape))
            }
            (_, [left, right]) if BINARY.contains(&name) => {
                let (left, right) = (self.visit(left)?, self.visit(right)?);
                let steps = left.steps.saturating_add(right.steps);
                Ok(binary(name, steps, left.shape, right.shape))
            }
            _ => {
                let known =
                    UNARY.iter().copied().filter(|name| name.starts_with(char::is_alphabetic));
                Err(unknown("function", name, suggestion(name, known.chain(["has"]))))
            }
        }
    }

    fn index(&mut self, of: &'a IdedExpr, index: &'a IdedExpr) -> Result<Cost<'a>, RuleError> {
        let part = self.visit_part(of)?;
        let steps = part.steps.saturating_add(copied(of, &part.shape));
        if let Expr::Literal(LiteralValue::String(key)) = &index.expr
            && matches!(part.shape, Shape::Fields(..) | Shape::Refs)
        {
            let shape = self.select(&part.shape, key.inner())?;
            return Ok(Cost::new(steps + 1, shape));
        }
        // A computed key may be any: the whole is read.
        self.note_whole(&part.shape);
        let index = self.visit(index)?;
        let bytes = part.shape.bytes();
        let shape = if let Shape::List { item, .. } = part.shape {
            *item
        } else {
            Shape::Any { len: nested_len(), bytes }
        };
        Ok(Cost::new(steps.saturating_add(index.steps) + 1, shape))
    }

    fn method(
        &mut self,
        name: &'a str,
        target: &'a IdedExpr,
        args: &'a [IdedExpr],
    ) -> Result<Cost<'a>, RuleError> {
        let text = self.visit(target)?;
        let bytes = text.shape.bytes();
        match (name, args) {
            ("size", []) => Ok(Cost::new(text.steps + scan(bytes), Shape::Scalar)),
            ("contains" | "startsWith" | "endsWith", [part]) => {
                let part = self.visit(part)?;
                let steps = text.steps.saturating_add(part.steps);
                Ok(Cost::new(steps + scan(bytes) + scan(part.shape.bytes()), Shape::Scalar))
            }
            ("matches", [pattern]) => {
                let width = self.pattern(pattern)?;
                let steps = text.steps.saturating_add(scan(bytes.saturating_mul(width)));
                Ok(Cost::new(steps, Shape::Scalar))
            }
            _ => {
                let known = ["size", "contains", "startsWith", "endsWith", "matches"];
                let macros = ["all", "exists", "exists_one", "map", "filter"];
                Err(unknown("function", name, suggestion(name, known.into_iter().chain(macros))))
            }
        }
    }

    /// Compiles a literal pattern; its length bounds the work for each byte of the text.
    fn pattern(&mut self, pattern: &IdedExpr) -> Result<u64, RuleError> {
        let Expr::Literal(LiteralValue::String(literal)) = &pattern.expr else {
            return Err(RuleError::Pattern("this one is computed".to_owned()));
        };
        let text = literal.inner();
        let regex = RegexBuilder::new(text).size_limit(limit::PATTERN).build();
        let regex = regex.map_err(|error| {
            let message = error.to_string();
            RuleError::Pattern(message.lines().last().unwrap_or_default().to_owned())
        })?;
        self.bound.patterns.insert(text.to_owned(), regex);
        Ok(text.len() as u64 + 1)
    }
}

/// The variable of which an expression is a part.
fn root_of(mut expr: &IdedExpr) -> Option<&str> {
    while let Expr::Select(select) = &expr.expr {
        if select.test {
            return None;
        }
        expr = &select.operand;
    }
    if let Expr::Ident(name) = &expr.expr {
        return Some(name);
    }
    None
}

/// A part of a variable is borrowed; a part of a computed value is copied out of it.
fn copied(operand: &IdedExpr, shape: &Shape<'_>) -> u64 {
    if root_of(operand).is_some() { 0 } else { scan(shape.bytes()) }
}

fn binary<'a>(name: &str, steps: u64, left: Shape<'a>, right: Shape<'a>) -> Cost<'a> {
    let (a, b) = (left.bytes(), right.bytes());
    let own = match (name, &left, &right) {
        (op::IN, ..) => scan(b).saturating_add(right.len()),
        (op::EQUALS | op::NOT_EQUALS, ..) => scan(a.min(b)),
        (op::LOGICAL_AND | op::LOGICAL_OR, ..) | (_, Shape::Scalar, Shape::Scalar) => 1,
        (
            op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS,
            Shape::Text(_),
            Shape::Text(_),
        ) => scan(a.min(b)),
        // Sums are copies; and where kinds do not fit, the evaluator's error holds copies of both.
        _ => scan(a.saturating_add(b)),
    };
    let shape = if name == op::ADD { left.plus(right) } else { Shape::Scalar };
    Cost::new(steps.saturating_add(own), shape)
}

fn unknown(what: &'static str, name: &str, remedy: String) -> RuleError {
    RuleError::Unknown { what, name: name.to_owned(), remedy }
}

/// Types as values, for `type(x) == int`.
pub(super) const TYPES: &[&str] =
    &["int", "uint", "double", "bool", "string", "list", "map", "null_type", "type"];
/// Functions and operators of one argument.
const UNARY: &[&str] = &[
    "size",
    "int",
    "double",
    "string",
    "bool",
    "type",
    op::LOGICAL_NOT,
    op::NEGATE,
    op::NOT_STRICTLY_FALSE,
];
/// Operators of two arguments.
const BINARY: &[&str] = &[
    op::LOGICAL_AND,
    op::LOGICAL_OR,
    op::ADD,
    op::SUBSTRACT,
    op::MULTIPLY,
    op::DIVIDE,
    op::MODULO,
    op::EQUALS,
    op::NOT_EQUALS,
    op::GREATER,
    op::GREATER_EQUALS,
    op::LESS,
    op::LESS_EQUALS,
    op::IN,
];
