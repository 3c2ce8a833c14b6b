//! Rules that a module decides, or a judge of the relay.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use fieldkeep_catalog::{
    Catalog, Holder, Judgement, Judges, Matter, Referent, Subject, Surroundings, limit,
};
use fieldkeep_model::verdict::ArgValue;
use fieldkeep_model::{Outcome, RecordId, SegmentId, TypeName};
use serde_json::{Map, Value, json};

/// A world of one customer, with or without judges.
#[derive(Default)]
struct World {
    customer: Map<String, Value>,
    judges: Option<Judges>,
}

impl Surroundings for World {
    fn referent(&self, _: &TypeName, _: &RecordId) -> Referent {
        let fields = self.customer.clone();
        Referent::Present { fields, held: false, segment: SegmentId([0; 16]) }
    }

    fn holders(&self, _: &TypeName, _: &str, _: &str) -> Vec<Holder> {
        Vec::new()
    }

    fn judges(&self) -> Option<&Judges> {
        self.judges.as_ref()
    }
}

/// A catalog of orders whose one rule is decided as said.
fn catalog(rule: &str, modules: &str) -> Result<Catalog, String> {
    let source = format!(
        r#"
catalog = 1
[type.customer.field]
limit = {{ kind = "counter" }}
[type.order.field]
customer = {{ ref = "customer" }}
note = {{}}
total = {{ schema = {{ type = "integer" }} }}
[type.order.field.lines]
kind = "set"
[type.order.field.lines.field.product]
[[type.order.rule]]
name = "r"
{rule}
reason = "it is broken"
{modules}"#
    );
    Catalog::parse(&source).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

/// A catalog whose rule is decided by a module that is written so.
fn with_module(wat: &str) -> Result<Catalog, String> {
    let wasm = wat::parse_str(wat).expect("it is WebAssembly");
    let module = Catalog::module_text("m", &wasm).map_err(|errors| errors[0].to_string())?;
    catalog("module = \"m\"\nreads = [\"total\", \"lines\"]\nrefs = [\"customer\"]", &module)
}

/// A module with room for its input, and a judge of that body.
fn module(judge: &str) -> String {
    format!(
        r#"(module (memory (export "memory") 1 1000)
            (func (export "input") (param i32) (result i32) i32.const 64)
            (func (export "judge") (param $length i32) (result i32) {judge}))"#
    )
}

fn judge(catalog: &Catalog, world: &World, fields: Value) -> Judgement {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    let (ty, id) = (TypeName::new("order").unwrap(), RecordId::new("o1").unwrap());
    let previous = json!({ "total": 7, "note": "hidden" });
    let subject = Subject {
        ty: &ty,
        id: &id,
        fields: &fields,
        deleted: false,
        previous: previous.as_object(),
        scope: "",
    };
    catalog.judge(&subject, world)
}

/// Why a record could not be judged.
fn failure(judgement: &Judgement) -> &str {
    assert_eq!(judgement.outcome, Outcome::Held);
    let [reason] = judgement.reasons.as_slice() else { panic!("one reason: {judgement:?}") };
    assert_eq!(reason.id, "rule_failed");
    let ArgValue::Open(error) = &reason.args[0].value else { panic!("it is open") };
    error
}

/// The text that a module, or a judge, is to see of an order of this test.
const SEEN: &str = r#"{"record":{"lines":[],"total":12},"previous":{"lines":[],"total":7},"refs":{"customer":{"limit":3}}}"#;

fn order() -> Value {
    json!({ "total": 12, "note": "not for rules", "customer": "c1" })
}

fn world() -> World {
    World { customer: json!({ "limit": 3 }).as_object().unwrap().clone(), judges: None }
}

#[test]
fn a_module_sees_what_it_reads_and_nothing_else() {
    // It compares its input with what it should be, byte for byte.
    let text = SEEN.replace('"', "\\22");
    let wat = format!(
        r#"(module (memory (export "memory") 1)
            (data (i32.const 4096) "{text}")
            (func (export "input") (param i32) (result i32) i32.const 64)
            (func (export "judge") (param $length i32) (result i32)
                (local $at i32)
                (if (i32.ne (local.get $length) (i32.const {length})) (then (return (i32.const 0))))
                (loop $next
                    (if (i32.ne (i32.load8_u offset=64 (local.get $at)) (i32.load8_u offset=4096 (local.get $at)))
                        (then (return (i32.const 0))))
                    (local.set $at (i32.add (local.get $at) (i32.const 1)))
                    (br_if $next (i32.lt_u (local.get $at) (local.get $length))))
                i32.const 1))"#,
        length = SEEN.len()
    );
    let catalog = with_module(&wat).expect("it is sound");
    assert_eq!(judge(&catalog, &world(), order()).outcome, Outcome::Valid);
    let mut other = order();
    other["total"] = json!(13);
    let held = judge(&catalog, &world(), other);
    assert_eq!((held.outcome, held.reasons[0].id.as_str()), (Outcome::Held, "rule"));
    assert_eq!(held.reasons[0].fields, ["customer", "lines", "total"]);
    assert!(held.complete, "a module judges on a device as it does on the relay");
}

