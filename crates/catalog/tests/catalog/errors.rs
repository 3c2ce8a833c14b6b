//! What a catalog's author is told: places, suggestions, refusals, and what is frozen.

use fieldkeep_catalog::{Catalog, Dead, Difference};
use serde_json::Value;

/// The errors of a catalog, as they are shown.
fn errors(source: &str) -> Vec<String> {
    let errors = Catalog::parse(source).expect_err("it is wrong");
    errors.iter().map(ToString::to_string).collect()
}

/// The only error of a rule over a type with a set and a json field.
fn rule_error(cel: &str) -> String {
    let source = format!(
        "catalog = 1\n[type.customer.field]\nname = {{}}\n[type.order.field]\n\
         total = {{ schema = {{ type = \"integer\" }} }}\nnote = {{ kind = \"text\" }}\n\
         status = {{}}\nextra = {{ kind = \"json\" }}\ncustomer = {{ ref = \"customer\" }}\n\
         lines = {{ kind = \"set\", field = {{ quantity = {{ schema = {{ type = \"integer\" }} }}, name = {{}} }} }}\n\
         [[type.order.rule]]\nname = \"r\"\nreason = \"because\"\ncel = '''{cel}'''\n"
    );
    match Catalog::parse(&source) {
        Ok(_) => String::new(),
        Err(errors) => {
            assert_eq!(errors.len(), 1, "{errors:?}");
            errors[0].to_string()
        }
    }
}

/// Whether a rule is told that it nests too deep.
fn too_deep(cel: &str) -> bool {
    let cel = Value::from(cel);
    let source = format!(
        "catalog = 1\n[type.a.field.b]\n[[type.a.rule]]\nname = \"r\"\nreason = \"because\"\ncel = {cel}\n"
    );
    Catalog::parse(&source).is_err_and(|errors| errors[0].to_string().contains("nests too deep"))
}

#[test]
fn nesting_is_counted_outside_of_texts_and_comments() {
    assert!(too_deep(&"(".repeat(33)));
    assert!(too_deep(&"!".repeat(40)));
    assert!(too_deep(&"- ".repeat(40)));
    assert!(too_deep(&"a ? b : ".repeat(40)));
    let deep = "(".repeat(40);
    assert!(!too_deep(&format!("((1)) == '{deep}'")));
    assert!(!too_deep(&format!("a //{deep}\n")));
    assert!(!too_deep(&format!(r"'\'{deep}' + r'\' + '''a'{deep}'''")));
    assert!(!too_deep("'ü' == a"));
    let outside = rule_error("ü");
    assert!(outside.contains("not an expression"), "{outside}");
    // A minus between numbers is no chain of prefixes.
    assert!(!too_deep(&"1 - ".repeat(60)));
}

#[test]
fn an_unknown_kind_is_told_with_its_line_and_the_nearest() {
    let source = "catalog = 1\n\n[type.order]\nbuckets = 2\n\n[type.order.field.total]\nkind = \"registr\"\n";
    assert_eq!(
        errors(source),
        ["line 7, type.order.field.total.kind: unknown kind `registr`: did you mean `register`?"]
    );
    let error = &Catalog::parse(source).expect_err("it is wrong")[0];
    assert_eq!((error.line, error.column), (7, 8));
}

#[test]
fn what_an_attachment_field_cannot_say_is_told_with_what_it_can() {
    let source = r#"catalog = 1
[type.visit.field.photos]
kind = "attachment"
media = ["image/*", "Photos"]
max_size = "20 megabytes"
max_count = 0
location = "hide"
ref = "visit"
[type.visit.field.lines]
kind = "set"
[type.visit.field.lines.field.scan]
kind = "attachment"
"#;
    assert_eq!(
        errors(source),
        [
            "line 4, type.visit.field.photos.media: `Photos` is no media type: write one as \
             image/jpeg, or a family as image/*, in lower case",
            "line 5, type.visit.field.photos.max_size: this is no size of a file: write bytes, or a \
             text such as \"20 MiB\", up to 64 GiB",
            "line 6, type.visit.field.photos.max_count: 0 is no number of files: write a number from \
             1 to 256",
            "line 7, type.visit.field.photos.location: `hide` is nothing to be done to a location: \
             write \"keep\" or \"strip\"",
            "line 8, type.visit.field.photos.ref: unknown key `ref`: known are `kind`, `required`, \
             `media`, `max_size`, `max_count`, `location`",
            "line 12, type.visit.field.lines.field.scan.kind: children have no attachments: attach \
             files to the record itself",
        ]
    );
}

