//! What a record comes to, one promise a test.

use std::collections::BTreeMap;

use fieldkeep_catalog::{Catalog, Holder, Judgement, Referent, Subject, Surroundings};
use fieldkeep_model::verdict::ArgValue;
use fieldkeep_model::{Outcome, RecordId, SegmentId, TypeName};
use serde_json::{Map, Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer.field]
name = {}
blocked = { schema = { type = "boolean" } }
email = { unique = true }
[type.order]
scope = "outlet"
[type.order.field]
outlet = {}
customer = { ref = "customer", required = true }
number = { unique = true }
total = { schema = { type = "integer", maximum = 1000 } }
code = { schema = { type = "string", pattern = "^[A-Z]+$" } }
note = { kind = "text" }
stock = { kind = "counter" }
extra = { kind = "json" }
weight = { schema = { type = "number" } }
[type.order.field.lines]
kind = "set"
schema = { maxItems = 1000 }
[type.order.field.lines.field]
quantity = { required = true, schema = { type = "integer" } }
product = { ref = "customer" }
[[type.order.rule]]
name = "positive"
cel = "record.lines.all(l, l.quantity > 0)"
reason = "every line needs a quantity above 0"
[[type.order.rule]]
name = "not_blocked"
cel = "refs.customer == null || !has(refs.customer.blocked) || !refs.customer.blocked"
reason = "the customer is blocked"
[[type.order.rule]]
name = "grows"
cel = "previous == null || !has(previous.total) || (has(record.total) && record.total >= previous.total)"
reason = "a total never shrinks"
[[type.order.rule]]
name = "share"
cel = "!has(record.stock) || 100 / record.stock > 1"
reason = "stock is too large"
[[type.order.rule]]
name = "coded"
cel = "!has(record.code) || record.code.matches('^A')"
reason = "codes begin with an A"
[[type.order.rule]]
name = "light"
cel = "!has(record.weight) || record.weight < 5 && record.weight > 0.5"
reason = "weighs between 0.5 and 5"
"#;

#[derive(Default)]
struct World {
    referents: BTreeMap<String, Referent>,
    holders: Vec<Holder>,
}

impl Surroundings for World {
    fn referent(&self, ty: &TypeName, id: &RecordId) -> Referent {
        self.referents.get(&format!("{ty}/{id}")).cloned().unwrap_or(Referent::Absent)
    }

    fn holders(&self, _: &TypeName, _: &str, _: &str) -> Vec<Holder> {
        self.holders.clone()
    }
}