#[test]
fn what_a_module_costs_is_bounded_and_holds_one_record() {
    let forever = with_module(&module("(loop $on (br $on)) i32.const 1")).expect("it is sound");
    let told = format!("it takes more than {} steps", limit::MODULE_FUEL);
    assert_eq!(failure(&judge(&forever, &world(), order())), told);
    let greedy = module("(loop $on (drop (memory.grow (i32.const 16))) (br $on)) i32.const 1");
    let greedy = with_module(&greedy).expect("it is sound");
    assert_eq!(failure(&judge(&greedy, &world(), order())), "it takes more than 4 MiB of memory");
    let deep = with_module(
        r#"(module (memory (export "memory") 1)
            (func (export "input") (param i32) (result i32) i32.const 64)
            (func $down (export "judge") (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1))))"#,
    );
    let deep = deep.expect("it is sound");
    assert_eq!(failure(&judge(&deep, &world(), order())), "its calls nest too deep");
    let trap = with_module(&module("unreachable")).expect("it is sound");
    assert!(failure(&judge(&trap, &world(), order())).starts_with("the module failed"));
    let other = with_module(&module("i32.const 7")).expect("it is sound");
    assert_eq!(failure(&judge(&other, &world(), order())), "the module answers 7, and not 0 or 1");
    let nowhere = r#"(module (memory (export "memory") 1)
        (func (export "input") (param i32) (result i32) i32.const -1)
        (func (export "judge") (param i32) (result i32) i32.const 1))"#;
    let nowhere = with_module(nowhere).expect("it is sound");
    assert_eq!(
        failure(&judge(&nowhere, &world(), order())),
        "the module gives no room for its input"
    );
}

#[test]
fn an_instance_keeps_nothing_for_the_next_record() {
    // Says yes the first time that it is asked, and no ever after.
    let once = r#"(module (memory (export "memory") 1) (global $asked (mut i32) (i32.const 0))
        (func (export "input") (param i32) (result i32) i32.const 64)
        (func (export "judge") (param i32) (result i32)
            (global.set $asked (i32.add (global.get $asked) (i32.const 1)))
            (i32.eq (global.get $asked) (i32.const 1))))"#;
    let catalog = with_module(once).expect("it is sound");
    for _ in 0..3 {
        assert_eq!(judge(&catalog, &world(), order()).outcome, Outcome::Valid);
    }
}

#[test]
fn a_module_that_reaches_for_something_or_lacks_something_is_refused_with_the_catalog() {
    let importing = r#"(module (import "env" "now" (func (result i64))) (memory (export "memory") 1)
        (func (export "input") (param i32) (result i32) i32.const 64)
        (func (export "judge") (param i32) (result i32) i32.const 1))"#;
    let cases = [
        (importing.to_owned(), "the module imports `env.now`, and a rule reaches for nothing"),
        ("(module)".to_owned(), "the module does not export `memory`"),
        (r#"(module (memory (export "memory") 1))"#.to_owned(), "does not export `input`"),
        (
            r#"(module (memory (export "memory") 1)
                (func (export "input") (param i32) (result i32) i32.const 64)
                (func (export "judge") (param i64) (result i32) i32.const 1))"#
                .to_owned(),
            "does not export `judge`",
        ),
        (
            r#"(module (memory (export "memory") 1000)
                (func (export "input") (param i32) (result i32) i32.const 64)
                (func (export "judge") (param i32) (result i32) i32.const 1))"#
                .to_owned(),
            "the module cannot be begun",
        ),
        (
            r#"(module (memory (export "memory") 1) (func $on (loop $on (br $on))) (start $on)
                (func (export "input") (param i32) (result i32) i32.const 64)
                (func (export "judge") (param i32) (result i32) i32.const 1))"#
                .to_owned(),
            "the module cannot be begun",
        ),
    ];
    for (wat, problem) in cases {
        let error = with_module(&wat).expect_err(problem);
        assert!(error.contains(problem), "{error}");
    }
    let error = Catalog::module_text("m", b"no module").unwrap_err()[0].to_string();
    assert!(error.contains("not a WebAssembly module that rules can use"), "{error}");
    assert!(error.contains("compile it for wasm32-unknown-unknown"), "{error}");
    let error = Catalog::module_text("m", &vec![0; limit::MODULE + 1]).unwrap_err()[0].to_string();
    assert!(error.contains("longer than 128 KiB"), "{error}");
}

