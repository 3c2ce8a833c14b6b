//! Rules of which it is proven that they decide nothing: whatever record they meet, they come out the
//! same, or as another rule does.
//!
//! An expression may be true, be false or fail; what each part of it may do is followed through `&&`,
//! `||`, `!` and `?:`, as the evaluator treats them. A part without variables is evaluated. Of
//! everything else nothing is assumed, but that a field that is required, or holds children, is
//! there: rules run on no other record. What is not proven is not said.

use cel::IdedExpr;
use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, Expr};

use super::bound::{TYPES, parts};
use super::{By, Engine, Rule};
use crate::object::ObjectType;

/// Why a rule decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dead {
    /// Every record satisfies it.
    NeverBroken,
    /// No record satisfies it: each that comes to be judged by it is held.
    AlwaysBroken,
    /// The rule of that name, which stands before it, says the same.
    Repeats(String),
}

impl ObjectType {
    /// Why a rule of this type decides nothing, if that can be proven.
    pub(crate) fn dead(&self, rule: &Rule, engine: &Engine) -> Option<Dead> {
        let may = match &rule.by {
            By::Expression(expr) => Proof { ty: self, engine }.of(expr),
            By::Module(_) | By::Judge(_) => May::ANYTHING,
        };
        if !may.be_true {
            return Some(Dead::AlwaysBroken);
        }
        if !may.be_false && !may.fail {
            return Some(Dead::NeverBroken);
        }
        let before = self.rules.iter().take_while(|other| other.name != rule.name);
        let mut same = before.filter(|other| other.text.trim() == rule.text.trim());
        same.next().map(|other| Dead::Repeats(other.name.clone()))
    }
}

/// What an expression may come to.
#[derive(Clone, Copy)]
struct May {
    be_true: bool,
    be_false: bool,
    fail: bool,
}

impl May {
    const ANYTHING: Self = Self { be_true: true, be_false: true, fail: true };

    fn not(self) -> Self {
        Self { be_true: self.be_false, be_false: self.be_true, fail: self.fail }
    }

    /// `self && other`: a false side decides, also where the other one fails before it.
    fn and(self, other: Self) -> Self {
        let goes_on = self.be_true || self.fail;
        Self {
            be_true: self.be_true && other.be_true,
            be_false: self.be_false || (goes_on && other.be_false),
            fail: (goes_on && other.fail) || (self.fail && other.be_true),
        }
    }
}

struct Proof<'a> {
    ty: &'a ObjectType,
    engine: &'a Engine,
}

impl Proof<'_> {
    fn of(&self, expr: &IdedExpr) -> May {
        match &expr.expr {
            Expr::Call(call) if call.target.is_none() => self.operator(expr, call),
            Expr::Select(select)
                if select.test
                    && matches!(&select.operand.expr, Expr::Ident(name) if name == "record") =>
            {
                self.presence(&select.field)
            }
            Expr::Call(_)
            | Expr::Comprehension(_)
            | Expr::Ident(_)
            | Expr::List(_)
            | Expr::Literal(_)
            | Expr::Map(_)
            | Expr::Select(_)
            | Expr::Struct(_)
            | Expr::Unspecified => self.closed(expr),
        }
    }

    fn operator(&self, expr: &IdedExpr, call: &CallExpr) -> May {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (op::LOGICAL_AND, [left, right]) => self.of(left).and(self.of(right)),
            (op::LOGICAL_OR, [left, right]) => self.of(left).not().and(self.of(right).not()).not(),
            (op::LOGICAL_NOT, [one]) => self.of(one).not(),
            (op::CONDITIONAL, [condition, yes, no]) => {
                let (condition, yes, no) = (self.of(condition), self.of(yes), self.of(no));
                let either = |of: fn(May) -> bool| {
                    (condition.be_true && of(yes)) || (condition.be_false && of(no))
                };
                May {
                    be_true: either(|may| may.be_true),
                    be_false: either(|may| may.be_false),
                    fail: condition.fail || either(|may| may.fail),
                }
            }
            _ => self.closed(expr),
        }
    }

    /// `has(record.NAME)` on a record whose fields are there as the type wants them.
    fn presence(&self, name: &str) -> May {
        let field = self.ty.fields.get(name);
        let there = field.is_some_and(|field| field.required || field.kind.has_children());
        May { be_true: true, be_false: !there, fail: field.is_none() }
    }

    /// What an expression comes to that has no variables; anything, if it has.
    fn closed(&self, expr: &IdedExpr) -> May {
        if !is_closed(expr, &mut Vec::new()) {
            return May::ANYTHING;
        }
        let truth = super::evaluate(expr, self.engine.scope());
        May { be_true: truth == Ok(true), be_false: truth == Ok(false), fail: truth.is_err() }
    }
}

/// Whether an expression names nothing but types and the variables of its own loops.
fn is_closed<'e>(expr: &'e IdedExpr, bound: &mut Vec<&'e str>) -> bool {
    match &expr.expr {
        Expr::Ident(name) => bound.contains(&name.as_str()) || TYPES.contains(&name.as_str()),
        Expr::Comprehension(of) => {
            if !is_closed(&of.iter_range, bound) || !is_closed(&of.accu_init, bound) {
                return false;
            }
            bound.extend([of.iter_var.as_str(), of.accu_var.as_str()]);
            let within = [&of.loop_cond, &of.loop_step, &of.result];
            let closed = within.into_iter().all(|part| is_closed(part, bound));
            bound.truncate(bound.len() - 2);
            closed
        }
        Expr::Call(_)
        | Expr::List(_)
        | Expr::Literal(_)
        | Expr::Map(_)
        | Expr::Select(_)
        | Expr::Struct(_)
        | Expr::Unspecified => parts(&expr.expr).into_iter().all(|part| is_closed(part, bound)),
    }
}