#[test]
fn every_error_is_told_at_once_in_the_order_of_the_file() {
    let source = r#"catalog = 2
colour = "red"
[type.Order]
[type.order]
scope = "outlett"
buckets = 12
[type.order.field.outlet]
requird = true
[type.order.field.customer]
ref = "custommer"
[type.order.field.id]
[type.order.field.photo]
kind = "attachmant"
[type.order.field.total]
schema = { minimun = 1 }
[type.customer]
"#;
    assert_eq!(
        errors(source),
        [
            "line 1, catalog: unknown catalog format 2: this program reads format 1",
            "line 2, colour: unknown key `colour`: known are `catalog`, `type`, `module`, `action`, `query`",
            "line 3, type.Order: `Order` does not name a type: use lower-case letters, digits and \
             `_`, beginning with a letter, at most 64",
            "line 5, type.order.scope: the scope field `outlett` is not declared: did you mean `outlet`?",
            "line 6, type.order.buckets: 12 is no number of buckets: write a power of two from 1 to 65536",
            "line 8, type.order.field.outlet.requird: unknown key `requird`: did you mean `required`?",
            "line 10, type.order.field.customer.ref: the type `custommer` is not declared: did you \
             mean `customer`?",
            "line 11, type.order.field.id: `id` is reserved: every record and child has it: choose \
             another name",
            "line 13, type.order.field.photo.kind: unknown kind `attachmant`: did you mean \
             `attachment`?",
            "line 15, type.order.field.total.schema: unknown keyword `minimun`: did you mean `minimum`?",
        ]
    );
}

#[test]
fn what_toml_refuses_is_told_with_its_line() {
    let told = errors("catalog = 1\n[type.order\nbuckets = = 1\n");
    assert!(told[0].starts_with("line 2: "), "{told:?}");
    assert!(told.iter().any(|error| error.starts_with("line 3: ")), "{told:?}");
}

#[test]
fn fields_cannot_be_what_their_kind_does_not_allow() {
    let source = r#"catalog = 1
[type.order.field.a]
kind = "counter"
ref = "order"
[type.order.field.b]
kind = "json"
unique = true
[type.order.field.c]
schema = { type = "object" }
[type.order.field.d.field.e]
[type.order.field.f]
kind = "set"
field.g = { kind = "set" }
field.h = { unique = true }
[type.order.field.i]
schema = { "$ref" = "https://example.org/schema" }
[type.order.field.j]
schema = { type = "string", pattern = '(?=a)b' }
[type.order.field.k]
schema = { type = "string", format = "dat" }
"#;
    let told = errors(source);
    let starts = [
        "line 4, type.order.field.a.ref: a counter refers to nothing",
        "line 7, type.order.field.b.unique: this field cannot be unique",
        "line 9, type.order.field.c.schema: a register holds a single value",
        "line 10, type.order.field.d: a register has no fields",
        "line 13, type.order.field.f.field.g.kind: sets do not nest",
        "line 14, type.order.field.f.field.h.unique: this field cannot be unique",
        "line 16, type.order.field.i.schema: schemas hold no references, and `$ref` is one",
        "line 18, type.order.field.j.schema: ",
        "line 20, type.order.field.k.schema: unknown format `dat`: did you mean `date`?",
    ];
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}\n{start}");
    }
}

