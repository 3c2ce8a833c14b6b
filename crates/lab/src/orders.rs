//! Orders: records as a field sales application writes them, about 470 bytes of JSON with ten
//! fields and three lines.

use serde_json::{Value, json};

use crate::Dice;

/// The customers that orders name.
pub const CUSTOMERS: [&str; 4] =
    ["Alfreds Futterkiste", "Bon app'", "Ernst Handel", "Godos Cocina Típica"];
const STATES: [&str; 3] = ["draft", "sent", "delivered"];
const NOTES: [&str; 3] = [
    "leave it at the back door, never at reception",
    "call an hour before you come, and ask for Ann",
    "no pallets: the lift takes boxes only, two by two",
];

/// An order and its id.
pub fn order(dice: &mut Dice) -> (String, Value) {
    let id = format!("{:08x}-{:04x}", dice.roll() as u32, dice.roll() as u16);
    let fields = json!({
        "customer": CUSTOMERS[dice.below(CUSTOMERS.len())],
        "outlet": format!("outlet-{:03}", dice.below(40)),
        "state": STATES[dice.below(STATES.len())],
        "ordered_at": 1_700_000_000_000u64 + dice.roll() % 50_000_000_000,
        "discount": dice.below(31),
        "freight": format!("{}.{:02}", dice.below(90), dice.below(100)),
        "paid": dice.one_in(2),
        "weight": dice.below(4_000) as f64 / 8.0,
        "note": NOTES[dice.below(NOTES.len())],
        "lines": (0..3).map(|_| line(dice)).collect::<Vec<_>>(),
    });
    (id, fields)
}

fn line(dice: &mut Dice) -> Value {
    json!({
        "id": format!("{:04x}", dice.roll() as u16),
        "product": format!("product-{:05}", dice.below(77)),
        "quantity": dice.below(40) + 1,
        "unit_price": format!("{}.{:02}", dice.below(60), dice.below(100)),
    })
}

/// So many orders.
pub fn orders(seed: u64, count: usize) -> Vec<(String, Value)> {
    let mut dice = Dice::seeded(seed);
    (0..count).map(|_| order(&mut dice)).collect()
}

/// A catalog for them: two references, two rules, and the order's scope if it is to have one.
#[must_use]
pub fn catalog(buckets: u32, scoped: bool) -> String {
    let scope = if scoped { "scope = \"outlet\"" } else { "" };
    format!(
        r#"
catalog = 1
[type.customer.field]
name = {{ required = true }}
[type.product.field]
name = {{ required = true }}
[type.order]
buckets = {buckets}
{scope}
[type.order.field]
customer = {{ ref = "customer", required = true }}
outlet = {{ required = true }}
state = {{ schema = {{ type = "string", maxLength = 20 }} }}
ordered_at = {{ schema = {{ type = "integer", minimum = 0 }} }}
discount = {{ schema = {{ type = "integer" }} }}
freight = {{ schema = {{ type = "string" }} }}
paid = {{ schema = {{ type = "boolean" }} }}
weight = {{ schema = {{ type = "number" }} }}
note = {{}}
[type.order.field.lines]
kind = "set"
[type.order.field.lines.field]
product = {{ ref = "product", required = true }}
quantity = {{ required = true, schema = {{ type = "integer" }} }}
unit_price = {{ required = true }}
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
[[type.order.rule]]
name = "quantities"
cel = "record.lines.all(l, l.quantity > 0)"
reason = "every line needs a quantity above 0"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_ten_fields_three_lines_and_about_470_bytes() {
        let orders = orders(1, 100);
        let bytes: usize = orders.iter().map(|(_, order)| order.to_string().len()).sum();
        assert!((420..520).contains(&(bytes / 100)), "{} bytes", bytes / 100);
        assert_eq!(orders[0].1.as_object().unwrap().len(), 10);
        assert_eq!(orders[0].1["lines"].as_array().unwrap().len(), 3);
    }
}
