//! What people in the field do: visits, orders with lines, payments, stock counts, and the repair of
//! what is held. A few percent break a rule, name a record that is not there yet, or claim a number
//! that somebody else has; access is skewed, so that people meet in the same records.
//!
//! An action is decided from the device's own records and its own dice, so that it is the same
//! action whatever else is left out of a history.

use fieldkeep_model::{Outcome, RecordEdit, RecordKey, TypeName, status::State};
use fieldkeep_replica::{RecordView, Replica};
use fieldkeep_store::{Page, Records as _};
use serde_json::{Map, Value, json};

use crate::Dice;

/// The catalog of a field day. Every type but products lies in the territory of its people.
pub const CATALOG: &str = r#"
catalog = 1

[type.product.field]
name = { required = true }
price = { required = true, schema = { type = "string", pattern = '^[0-9]+(\.[0-9]{1,2})?$' } }
discontinued = { schema = { type = "boolean" } }

[type.outlet]
scope = "territory"
[type.outlet.field]
territory = { required = true }
name = { required = true }
blocked = { schema = { type = "boolean" } }
visits = { kind = "counter" }
note = { kind = "text" }

[type.visit]
scope = "territory"
[type.visit.field]
territory = { required = true }
outlet = { ref = "outlet", required = true }
at = { schema = { type = "integer" } }
note = { kind = "text" }

[type.order]
scope = "territory"
[type.order.field]
territory = { required = true }
outlet = { ref = "outlet", required = true }
number = { required = true, unique = true }
state = { schema = { enum = ["draft", "sent", "delivered"] } }
discount = { schema = { type = "integer", minimum = 0 } }
[type.order.field.lines]
kind = "set"
ref = "product"
[type.order.field.lines.field]
quantity = { required = true, schema = { type = "integer" } }

[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"

[[type.order.rule]]
name = "quantity"
cel = "!has(record.lines) || record.lines.all(l, l.quantity > 0)"
reason = "every line needs a quantity above 0"

[[type.order.rule]]
name = "blocked"
cel = "refs.outlet == null || !has(refs.outlet.blocked) || !refs.outlet.blocked || record.state == 'draft'"
reason = "nothing is sent to an outlet that is blocked"

[[type.order.rule]]
name = "delivered"
cel = "previous == null || !has(previous.state) || previous.state != 'delivered' || record.state == 'delivered'"
reason = "what was delivered stays delivered"

[type.payment]
scope = "territory"
[type.payment.field]
territory = { required = true }
order = { ref = "order", required = true }
amount = { required = true, schema = { type = "string", pattern = '^[0-9]+(\.[0-9]{1,2})?$' } }

[type.stock]
scope = "territory"
[type.stock.field]
territory = { required = true }
product = { ref = "product", required = true }
quantity = { kind = "counter" }

[[type.stock.rule]]
name = "stock"
cel = "!has(record.quantity) || record.quantity >= 0"
reason = "more was taken than there was: count it again"
"#;

/// The catalog of a field day on which people ask for what needs a connection, or attach files.
pub(crate) fn source(calls: bool, files: bool) -> String {
    let mut source = CATALOG.to_owned();
    if calls {
        let order = "[type.order]\nscope = \"territory\"\n";
        let guarded = "online_only = \"has(before.state) && before.state == 'delivered'\"\n";
        source = source
            .replace(order, &format!("{order}{guarded}"))
            .replace("[type.order.field]\n", "[type.order.field]\nremark = {}\n")
            .replace(
                "[type.payment.field]\n",
                "[type.payment.field]\nslip = {}\nruns = { kind = \"counter\" }\n",
            );
        source.push_str(COLLECT);
    }
    if files {
        let photos = "photos = { kind = \"attachment\", media = [\"image/*\"] }\n";
        source = source.replace("[type.visit.field]\n", &format!("[type.visit.field]\n{photos}"));
    }
    source
}

/// An action that has the relay write three records, or none.
const COLLECT: &str = r#"
[action.collect]
description = "Hand an order over and take a payment"
who = "everyone"
input.order = { required = true, ref = "order" }
input.amount = { required = true }
input.slip = { required = true }
record.order = "order/{input.order}"
[[action.collect.require]]
cel = "!has(records.order.discount) || records.order.discount <= 20"
reason = "such a discount has to be signed for"
[[action.collect.effect]]
type = "order"
id = "input.order"
fields = { state = "'delivered'" }
[[action.collect.effect]]
type = "payment"
fields = { territory = "records.order.territory", order = "input.order", amount = "input.amount", slip = "input.slip", runs = "1" }
[[action.collect.effect]]
type = "visit"
fields = { territory = "records.order.territory", outlet = "records.order.outlet", note = "input.slip" }
"#;

/// The discount that the first catalog allows, as its rule says it.
const DISCOUNT: &str = "record.discount <= 30";

/// A catalog that the operator publishes after that one: orders may have another discount, and at times a
/// rule is there that was not there before, so that records are judged again that nobody touches.
pub(crate) fn catalog(first: &str, dice: &mut Dice) -> String {
    let allowed = *dice.pick(&[12, 15, 20, 25, 28, 30, 45]);
    let mut source = first.replace(DISCOUNT, &format!("record.discount <= {allowed}"));
    if dice.one_in(2) {
        source.push_str(
            r#"
[[type.payment.rule]]
name = "round"
cel = "!record.amount.endsWith('7')"
reason = "amounts do not end in seven"
"#,
        );
    }
    if dice.one_in(2) {
        source.push_str(
            r#"
[[type.stock.rule]]
name = "shelf"
cel = "!has(record.quantity) || record.quantity <= 60"
reason = "there is no room for so much"
"#,
        );
    }
    source
}

/// The types that lie in territories.
pub const SCOPED: [&str; 5] = ["outlet", "visit", "order", "payment", "stock"];
/// Products that everybody sells.
pub const PRODUCTS: usize = 20;
/// Outlets of a territory.
pub const OUTLETS: usize = 25;

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Enters products and a territory's outlets; the first thing that happens.
    Found,
    /// Notes a visit at an outlet.
    Visit,
    /// Counts a visit and writes into the outlet's note, where others do too.
    Outlet,
    /// Takes an order.
    Order,
    /// Changes an order that somebody took.
    Change,
    /// Takes a payment, at times before the order is known.
    Payment,
    /// Takes from the stock, or counts it.
    Stock,
    /// Repairs what is held.
    Repair,
    /// Deletes a visit or a payment, or brings one back.
    Delete,
    /// Asks the relay to judge again, or puts a held record aside.
    Ask,
}

