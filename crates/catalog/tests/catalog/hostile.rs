//! No catalog panics the parser or keeps it busy, however it is mangled.

use fieldkeep_catalog::{Catalog, Holder, Referent, Subject, Surroundings};
use fieldkeep_model::{RecordId, SegmentId, TypeName};
use proptest::prelude::*;
use serde_json::json;

const SEED: &str = r#"catalog = 1
[type.order]
scope = "outlet"
buckets = 16
[type.order.field.outlet]
[type.order.field.customer]
kind = "register"
ref = "order"
required = true
schema = { type = "string", pattern = "^[a-zü]+$", maxLength = 12, not = { enum = [1, 2.5] } }
[type.order.field.lines]
kind = "set"
field.quantity = { schema = { type = "integer" } }
[[type.order.rule]]
name = "positive"
cel = "record.lines.all(l, l.quantity > 0) && !(refs.customer.outlet.matches('a+') ? -1 < 2 : [1, 2u, 3.0][0] in {'ü': b'x'})"
reason = "every line needs a quantity above 0"
"#;

/// The seed with some bytes replaced, removed and repeated, as far as it remains UTF-8.
fn mangled(source: &str, cuts: &[(usize, u8, usize)]) -> String {
    let mut bytes = source.as_bytes().to_vec();
    for (at, byte, act) in cuts {
        let at = at % bytes.len().max(1);
        match act % 4 {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            2 => drop(bytes.drain(at..(at + usize::from(*byte) / 8).min(bytes.len()))),
            _ => {
                let end = (at + usize::from(*byte) / 4).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct World;

impl Surroundings for World {
    fn referent(&self, _: &TypeName, _: &RecordId) -> Referent {
        let fields = json!({"outlet": "aab", "lines": []}).as_object().expect("an object").clone();
        Referent::Present { fields, held: false, segment: SegmentId([0; 16]) }
    }

    fn holders(&self, _: &TypeName, _: &str, _: &str) -> Vec<Holder> {
        Vec::new()
    }
}

/// Reads a catalog and, if it is one, judges a record by it.
fn use_up(source: &str) {
    let Ok(catalog) = Catalog::parse(source) else {
        return;
    };
    let fields = json!({"outlet": "a", "customer": "b", "lines": [{"id": "1", "quantity": 2}]});
    let id = RecordId::new("7").expect("an id");
    for ty in catalog.types().keys() {
        let fields = fields.as_object().expect("an object");
        let previous = Some(fields);
        let subject = Subject { ty, id: &id, fields, deleted: false, previous, scope: "a" };
        let judgement = catalog.judge(&subject, &World);
        let failed = judgement.reasons.iter().map(|reason| catalog.explain(ty, reason));
        assert!(!failed.into_iter().any(|told| told.contains("the evaluator failed")));
    }
}

fn rule(cel: &str) -> String {
    let head = SEED.split("cel = ").next().expect("the head");
    format!("{head}reason = \"r\"\ncel = '''{}'''\n", cel.replace("'''", ""))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_mangled_catalog_is_read_or_refused(
        cuts in prop::collection::vec((any::<usize>(), any::<u8>(), any::<usize>()), 1..8),
    ) {
        use_up(&mangled(SEED, &cuts));
    }

    #[test]
    fn a_mangled_rule_is_read_or_refused(
        cuts in prop::collection::vec((any::<usize>(), prop::sample::select(b"()[]{}?:!-+*/%=<>&|.,'\"`\\rbu01ae\xc3\xbc ".to_vec()), any::<usize>()), 1..12),
    ) {
        let cel = SEED.lines().find_map(|line| line.strip_prefix("cel = \"")).expect("the rule");
        use_up(&rule(&mangled(cel.trim_end_matches('"'), &cuts)));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        use_up(&text);
        use_up(&rule(&text));
    }
}

#[test]
fn what_costs_other_parsers_gigabytes_is_refused_at_once() {
    for unit in
        ["(", "[", "{", "!", "-", "a?", "a.b(", "[[", "a[", "{a:", "((a)+", "a.all(x,", "-(", "!("]
    {
        for times in [30, 125, 1000] {
            assert!(Catalog::parse(&rule(&unit.repeat(times))).is_err());
        }
    }
    let nested = format!("{}true{}", "record.lines.all(l, ".repeat(15), ")".repeat(15));
    assert!(Catalog::parse(&rule(&nested)).is_err());
}

#[test]
fn deep_toml_is_refused() {
    for unit in ["[", "{ a = ", "[{ a = "] {
        let source = format!("catalog = 1\nx = {}", unit.repeat(20_000));
        assert!(Catalog::parse(&source).is_err());
    }
    assert!(Catalog::parse(&format!("catalog = 1\n[type{}]", ".a".repeat(20_000))).is_err());
    assert!(Catalog::parse(&" ".repeat(300 * 1024)).is_err());
}

#[test]
fn a_catalog_is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&Catalog::parse(SEED).expect("it is right"));
}