#[test]
fn what_is_written_wrong_is_told_with_its_place_and_the_way_out() {
    let sound = Catalog::module_text("m", &wat::parse_str(module("i32.const 1")).unwrap()).unwrap();
    let cases = [
        (
            "module = \"n\"\nreads = [\"total\"]",
            "type.order.rule.r.module: the module `n` is not declared: known are `m`",
        ),
        (
            "module = \"m\"",
            "needs `reads`: add `reads = [\"…\"]`: it sees those fields, and no others",
        ),
        (
            "module = \"m\"\nreads = [\"totl\"]",
            "the type `order` has no field `totl`: did you mean `total`?",
        ),
        (
            "module = \"m\"\nreads = [\"total\"]\nrefs = [\"note\"]",
            "the type `order` has no reference `note`: known are `customer`",
        ),
        ("module = \"m\"\nreads = \"total\"", "expected a list of fields, found a text"),
        (
            "module = \"m\"\ncel = \"true\"\nreads = [\"total\"]",
            "a rule is decided by `cel`, by a `module` or by a `judge`",
        ),
        ("module = \"m\"\nreads = [\"total\"]\nversion = 2", "unknown key `version`"),
        ("cel = \"true\"\nreads = [\"total\"]", "unknown key `reads`"),
    ];
    for (rule, problem) in cases {
        let error = catalog(rule, &sound).expect_err(problem);
        assert!(error.contains(problem), "{error}");
    }
    let error = catalog("cel = \"true\"", "[module.m]\nwasm = \"?\"").unwrap_err();
    assert!(error.contains("line 17, module.m.wasm: this is no base64"), "{error}");
}

#[test]
fn another_module_under_the_same_name_is_another_rule() {
    let one = with_module(&module("i32.const 1")).unwrap();
    let two = with_module(&module("i32.const 0")).unwrap();
    let order = TypeName::new("order").unwrap();
    assert_eq!(one.changed_types(&two).into_iter().collect::<Vec<_>>(), [order]);
    assert!(one.changed_types(&with_module(&module("i32.const 1")).unwrap()).is_empty());
}

const JUDGED: &str =
    "judge = \"credit\"\nversion = 2\nreads = [\"total\", \"lines\"]\nrefs = [\"customer\"]";

#[test]
fn a_judge_decides_on_the_relay_and_a_device_says_that_the_relay_will() {
    let catalog = catalog(JUDGED, "").expect("it is sound");
    let device = judge(&catalog, &world(), order());
    assert_eq!((device.outcome, device.complete), (Outcome::Valid, false));
    let credit = |matter: &Matter| {
        assert!(matter.to_json() == SEEN || matter.record["total"] != json!(12), "{matter:?}");
        let of = |map: &Map<String, Value>, name: &str| map[name].as_i64().ok_or("no number");
        let customer = matter.refs["customer"].as_ref().ok_or("no customer")?;
        Ok(of(&matter.record, "total")? <= 10 * of(customer, "limit")?)
    };
    let relay = World { judges: Some(Judges::default().with("credit", credit)), ..world() };
    assert_eq!(judge(&catalog, &relay, order()).outcome, Outcome::Valid);
    let mut large = order();
    large["total"] = json!(31);
    let held = judge(&catalog, &relay, large);
    assert_eq!((held.outcome, held.complete), (Outcome::Held, true));
    assert_eq!(held.reasons[0].fields, ["customer", "lines", "total"]);
}

#[test]
fn a_judge_that_fails_panics_or_is_absent_holds_the_record_and_nothing_else() {
    let catalog = catalog(JUDGED, "").expect("it is sound");
    let with = |judges: Judges| World { judges: Some(judges), ..world() };
    let failing = |_: &Matter| Err("the list of limits is empty".to_owned());
    let failing = with(Judges::default().with("credit", failing));
    assert_eq!(failure(&judge(&catalog, &failing, order())), "the list of limits is empty");
    let panicking = |_: &Matter| -> Result<bool, String> { panic!("of no use") };
    let panicking = with(Judges::default().with("credit", panicking));
    assert_eq!(failure(&judge(&catalog, &panicking, order())), "the judge `credit` failed");
    let absent = with(Judges::default());
    assert_eq!(failure(&judge(&catalog, &absent, order())), "this relay has no judge `credit`");
    let unjudged = catalog.unjudged(&Judges::default());
    assert_eq!(
        unjudged[0].to_string(),
        "line 14, type.order.rule.r.judge: this relay has no judge `credit`: \
         only a program that embeds the relay brings judges"
    );
    let near = catalog.unjudged(&Judges::default().with("credits", |_: &Matter| Ok(true)));
    assert!(near[0].to_string().ends_with("did you mean `credits`?"));
    assert!(catalog.unjudged(&Judges::default().with("credit", |_: &Matter| Ok(true))).is_empty());
}

#[test]
fn a_judge_of_another_version_is_another_rule() {
    let old = catalog(JUDGED, "").unwrap();
    let new = catalog(&JUDGED.replace('2', "3"), "").unwrap();
    assert_eq!(old.changed_types(&new).len(), 1);
}