impl Work {
    /// The word for it in histories.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Found => "enters products and outlets",
            Self::Visit => "notes a visit",
            Self::Outlet => "edits an outlet",
            Self::Order => "takes an order",
            Self::Change => "changes an order",
            Self::Payment => "takes a payment",
            Self::Stock => "counts stock",
            Self::Repair => "repairs what is held",
            Self::Delete => "deletes a record",
            Self::Ask => "asks about what is held",
        }
    }

    /// The work of one visit, in order; about five writes.
    pub(crate) fn of_a_visit(dice: &mut Dice) -> Vec<Self> {
        let mut works = vec![Self::Visit];
        works.push(*dice.pick(&[Self::Outlet, Self::Stock, Self::Stock]));
        works.push(Self::Order);
        works.push(*dice.pick(&[Self::Change, Self::Change, Self::Payment, Self::Repair]));
        works.push(*dice.pick(&[
            Self::Payment,
            Self::Payment,
            Self::Stock,
            Self::Change,
            Self::Repair,
            Self::Delete,
            Self::Ask,
        ]));
        works
    }
}

/// What a work comes to.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Put(RecordKey, Map<String, Value>),
    Delete(RecordKey),
    Undelete(RecordKey),
    Retry(RecordKey),
    Dismiss(RecordKey),
}

impl Deed {
    /// The edit that a deed is, if it is one.
    pub(crate) fn edit(&self, replica: &Replica) -> Option<(RecordKey, RecordEdit)> {
        match self {
            Self::Put(key, fields) => {
                let object = replica.published()?.catalog.ty(&key.ty)?;
                Some((key.clone(), object.edit_from_json(fields).ok()?))
            }
            Self::Delete(key) => Some((key.clone(), RecordEdit::delete())),
            Self::Undelete(key) => {
                Some((key.clone(), RecordEdit { edits: Vec::new(), deleted: Some(false) }))
            }
            Self::Retry(_) | Self::Dismiss(_) => None,
        }
    }
}

pub(crate) fn key(ty: &str, id: &str) -> RecordKey {
    format!("{ty}/{id}").parse().expect("ids of the workload are well-formed")
}

fn put(ty: &str, id: &str, fields: Value) -> Deed {
    let Value::Object(fields) = fields else { unreachable!("the workload writes objects") };
    Deed::Put(key(ty, id), fields)
}

/// Small numbers more often than large ones.
fn skewed(dice: &mut Dice, bound: usize) -> usize {
    let share = dice.below(1_000) * dice.below(1_000);
    share * bound / 1_000_000
}

/// Somebody at work: where, and with what.
pub(crate) struct Worker<'a> {
    pub(crate) territory: &'a str,
    pub(crate) replica: &'a Replica,
    pub(crate) now_ms: i64,
    pub(crate) dice: Dice,
}

