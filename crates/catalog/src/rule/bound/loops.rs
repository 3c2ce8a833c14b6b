//! Loops: `all`, `exists`, `exists_one`, `map` and `filter`, as the parser expands them. The body
//! counts once for every item that the range can have, so loops within loops multiply. The entries
//! of an object come in no order: they are fit for `all` and `exists`, not for a list.

use cel::IdedExpr;
use cel::common::ast::operators as op;
use cel::common::ast::{ComprehensionExpr, Expr};

use super::shape::Shape;
use super::{Cost, Walk, root_of, scan};
use crate::rule::RuleError;

impl<'a> Walk<'a> {
    pub(super) fn comprehension(
        &mut self,
        of: &'a ComprehensionExpr,
    ) -> Result<Cost<'a>, RuleError> {
        let builds_list = matches!(of.accu_init.expr, Expr::List(_));
        let set = self.set_of(&of.iter_range).filter(|set| !self.bound.reads.contains(*set));
        let range = self.visit(&of.iter_range)?;
        let (len, bytes) = (range.shape.len(), range.shape.bytes());
        let item = match range.shape {
            Shape::List { item, .. } => *item,
            //
            // Together the items have no more bytes than their range, and all that is charged for
            // one grows in proportion to it: so each may count as the average. No item leaves the
            // loop, because all and exists yield truth values.
            Shape::Any { len, bytes } if !builds_list => {
                let bytes = bytes.div_ceil(len.max(1));
                Shape::Any { len, bytes }
            }
            Shape::Scalar
            | Shape::Text(_)
            | Shape::Fields(..)
            | Shape::Refs
            | Shape::Any { .. } => {
                let what = if builds_list { "map and filter" } else { "all and exists" };
                return Err(RuleError::NotAList(what));
            }
        };
        self.scopes.push((&of.iter_var, item));
        self.scopes.push((&of.accu_var, Shape::Scalar));
        let body = if builds_list { self.append(of, len, bytes) } else { self.fold(of, len) };
        self.scopes.truncate(self.scopes.len() - 2);
        let body = body?;
        self.refine_reads(set);
        // Every item is copied once when it is bound to the variable.
        let steps = range.steps.saturating_add(body.steps).saturating_add(scan(bytes));
        Ok(Cost::new(steps.saturating_add(len), body.shape))
    }

    /// `all`, `exists` and `exists_one`: their result is a scalar.
    fn fold(&mut self, of: &'a ComprehensionExpr, len: u64) -> Result<Cost<'a>, RuleError> {
        let condition = self.visit(&of.loop_cond)?;
        let step = self.visit(&of.loop_step)?;
        let each = condition.steps.saturating_add(step.steps).saturating_add(1);
        Ok(Cost::new(each.saturating_mul(len), Shape::Scalar))
    }

    /// `map` and `filter`: each step appends one element to the result.
    fn append(
        &mut self,
        of: &'a ComprehensionExpr,
        len: u64,
        range_bytes: u64,
    ) -> Result<Cost<'a>, RuleError> {
        let (guard, element) = appended(of).ok_or(RuleError::Unsupported("this loop"))?;
        let guard = guard.map_or(Ok(0), |guard| self.visit(guard).map(|cost| cost.steps))?;
        let element_cost = self.visit(element)?;
        let bytes = if root_of(element) == Some(of.iter_var.as_str()) {
            // The elements are parts of different items: together no more than all items.
            range_bytes
        } else {
            element_cost.shape.bytes().saturating_mul(len)
        };
        let each = guard.saturating_add(element_cost.steps).saturating_add(1);
        let steps = each.saturating_mul(len).saturating_add(scan(bytes));
        let item = Box::new(element_cost.shape);
        Ok(Cost::new(steps, Shape::List { len, bytes, item }))
    }

    /// The name of the set that an expression is, if it is one of the record's.
    fn set_of(&self, expr: &'a IdedExpr) -> Option<&'a str> {
        let Expr::Select(select) = &expr.expr else {
            return None;
        };
        let record = matches!(&select.operand.expr, Expr::Ident(name) if name == "record");
        record.then_some(select.field.as_str())
    }

    /// Where a loop looks into fields of a set's children, it reads those and not the set.
    fn refine_reads(&mut self, set: Option<&str>) {
        let Some(set) = set else { return };
        let within =
            |read: &String| read.strip_prefix(set).is_some_and(|rest| rest.starts_with('.'));
        if self.bound.reads.iter().any(within) {
            self.bound.reads.remove(set);
        }
    }
}

/// The guard and the element of `@result + [element]`, as the macros write it.
fn appended(of: &ComprehensionExpr) -> Option<(Option<&IdedExpr>, &IdedExpr)> {
    let Expr::Call(call) = &of.loop_step.expr else {
        return None;
    };
    match (call.func_name.as_str(), call.args.as_slice()) {
        (op::CONDITIONAL, [guard, step, _]) => Some((Some(guard), appended_element(step)?)),
        _ => Some((None, appended_element(&of.loop_step)?)),
    }
}

fn appended_element(step: &IdedExpr) -> Option<&IdedExpr> {
    let Expr::Call(call) = &step.expr else {
        return None;
    };
    let [_, list] = call.args.as_slice() else {
        return None;
    };
    let Expr::List(list) = &list.expr else {
        return None;
    };
    let single = call.func_name == op::ADD && list.elements.len() == 1;
    list.elements.first().filter(|_| single)
}
