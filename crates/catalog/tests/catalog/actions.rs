//! Actions, queries and edits that need a connection: what a catalog may say of them, and what a call
//! comes to.

use std::collections::BTreeMap;

use fieldkeep_catalog::{Call, CallError, Catalog};
use fieldkeep_model::Edit;
use serde_json::{Map, Value, json};

const SOURCE: &str = r#"
catalog = 1
[type.lead.field]
name = {}
status = {}
boxes = { kind = "counter" }
tags = { kind = "json" }
[type.order]
online_only = "before.status == 'confirmed'"
[type.order.field]
status = {}
[action.convert]
description = "Make something of it"
who = ["ann", "lead=north", "lead=*"]
input.lead = { required = true, ref = "lead" }
input.boxes = { schema = { type = "integer", minimum = 1 } }
input.tags = { kind = "json" }
record.lead = "lead/{input.lead}"
record.other = "lead/{caller.name}-{input.lead}?"
[[action.convert.require]]
cel = "records.other == null || records.other.name != input.lead"
reason = "it is taken"
[[action.convert.effect]]
type = "lead"
id = "input.lead"
fields = { status = "records.lead.name + ' by ' + caller.name", boxes = "has(input.boxes) ? input.boxes : 0", tags = "has(input.tags) ? input.tags : null" }
[[action.convert.effect]]
type = "order"
fields = { status = "string(call.time)" }
[[action.convert.effect]]
type = "lead"
id = "'gone'"
delete = true
[query.all]
who = "everyone"
sql = "SELECT id FROM lead"
"#;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

fn errors(source: &str) -> Vec<String> {
    let errors = Catalog::parse(&format!("catalog = 1\n[type.lead.field]\nname = {{}}\n{source}"));
    errors.expect_err("it is wrong").iter().map(ToString::to_string).collect()
}

#[test]
fn a_call_says_what_it_would_write_and_writes_nothing() {
    let catalog = Catalog::parse(SOURCE).expect("a catalog");
    let action = catalog.action("convert").expect("it is there");
    let input = action.input.read_words(&["lead=7".into(), "boxes=3".into(), "tags=[1]".into()]);
    let input = input.expect("it fits");
    let call = Call { id: "c1", caller: "ann", time: 42, input: &input };
    let named = action.records(&call).expect("it says which");
    let keys: Vec<String> =
        named.values().map(|(key, _)| key.as_ref().expect("it names one").to_string()).collect();
    assert_eq!(keys, ["lead/7", "lead/ann-7"]);
    let lead = Some(object(json!({ "name": "Pier" })));
    let records = BTreeMap::from([("lead", lead.clone()), ("other", None)]);
    let writes = catalog.plan(action, &call, &records).expect("it may");
    let keys: Vec<String> = writes.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, ["lead/7", "order/c1", "lead/gone"]);
    assert!(writes[0].1.edits.contains(&Edit::Add("boxes".into(), 3)));
    assert!(writes[0].1.edits.contains(&Edit::Json("tags".into(), "[1]".into())));
    assert_eq!(writes[2].1.deleted, Some(true));
    let taken = Some(object(json!({ "name": "7" })));
    let records = BTreeMap::from([("lead", lead), ("other", taken)]);
    let unmet = catalog.plan(action, &call, &records);
    assert_eq!(unmet, Err(CallError::Unmet("it is taken".into())));
    // What cannot be evaluated is said, and quotes no value.
    let records = BTreeMap::from([("lead", Some(Map::new())), ("other", None)]);
    let failed = catalog.plan(action, &call, &records).expect_err("a field is absent").to_string();
    assert!(failed.contains("`name` is absent"), "{failed}");
}

#[test]
fn an_input_that_does_not_fit_is_refused() {
    let catalog = Catalog::parse(SOURCE).expect("a catalog");
    let action = catalog.action("convert").expect("it is there");
    for input in [
        json!({}),
        json!({ "lead": "a/b" }),
        json!({ "lead": "1", "boxes": 0 }),
        json!({ "lead": "1", "boxes": [1] }),
        json!({ "lead": "1", "more": 1 }),
        json!({ "lead": "x".repeat(20_000) }),
    ] {
        let input = object(input);
        assert!(matches!(action.input.check(&input), Err(CallError::Input(_))), "{input:?}");
        let call = Call { id: "c1", caller: "ann", time: 0, input: &input };
        assert!(catalog.plan(action, &call, &BTreeMap::new()).is_err());
    }
    for word in ["lead", "boxes=x", "boxes+=1", "lead[1].a=2", "other=1"] {
        assert!(action.input.read_words(&[word.to_owned()]).is_err(), "{word}");
    }
}