impl Worker<'_> {
    /// What a work comes to here and now.
    pub(crate) fn deeds(&mut self, work: Work) -> Vec<Deed> {
        match work {
            Work::Found => self.found(),
            Work::Visit => vec![self.visit()],
            Work::Outlet => vec![self.outlet()],
            Work::Order => vec![self.order()],
            Work::Change => vec![self.change()],
            Work::Payment => vec![self.payment()],
            Work::Stock => vec![self.stock()],
            Work::Repair => vec![self.repair()],
            Work::Delete => vec![self.delete()],
            Work::Ask => self.ask(),
        }
    }

    fn found(&mut self) -> Vec<Deed> {
        let products = (0..PRODUCTS).map(|n| {
            put(
                "product",
                &format!("p{n}"),
                json!({"name": format!("Product {n}"), "price": "4.50"}),
            )
        });
        products.collect()
    }

    fn outlet_id(&mut self) -> String {
        format!("{}-o{}", self.territory, skewed(&mut self.dice, OUTLETS))
    }

    fn fresh(&mut self) -> String {
        format!("{:016x}", self.dice.roll())
    }

    fn visit(&mut self) -> Deed {
        let (id, outlet) = (self.fresh(), self.outlet_id());
        let note = format!("note {:x}", self.dice.roll() as u32);
        let fields = json!({"territory": self.territory, "outlet": outlet, "at": self.now_ms,
                            "note": note});
        put("visit", &id, fields)
    }

    fn outlet(&mut self) -> Deed {
        let id = self.outlet_id();
        let known = self.record("outlet", &id);
        let mut fields = json!({"territory": self.territory, "visits": 1});
        if known.is_none() {
            fields["name"] = json!(format!("Outlet {id}"));
        }
        let note = known.as_ref().and_then(|known| known.fields.get("note")?.as_str());
        let mut note: String = note.unwrap_or("asks for: ").chars().take(60).collect();
        let at = note.floor_char_boundary(self.dice.below(note.len() + 1));
        note.insert_str(at, ["tea ", "rice ", "soap "][self.dice.below(3)]);
        fields["note"] = json!(note);
        if self.dice.one_in(12) {
            fields["blocked"] = json!(self.dice.one_in(2));
        }
        put("outlet", &id, fields)
    }

    fn lines(&mut self) -> Value {
        let count = 1 + self.dice.below(3);
        let mut ids: Vec<usize> = (0..count).map(|_| skewed(&mut self.dice, PRODUCTS)).collect();
        ids.sort_unstable();
        ids.dedup();
        let line = |n| json!({"id": format!("p{n}"), "quantity": 1 + self.dice.below(40)});
        ids.into_iter().map(line).collect()
    }

    fn order(&mut self) -> Deed {
        let (id, outlet) = (self.fresh(), self.outlet_id());
        // One in a hundred takes a number that others may have too.
        let spread = if self.dice.one_in(100) { 40 } else { 1 << 40 };
        let number = format!("N{}", self.dice.roll() % spread);
        let lines = self.lines();
        let discount = if self.dice.one_in(30) { 45 } else { self.dice.below(31) };
        let fields = json!({"territory": self.territory, "outlet": outlet, "number": number,
                            "state": "draft", "discount": discount, "lines": lines});
        put("order", &id, fields)
    }

    fn change(&mut self) -> Deed {
        let Some(order) = self.any("order") else { return self.order() };
        let mut fields = match self.dice.below(4) {
            0 => json!({"state": *self.dice.pick(&["sent", "delivered"])}),
            1 => json!({"discount": if self.dice.one_in(15) { 50 } else { self.dice.below(31) }}),
            2 => json!({"lines": self.lines()}),
            _ => {
                let line = format!("p{}", skewed(&mut self.dice, PRODUCTS));
                let quantity = if self.dice.one_in(20) { 0 } else { 1 + self.dice.below(40) };
                json!({"lines": [{"id": line, "quantity": quantity}]})
            }
        };
        fields["territory"] = json!(self.territory);
        put("order", order.key.id.as_str(), fields)
    }

    fn payment(&mut self) -> Deed {
        let id = self.fresh();
        // The slip at times names an order that has not come here, or one that never will.
        let order = match self.any("order") {
            Some(order) if !self.dice.one_in(20) => order.key.id.to_string(),
            Some(_) | None => self.fresh(),
        };
        let amount = format!("{}.{:02}", self.dice.below(400), self.dice.below(100));
        let fields = json!({"territory": self.territory, "order": order, "amount": amount});
        put("payment", &id, fields)
    }

    fn stock(&mut self) -> Deed {
        let product = skewed(&mut self.dice, PRODUCTS);
        let id = format!("{}-s{product}", self.territory);
        let moved = if self.dice.one_in(3) {
            self.dice.below(30) as i64
        } else {
            -(self.dice.below(9) as i64)
        };
        let known = self.record("stock", &id).is_some();
        let moved = if known { moved } else { moved + 30 };
        let fields = json!({"territory": self.territory, "product": format!("p{product}"),
                            "quantity": moved});
        put("stock", &id, fields)
    }

    fn repair(&mut self) -> Deed {
        let Some(held) = self.held() else { return self.visit() };
        let mut fields = match held.key.ty.as_str() {
            "order" => {
                let lines = held.fields.get("lines").and_then(Value::as_array);
                let mended = |line: &Value| json!({"id": line["id"], "quantity": 1});
                let lines: Vec<Value> = lines.into_iter().flatten().map(mended).collect();
                let number = format!("N{}", self.dice.roll());
                json!({"discount": 10, "lines": lines, "number": number, "state": "delivered"})
            }
            "payment" => match self.any("order") {
                Some(order) => json!({"order": order.key.id.as_str()}),
                None => json!({"amount": "1.00"}),
            },
            "stock" => json!({"quantity": 40}),
            _ => json!({}),
        };
        fields["territory"] = json!(self.territory);
        put(held.key.ty.as_str(), held.key.id.as_str(), fields)
    }

    fn delete(&mut self) -> Deed {
        let ty = ["visit", "payment"][self.dice.below(2)];
        let page = Page { deleted: true, ..self.page() };
        let records = self.list(ty, &page);
        match records.first() {
            Some(record) if record.deleted => Deed::Undelete(record.key.clone()),
            Some(record) => Deed::Delete(record.key.clone()),
            None => self.visit(),
        }
    }

    fn ask(&mut self) -> Vec<Deed> {
        let Some(held) = self.held() else { return vec![self.visit()] };
        let ask: fn(RecordKey) -> Deed =
            if self.dice.one_in(2) { Deed::Retry } else { Deed::Dismiss };
        vec![ask(held.key), self.stock()]
    }

    fn record(&self, ty: &str, id: &str) -> Option<RecordView> {
        self.replica.views().record(&key(ty, id)).ok().flatten()
    }

    /// A page that begins anywhere among the ids that the workload draws.
    fn page(&mut self) -> Page {
        let after = Some(format!("{:02x}", self.dice.roll() as u8));
        Page { after, limit: 3, deleted: false }
    }

    fn list(&self, ty: &str, page: &Page) -> Vec<RecordView> {
        let ty = TypeName::new(ty).expect("a type of the catalog");
        self.replica.views().list(&ty, page).unwrap_or_default()
    }

    /// A record of that type that is not deleted.
    pub(crate) fn any(&mut self, ty: &str) -> Option<RecordView> {
        let page = self.page();
        let mut records = self.list(ty, &page);
        records.retain(|record| {
            record.fields.get("territory").and_then(Value::as_str) == Some(self.territory)
        });
        if records.is_empty() {
            None
        } else {
            Some(records.swap_remove(self.dice.below(records.len())))
        }
    }

    /// A record that is held or waits, in this territory.
    fn held(&mut self) -> Option<RecordView> {
        let rows = self.replica.store().attention().ok()?;
        let stuck = |state| matches!(state, State::Judged(Outcome::Held | Outcome::Waiting));
        let rows = rows.into_iter().filter(|row| stuck(row.state) && !row.deleted);
        let types = rows.filter_map(|row| {
            let segment = self.replica.segments().values().find(|s| s.sid == row.sid)?;
            (segment.address.scope == self.territory)
                .then(|| RecordKey::new(segment.address.ty.clone(), row.id))
        });
        let keys: Vec<RecordKey> = types.collect();
        if keys.is_empty() {
            return None;
        }
        let key = keys[self.dice.below(keys.len())].clone();
        self.replica.views().record(&key).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldkeep_catalog::Catalog;

    #[test]
    fn the_catalog_of_a_field_day_is_sound() {
        let catalog = Catalog::parse(CATALOG).expect("a sound catalog");
        let scoped = catalog.types().values().filter(|object| object.scope.is_some());
        assert_eq!(scoped.count(), SCOPED.len());
    }

    #[test]
    fn every_catalog_of_an_operator_succeeds_every_other() {
        let mut dice = Dice::seeded(1);
        for first in [source(false, false), source(true, false), source(true, true)] {
            let mut before = Catalog::parse(&first).expect("a sound catalog");
            for _ in 0..40 {
                let next = Catalog::parse(&catalog(&first, &mut dice)).expect("a sound catalog");
                assert!(before.check_successor(&next).is_empty());
                before = next;
            }
        }
    }

    #[test]
    fn skewed_numbers_prefer_the_small_ones() {
        let mut dice = Dice::seeded(1);
        let low = (0..1_000).filter(|_| skewed(&mut dice, 100) < 20).count();
        assert!(low > 450, "{low} of 1,000 among the first fifth");
    }
}