fn id(text: &str) -> RecordId {
    RecordId::new(text).expect("an id")
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn present(fields: Value, held: bool) -> Referent {
    Referent::Present { fields: object(fields), held, segment: SegmentId([7; 16]) }
}

fn world() -> World {
    let referents = [("customer/ann".to_owned(), present(json!({"name": "Ann"}), false))];
    World { referents: referents.into(), holders: Vec::new() }
}

struct Case {
    judgement: Judgement,
    sentences: Vec<String>,
}

fn judge_in(
    world: &World,
    fields: Value,
    previous: Option<Value>,
    scope: &str,
    deleted: bool,
) -> Case {
    let catalog = Catalog::parse(CATALOG).expect("it is right");
    let (ty, fields) = (TypeName::new("order").expect("a name"), object(fields));
    let previous = previous.map(object);
    let subject = Subject {
        ty: &ty,
        id: &id("7"),
        fields: &fields,
        deleted,
        previous: previous.as_ref(),
        scope,
    };
    let judgement = catalog.judge(&subject, world);
    let sentences = judgement.reasons.iter().map(|reason| catalog.explain(&ty, reason)).collect();
    Case { judgement, sentences }
}

fn judge(fields: Value) -> Case {
    judge_in(&world(), fields, None, "", false)
}

/// Asserts the outcome, the message ids and the fields they name, and the sentences.
fn told(case: &Case, outcome: Outcome, reasons: &[(&str, &str, &str)]) {
    let judgement = &case.judgement;
    let found = judgement.reasons.iter().zip(&case.sentences);
    let found: Vec<_> = found
        .map(|(reason, sentence)| (reason.id.as_str(), reason.fields.join(" "), sentence.as_str()))
        .collect();
    let found: Vec<_> =
        found.iter().map(|(id, fields, text)| (*id, fields.as_str(), *text)).collect();
    assert_eq!(found, reasons);
    assert_eq!(judgement.outcome, outcome);
}

#[test]
fn a_record_that_meets_everything_is_valid() {
    let case = judge(json!({
        "customer": "ann", "total": 12, "note": "now", "extra": {"any": [1, null]}, "code": "AB",
        "weight": 2, "stock": 3, "lines": [{"id": "1", "quantity": 2}],
    }));
    told(&case, Outcome::Valid, &[]);
    assert!(case.judgement.complete && !case.judgement.depends_on_held);
}

#[test]
fn a_deleted_record_is_valid_whatever_it_holds() {
    let case = judge_in(&world(), json!({"nonsense": 1}), None, "elsewhere", true);
    told(&case, Outcome::Valid, &[]);
}

#[test]
fn what_the_catalog_does_not_declare_is_held() {
    let case = judge(
        json!({"customer": "ann", "colour": "red", "lines": [{"id": "1", "quantity": 0, "x": 1}]}),
    );
    let told_fields = [
        ("unknown_schema", "colour", "the catalog does not declare `colour`"),
        ("unknown_schema", "lines.x", "the catalog does not declare `lines.x` of `1`"),
    ];
    told(&case, Outcome::Held, &told_fields);
    let catalog = Catalog::parse(CATALOG).expect("it is right");
    let ty = TypeName::new("invoice").expect("a name");
    let fields = Map::new();
    let subject = Subject {
        ty: &ty,
        id: &id("7"),
        fields: &fields,
        deleted: false,
        previous: None,
        scope: "",
    };
    let judgement = catalog.judge(&subject, &world());
    assert_eq!(judgement.outcome, Outcome::Held);
    assert_eq!(
        catalog.explain(&ty, &judgement.reasons[0]),
        "the catalog does not declare the type `invoice`"
    );
}

#[test]
fn required_fields_are_missed_in_records_and_children() {
    let case = judge(json!({"customer": null, "lines": [{"id": "1"}]}));
    let reasons = [
        ("required", "customer", "`customer` is missing"),
        ("required", "lines.quantity", "`lines.quantity` of `1` is missing"),
    ];
    told(&case, Outcome::Held, &reasons);
}

#[test]
fn values_that_do_not_fit_their_schema_are_held_with_what_it_says() {
    let case = judge(json!({
        "customer": "ann", "total": 1001, "code": "ab", "lines": [{"id": "1", "quantity": "2"}],
    }));
    let reasons = [
        ("schema", "code", "`code` does not fit: \"ab\" does not match \"^[A-Z]+$\""),
        ("schema", "total", "`total` does not fit: 1001 is greater than the maximum of 1000"),
        (
            "schema",
            "lines.quantity",
            "`lines.quantity` of `1` does not fit: \"2\" is not of type \"integer\"",
        ),
    ];
    told(&case, Outcome::Held, &reasons);
}

#[test]
fn values_of_another_kind_than_their_field_are_held() {
    let case = judge(json!({"customer": ["ann"], "note": 1, "stock": 1.5, "lines": {}}));
    let fields: Vec<_> =
        case.judgement.reasons.iter().map(|reason| reason.fields.join(" ")).collect();
    assert_eq!(fields, ["customer", "lines", "note", "stock"]);
    assert!(case.judgement.reasons.iter().all(|reason| reason.id == "schema"));
}

#[test]
fn what_exceeds_the_limits_of_rules_is_held() {
    let lines: Vec<_> = (0..1001).map(|n| json!({"id": n.to_string(), "quantity": 1})).collect();
    let case = judge(json!({
        "customer": "ann", "number": "x".repeat(20_000), "lines": lines, "extra": vec![0; 10_001],
    }));
    let fields: Vec<_> =
        case.judgement.reasons.iter().map(|reason| reason.fields.join(" ")).collect();
    assert_eq!(fields, ["extra", "lines", "number"]);
    let case = judge(json!({"customer": "ann", "extra": ["x".repeat(1_100_000)]}));
    told(
        &case,
        Outcome::Held,
        &[("schema", "", "the record does not fit: the record has more than 1048576 bytes")],
    );
}

#[test]
fn a_changed_scope_is_held() {
    let case = judge_in(&world(), json!({"customer": "ann", "outlet": "b"}), None, "a", false);
    let sentence =
        "`outlet` was changed from `a` to `b`: to move a record, delete it and create it there";
    told(&case, Outcome::Held, &[("scope_changed", "outlet", sentence)]);
}

#[test]
fn a_reference_to_an_absent_record_waits() {
    let case = judge(json!({"customer": "ben", "lines": []}));
    let sentence = "`customer` refers to customer/ben, which is not there yet";
    told(&case, Outcome::Waiting, &[("reference_absent", "customer", sentence)]);
}

#[test]
fn what_is_held_wins_over_what_waits() {
    let case = judge(json!({"customer": "ben", "lines": [{"id": "1", "quantity": 0}]}));
    assert_eq!(case.judgement.outcome, Outcome::Held);
    assert_eq!(case.judgement.reasons.len(), 2);
}

#[test]
fn a_reference_to_a_deleted_record_is_held() {
    let mut world = world();
    world.referents.insert("customer/ben".to_owned(), Referent::Deleted);
    let fields =
        json!({"customer": "ann", "lines": [{"id": "1", "quantity": 1, "product": "ben"}]});
    let case = judge_in(&world, fields, None, "", false);
    let sentence = "`lines.product` refers to customer/ben, which is deleted";
    told(&case, Outcome::Held, &[("reference_deleted", "lines.product", sentence)]);
}

#[test]
fn a_held_referent_counts_as_present_and_is_told() {
    let mut world = world();
    world.referents.insert("customer/ann".to_owned(), present(json!({}), true));
    let case = judge_in(&world, json!({"customer": "ann"}), None, "", false);
    told(&case, Outcome::Valid, &[]);
    assert!(case.judgement.depends_on_held);
}

#[test]
fn what_lies_elsewhere_leaves_the_judgement_incomplete() {
    let mut world = world();
    world.referents.insert("customer/ann".to_owned(), Referent::Elsewhere);
    let case = judge_in(&world, json!({"customer": "ann"}), None, "", false);
    told(&case, Outcome::Valid, &[]);
    assert!(!case.judgement.complete);
}

#[test]
fn rules_see_the_referent() {
    let mut world = world();
    world.referents.insert("customer/ann".to_owned(), present(json!({"blocked": true}), false));
    let case = judge_in(&world, json!({"customer": "ann"}), None, "", false);
    told(&case, Outcome::Held, &[("rule", "customer", "the customer is blocked")]);
}

#[test]
fn a_unique_value_that_another_record_has_is_held_and_the_other_is_private() {
    let segment = SegmentId([9; 16]);
    let holders = ["9", "8", "7"].map(|other| Holder { id: id(other), segment });
    let world = World { holders: holders.into(), ..world() };
    let case = judge_in(&world, json!({"customer": "ann", "number": "A1"}), None, "", false);
    told(
        &case,
        Outcome::Held,
        &[("unique", "number", "`number` is `A1`, and so is that of order/8")],
    );
    let private = case.judgement.private[0];
    assert_eq!(private.segment, segment);
    let arg = &case.judgement.reasons[private.reason].args[private.arg];
    assert_eq!(arg.value, ArgValue::Open("order/8".to_owned()));
    let alone = World { holders: vec![Holder { id: id("7"), segment }], ..self::world() };
    told(
        &judge_in(&alone, json!({"customer": "ann", "number": "A1"}), None, "", false),
        Outcome::Valid,
        &[],
    );
}

#[test]
fn a_sealed_argument_reads_as_another_record() {
    let holders = vec![Holder { id: id("8"), segment: SegmentId([9; 16]) }];
    let world = World { holders, ..world() };
    let case = judge_in(&world, json!({"customer": "ann", "number": "A1"}), None, "", false);
    let mut reason = case.judgement.reasons[0].clone();
    reason.args[2].value = ArgValue::Sealed([0; 16]);
    let catalog = Catalog::parse(CATALOG).expect("it is right");
    let sentence = catalog.explain(&TypeName::new("order").expect("a name"), &reason);
    assert_eq!(sentence, "`number` is `A1`, and so is that of another record");
}

#[test]
fn a_broken_rule_is_told_in_the_catalogs_words() {
    let case =
        judge(json!({"customer": "ann", "weight": 0.25, "lines": [{"id": "1", "quantity": -1}]}));
    let reasons = [
        ("rule", "lines.quantity", "every line needs a quantity above 0"),
        ("rule", "weight", "weighs between 0.5 and 5"),
    ];
    told(&case, Outcome::Held, &reasons);
    assert_eq!(case.judgement.reasons[0].rule.as_deref(), Some("positive"));
}

#[test]
fn rules_compare_with_the_last_valid_state() {
    let case = judge_in(
        &world(),
        json!({"customer": "ann", "total": 3}),
        Some(json!({"total": 5})),
        "",
        false,
    );
    told(&case, Outcome::Held, &[("rule", "total", "a total never shrinks")]);
}

#[test]
fn patterns_in_rules_are_matched() {
    let case = judge(json!({"customer": "ann", "code": "BA"}));
    told(&case, Outcome::Held, &[("rule", "code", "codes begin with an A")]);
}

#[test]
fn a_rule_that_fails_is_told_without_the_values() {
    let case = judge(json!({"customer": "ann", "stock": 0}));
    let sentence = "the rule `share` could not be checked: division by zero";
    told(&case, Outcome::Held, &[("rule_failed", "stock", sentence)]);
}