#[test]
fn a_state_needs_a_connection_as_the_catalog_says() {
    let catalog = Catalog::parse(SOURCE).expect("a catalog");
    let needs = |ty: &str, before: Value| {
        catalog.needs_connection(&ty.parse().expect("a name"), &object(before))
    };
    assert!(needs("order", json!({ "status": "confirmed" })));
    assert!(!needs("order", json!({ "status": "open" })));
    assert!(!needs("order", json!({})), "what cannot be evaluated asks for none");
    assert!(!needs("lead", json!({ "status": "confirmed" })));
}

#[test]
fn what_is_wrong_with_an_action_is_told_with_its_line_and_the_way_out() {
    for (source, expected) in [
        ("[action.a]\nwho = \"everyone\"", "line 4, action.a: the action does nothing"),
        (
            "[action.a]\ncall = { host = \"h\", path = \"/\" }",
            "line 4, action.a.who: nobody may: `who` is missing",
        ),
        (
            "[action.a]\nwho = [\"leed=1\"]\ncall = { host = \"h\", path = \"/\" }",
            "line 5, action.a.who: the type `leed` is not declared: did you mean `lead`?",
        ),
        (
            "[action.a]\nwho = \"everyone\"\ncall = { host = \"h\", path = \"no\" }",
            "line 6, action.a.call.path: this is no path",
        ),
        (
            "[action.a]\nwho = \"everyone\"\nrecord.l = \"lead/{input.x}\"\ncall = { host = \"h\", path = \"/\" }",
            "line 6, action.a.record.l: `input.x` stands for nothing here",
        ),
        (
            "[action.a]\nwho = \"everyone\"\nrecord.l = \"nothing/1\"\ncall = { host = \"h\", path = \"/\" }",
            "line 6, action.a.record.l: the type `nothing` is not declared",
        ),
        (
            "[action.a]\nwho = \"everyone\"\n[[action.a.effect]]\ntype = \"lead\"\nfields = { nome = \"1\" }",
            "line 8, action.a.effect.fields.nome: the type `lead` has no field `nome`: did you mean `name`?",
        ),
        (
            "[action.a]\nwho = \"everyone\"\n[[action.a.effect]]\ntype = \"lead\"\nfields = { name = \"record.x\" }",
            "line 8, action.a.effect.fields.name: unknown variable `record`: did you mean `records`?",
        ),
        (
            "[action.a]\nwho = \"everyone\"\n[[action.a.effect]]\ntype = \"lead\"",
            "line 6, action.a.effect: an effect either deletes a record or writes fields of it",
        ),
        (
            "[action.a]\nwho = \"everyone\"\ninput.n = { kind = \"counter\" }\ncall = { host = \"h\", path = \"/\" }",
            "line 6, action.a.input.n: what is asked for is a single value, or JSON",
        ),
        ("[query.q]\nwho = \"everyone\"", "line 4, query.q: a query needs `sql`"),
        (
            "[type.order]\nonline_only = \"record.x == 1\"",
            "line 5, type.order.online_only: unknown variable `record`",
        ),
        (
            "[type.order]\nonline_only = \"'text'\"",
            "line 5, type.order.online_only: the rule does not yield true or false",
        ),
    ] {
        let told = errors(source);
        assert!(told.iter().any(|error| error.starts_with(expected)), "{source}\n{told:#?}");
    }
}

#[test]
fn what_an_action_may_cost_is_bounded() {
    let loops = "input.a.all(x, input.a.all(y, input.a.all(z, x == y || y == z)))";
    let source = format!(
        "[action.a]\nwho = \"everyone\"\ninput.a = {{ kind = \"json\" }}\n[[action.a.require]]\n\
         cel = \"{loops}\"\nreason = \"no\"\n[[action.a.effect]]\ntype = \"lead\"\n\
         fields = {{ name = \"'x'\" }}"
    );
    assert!(errors(&source)[0].contains("steps"), "{:?}", errors(&source));
}