#[test]
fn rules_may_name_only_what_there_is() {
    let unknown = [
        ("recrd.total > 1", "unknown variable `recrd`: did you mean `record`?"),
        ("record.totl > 1", "unknown field `totl`: did you mean `total`?"),
        ("previous.totl > 1", "unknown field `totl`: did you mean `total`?"),
        ("record['totl'] > 1", "unknown field `totl`: did you mean `total`?"),
        ("record.lines.all(l, l.quantty > 0)", "unknown field `quantty`: did you mean `quantity`?"),
        ("refs.total.x == 1", "unknown reference `total`: known are `customer`"),
        ("refs.customer.nam == 'x'", "unknown field `nam`: did you mean `name`?"),
        ("sizes(record.lines) > 1", "unknown function `sizes`: did you mean `size`?"),
        (
            "record.status.startWith('a')",
            "unknown function `startWith`: did you mean `startsWith`?",
        ),
        ("record.lines.all(l, x > 0)", "unknown variable `x`: known are"),
    ];
    for (cel, expected) in unknown {
        let told = rule_error(cel);
        let prefix = "line 14, type.order.rule.r.cel: ";
        assert!(told.starts_with(&format!("{prefix}{expected}")), "{cel}: {told}");
    }
}

#[test]
fn rules_that_cannot_be_bounded_are_refused() {
    let refused = [
        (
            "record.lines.all(a, record.lines.all(b, a.quantity != b.quantity || a.id == b.id))",
            "steps",
        ),
        ("size(record.lines.map(l, record.note + record.note)) > 1", "steps"),
        (
            "record.note.matches('(a|b)*c') && record.lines.all(l, record.note.matches('[a-z]+'))",
            "steps",
        ),
        (
            "record.lines.all(l, l.name == record.status && l.name != record.note && l.name in [record.status, record.note, record.note, record.note])",
            "steps",
        ),
        ("record.status.matches(record.note)", "needs a literal pattern"),
        ("record.status.matches('(?=a)b')", "needs a literal pattern"),
        ("record.extra.map(k, k) == []", "run over lists"),
        ("record.all(k, true)", "run over lists"),
        ("size(record.lines)", ""),
        ("record.lines", "neither true nor false"),
        ("record.status + 'x'", "does not yield true or false"),
        ("Order{total: 1} == record", "rules do not support messages"),
        ("record.?total == 1", "not an expression"),
        ("record.total >", "not an expression"),
        ("timestamp(record.status) > 1", "unknown function"),
        ("optional.of(1).hasValue()", "unknown variable `optional`"),
    ];
    for (cel, expected) in refused {
        let told = rule_error(cel);
        match expected {
            // A scalar that is no truth value shows when the rule is evaluated.
            "" => assert_eq!(told, ""),
            "neither true nor false" => assert!(told.contains("does not yield"), "{cel}: {told}"),
            _ => assert!(told.contains(expected), "{cel}: {told}"),
        }
    }
}

#[test]
fn a_rules_source_is_small_and_shallow() {
    assert!(
        rule_error(&format!("record.total == {}1{}", "(".repeat(40), ")".repeat(40)))
            .contains("too deep")
    );
    assert!(rule_error(&format!("{}true", "!".repeat(3000))).contains("too deep"));
    assert!(rule_error(&format!("1{} > 0", " + 1".repeat(500))).contains("too deep"));
    assert!(rule_error(&format!("record{} == 1", "['a']".repeat(500))).contains("too deep"));
    assert!(rule_error(&format!("true{}", " && true".repeat(600))).contains("longer than 4 KiB"));
    assert!(rule_error(&"a?b:".repeat(300)).contains("too deep"));
    assert_eq!(rule_error(&format!("record.total > 0{}", " && record.total > 0".repeat(100))), "");
}

#[test]
fn rules_within_their_bounds_are_accepted_with_what_they_read() {
    let catalog = Catalog::parse(
        r#"catalog = 1
[type.order.field]
total = { schema = { type = "integer" } }
status = {}
customer = { ref = "order" }
[type.order.field.lines]
kind = "set"
field.quantity = { schema = { type = "integer" } }
field.name = {}
[[type.order.rule]]
name = "positive"
reason = "r"
cel = "record.lines.all(l, l.quantity > 0)"
[[type.order.rule]]
name = "several"
reason = "r"
cel = "size(record.lines) < 5 && record.lines.exists(l, l.quantity > 0)"
[[type.order.rule]]
name = "change"
reason = "r"
cel = "previous == null || previous.total <= record.total"
[[type.order.rule]]
name = "referent"
reason = "r"
cel = "refs.customer == null || has(refs.customer.status)"
[[type.order.rule]]
name = "lists"
reason = "r"
cel = "size(record.lines.filter(l, l.quantity > 3).map(l, l.name)) < 10 && record.status in ['open', 'closed']"
"#,
    )
    .expect("it is right");
    let rules = &catalog.types().values().next().expect("a type").rules;
    let reads: Vec<_> = rules.iter().map(|rule| rule.reads.join(" ")).collect();
    assert_eq!(
        reads,
        [
            "lines.quantity",
            "lines lines.quantity",
            "total",
            "customer",
            "lines.name lines.quantity status"
        ]
    );
    assert!(rules.iter().all(|rule| rule.steps > 0 && rule.steps < 1_000_000));
}

#[test]
fn what_is_published_stays_as_it_is() {
    let old = Catalog::parse(
        "catalog = 1\n[type.order]\nscope = \"outlet\"\nbuckets = 4\n[type.order.field]\noutlet = {}\n\
         stock = { kind = \"counter\" }\nnote = {}\nlines = { kind = \"set\", field = { q = {} } }\n[type.gone]\n",
    )
    .expect("it is right");
    let new = Catalog::parse(
        "catalog = 1\n[type.order]\nbuckets = 8\n[type.order.field]\noutlet = {}\n\
         stock = { kind = \"register\" }\nlines = { kind = \"set\", field = { q = { kind = \"json\" } } }\nmore = {}\n",
    )
    .expect("it is right");
    let told: Vec<_> = old.check_successor(&new).iter().map(ToString::to_string).collect();
    let way = "put it back, or start the type afresh: `fieldkeep relay reshape order`";
    assert_eq!(
        told,
        [
            "line 1, type.gone: the type `gone` is published and cannot be removed: put it back"
                .to_owned(),
            format!(
                "line 2, type.order.scope: the scope field is published as `outlet` and cannot become `none`: {way}"
            ),
            format!("line 2, type.order.buckets: published with 4 buckets, not 8: {way}"),
            "line 2, type.order.field.note: the field `note` is published and cannot be removed: put it back"
                .to_owned(),
            format!(
                "line 6, type.order.field.stock: published as a counter, it cannot become a register: {way}"
            ),
            format!(
                "line 7, type.order.field.lines.field.q: published as a register, it cannot become a json: {way}"
            ),
        ]
    );
    assert_eq!(old.check_successor(&old), []);
    // In a new generation the shape is another one; children stay children, and what is declared stays.
    let afresh = |kinds: &str| {
        let source = format!(
            "catalog = 1\n[type.order]\nbuckets = 8\ngeneration = 1\n[type.order.field]\noutlet = {{}}\n\
             note = {{}}\nlines = {{ kind = \"set\", field = {{ q = {{ kind = \"json\" }} }} }}\n{kinds}\n[type.gone]\n"
        );
        Catalog::parse(&source).expect("it is right")
    };
    let next = afresh("stock = {}");
    assert_eq!(old.check_successor(&next), []);
    assert_eq!(old.check_generations(&next).len(), 1, "and is not merely published");
    assert_eq!(old.check_successor(&afresh("stock = { kind = \"set\" }")).len(), 1);
    assert_eq!(old.check_successor(&afresh("")).len(), 1, "`stock` is gone");
    assert_eq!(next.check_successor(&old).len(), 1, "and there is no way back");
    assert_eq!(old.source(), old.clone().source());
    assert_ne!(old.hash(), new.hash());
}

/// Why each rule of a type decides nothing, as far as that is proven.
fn dead(rules: &[&str]) -> Vec<Option<Dead>> {
    let rules = rules.iter().enumerate().map(|(nth, cel)| {
        format!("[[type.order.rule]]\nname = \"r{nth}\"\nreason = \"because\"\ncel = '''{cel}'''\n")
    });
    let source = format!(
        "catalog = 1\n[type.order.field]\ntotal = {{ required = true, schema = {{ type = \"integer\" }} }}\n\
         note = {{}}\nlines = {{ kind = \"set\", field = {{ q = {{}} }} }}\n{}",
        rules.collect::<String>()
    );
    let catalog = Catalog::parse(&source).expect("it is right");
    let ty = catalog.types().values().next().expect("a type");
    ty.rules.iter().map(|rule| catalog.dead_rule(ty, rule)).collect()
}

#[test]
fn a_rule_that_decides_nothing_is_told_where_that_is_proven() {
    let never = [
        "true",
        "1 + 1 == 2",
        "[1, 2].all(n, n > 0)",
        "has(record.note) || true",
        "record.total / 0 == 1 || 'ab'.matches('^a')",
        "has(record.total)",
        "has(record.lines)",
        "has(record.note) ? has(record.total) : 'a' != 'b'",
        "!(has(record.note) && false)",
    ];
    assert_eq!(dead(&never), vec![Some(Dead::NeverBroken); never.len()]);
    let always = [
        "false",
        "1 / 0 == 1",
        "record.note == 'x' && 1 > 2",
        "!has(record.total)",
        "!has(record.lines) || 'a' == 'b'",
        "true ? false : has(record.note)",
    ];
    assert_eq!(dead(&always), vec![Some(Dead::AlwaysBroken); always.len()]);
    // What may come out either way, or may fail, is left alone; so is what nobody has proven.
    let alive = [
        "has(record.note)",
        "record.total > 0",
        "record.note == 'x' || record.note != 'x'",
        "true && has(record.note)",
        "record.total / 0 == 1 || has(record.note)",
        "record.lines.all(total, has(total.q))",
        "previous == null",
    ];
    assert_eq!(dead(&alive), vec![None; alive.len()]);
    let repeated = dead(&["record.total > 0", "record.total > 1", " record.total > 0"]);
    assert_eq!(repeated, [None, None, Some(Dead::Repeats("r0".into()))]);
}

#[test]
fn what_is_otherwise_in_the_next_catalog_is_told_by_type() {
    let parse = |source: &str| Catalog::parse(source).expect("it is right");
    let old = parse(
        "catalog = 1\n[type.order.field]\nnote = {}\nlines = { kind = \"set\", field = { q = {} } }\n\
         [[type.order.rule]]\nname = \"a\"\nreason = \"r\"\ncel = \"has(record.note)\"\n[type.gone]\n[type.same.field.x]\n",
    );
    let new = parse(
        "catalog = 1\n[type.order.field]\nnote = { required = true }\nmore = {}\n\
         lines = { kind = \"set\", field = { q = { required = true } } }\n\
         [[type.order.rule]]\nname = \"b\"\nreason = \"r\"\ncel = \"has(record.note)\"\n[type.new]\n[type.same.field.x]\n",
    );
    let told: Vec<_> = old
        .differences(&new)
        .into_iter()
        .map(|Difference { ty, part, turn }| format!("{ty} {part:?} {}", turn.word()))
        .collect();
    assert_eq!(
        told,
        [
            "gone Type removed",
            "new Type added",
            "order Field(\"lines.q\") changed",
            "order Field(\"more\") added",
            "order Field(\"note\") changed",
            "order Rule(\"a\") removed",
            "order Rule(\"b\") added",
        ]
    );
    assert_eq!(old.differences(&old), []);
    // What is gone may come back, but not as something else.
    assert_eq!(old.check_frozen(&new), []);
    assert_eq!(new.check_frozen(&parse("catalog = 1\n[type.new]\nbuckets = 2\n")).len(), 1);
}
