//! What a record is as plain text: by a type's template, plainly, and what templates may not do.

use fieldkeep_catalog::{Catalog, Reference, Referred, Sheet, TemplateError, limit};
use fieldkeep_model::{RecordId, RecordKey, TypeName};
use serde_json::{Value, json};

/// A catalog with that template for orders.
fn source(template: &str) -> String {
    format!(
        "catalog = 1\n[type.customer.field]\nname = {{}}\n\
         lat = {{ schema = {{ type = \"number\" }} }}\nlon = {{ schema = {{ type = \"number\" }} }}\n\
         [type.customer]\nlocation = [\"lat\", \"lon\"]\n\
         [type.order.field]\ncustomer = {{ ref = \"customer\" }}\n\
         price = {{ schema = {{ type = \"integer\" }} }}\nnote = {{ kind = \"text\" }}\n\
         data = {{ kind = \"json\" }}\n\
         lines = {{ kind = \"set\", field = {{ product = {{ ref = \"product\" }}, quantity = {{ schema = {{ type = \"integer\" }} }} }} }}\n\
         boxes = {{ kind = \"set\", ref = \"product\" }}\n\
         [type.product.field]\nname = {{}}\n\
         [type.order]\nshare = \"\"\"\n{template}\"\"\"\n"
    )
}

fn catalog(template: &str) -> Catalog {
    Catalog::parse(&source(template)).expect("a catalog")
}

/// The only error of a catalog with that template.
fn refused(template: &str) -> String {
    let errors = Catalog::parse(&source(template)).expect_err("it is refused");
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

fn text(catalog: &Catalog, key: &str, fields: Value) -> Result<String, TemplateError> {
    let key: RecordKey = key.parse().expect("a key");
    let fields = fields.as_object().cloned().expect("an object");
    let ty = catalog.ty(&key.ty).expect("a type");
    let refers = |field: &str, child: Option<&str>, ty: &str, name: &str| Referred {
        by: Reference {
            field: field.to_owned(),
            child: child.map(str::to_owned),
            ty: ty.parse().expect("a type"),
            id: RecordId::new("x").expect("an id"),
        },
        fields: json!({ "name": name }).as_object().cloned().expect("an object"),
    };
    let referred = vec![
        refers("customer", None, "customer", "Harbour Kiosk"),
        refers("lines.product", Some("1"), "product", "Green tea"),
        refers("boxes", Some("b7"), "product", "A box"),
    ];
    ty.shared_text(&Sheet { key: &key, fields: &fields, referred })
}

#[test]
fn a_template_sees_the_record_what_it_refers_to_and_its_name() {
    let catalog = catalog(
        "Order {{ id }} for {{ ref.customer.name }}\n\
         {% for line in record.lines %}\n\
         - {{ line.quantity }} x {{ ref.lines[line.id].product.name | default(line.product) }}\n\
         {% endfor %}\n\
         {% for box in record.boxes %}{{ ref.boxes[box.id].id.name }}\n{% endfor %}\n\
         {% if record.note %}\nNote: {{ record.note }}\n{% endif %}\n\
         Total {{ record.price | default(0) }}{{ record.data.absent.too }}\n",
    );
    let line = |id: &str, product: &str| json!({"id": id, "product": product, "quantity": 3});
    let lines = [line("1", "tea"), line("2", "salt")];
    let order = json!({
        "customer": "c1", "lines": lines, "boxes": [{"id": "b7"}],
        "note": "<by> \"noon\"", "price": 12
    });
    assert_eq!(
        text(&catalog, "order/o1", order).expect("a text"),
        "Order o1 for Harbour Kiosk\n- 3 x Green tea\n- 3 x salt\nA box\nNote: <by> \"noon\"\nTotal 12"
    );
    assert_eq!(
        text(&catalog, "order/o2", json!({})).expect("a text"),
        "Order o2 for Harbour Kiosk\nTotal 0"
    );
}

#[test]
fn a_type_without_a_template_shows_its_fields() {
    let catalog = Catalog::parse(
        "catalog = 1\n[type.site_visit.field]\nname = {}\nopen = { schema = { type = \"boolean\" } }\n\
         lines = { kind = \"set\", field = { product = {} } }\n",
    );
    let lines = json!([{"id": "1", "product": "tea"}]);
    let fields = json!({"lines": lines, "name": "Pier", "open": true});
    let plain = text(&catalog.expect("a catalog"), "site_visit/v1", fields).expect("a text");
    assert_eq!(plain, "site visit: Pier\nlines:\n- 1: product tea\nname: Pier\nopen: true");
}

#[test]
fn coordinates_of_this_world_become_a_link_to_a_map() {
    let catalog = catalog("x");
    let at = |lat: Value, lon: Value| {
        let fields = json!({"name": "Pier", "lat": lat, "lon": lon});
        text(&catalog, "customer/c1", fields).expect("a text")
    };
    let link = "https://www.openstreetmap.org/?mlat=59.4372&mlon=-24.5";
    assert!(at(json!(59.4372), json!(-24.5)).ends_with(link));
    for (lat, lon) in [(json!(90.5), json!(1)), (json!(1), json!(-181)), (json!("1"), json!(1))] {
        assert!(!at(lat.clone(), lon).contains("openstreetmap"), "{lat}");
    }
    assert!(!text(&catalog, "customer/c1", json!({"lat": 1})).expect("a text").contains("mlat"));
}

#[test]
fn a_location_is_two_declared_number_registers() {
    let error = |location: &str| {
        let source = format!(
            "catalog = 1\n[type.a]\nlocation = {location}\n[type.a.field]\n\
             lat = {{ schema = {{ type = \"number\" }} }}\nname = {{ schema = {{ type = \"string\" }} }}\n"
        );
        Catalog::parse(&source).expect_err("it is wrong")[0].to_string()
    };
    let undeclared = error("[\"lat\", \"lan\"]");
    assert!(undeclared.starts_with("line 3, type.a.location: the field `lan` is not declared"));
    assert!(error("[\"lat\", \"name\"]").contains("`name` holds no number: a coordinate is"));
    assert!(error("[\"lat\"]").contains("a location is two fields"));
    assert!(error("\"lat\"").contains("a location is two fields"));
}

#[test]
fn what_is_wrong_with_a_template_is_told_with_its_line_and_the_nearest() {
    let unseen = refused("fine\n{{ record.prize }}\n");
    let told = "type.order.share: the template does not see `record.prize`: did you mean `price`?";
    assert!(unseen.ends_with(told), "{unseen}");
    assert!(refused("{{ ref.customer.nam }}").ends_with("did you mean `name`?"));
    assert!(refused("{{ ref.note }}").contains("does not see `ref.note`"));
    assert!(refused("{{ today }}").ends_with("known are `record`, `ref`, `id`, `type`"));
    let line = |error: &str| {
        let digits = error.strip_prefix("line ").expect("a line").split(',').next();
        digits.and_then(|digits| digits.parse::<usize>().ok()).expect("a number")
    };
    let first = line(&refused("{{ record.price | nothing }}"));
    let third = refused("one\ntwo\n{{ record.price | nothing }}\n");
    assert!(third.contains("filter nothing is unknown"), "{third}");
    assert_eq!(line(&third), first + 2, "{third}");
    assert!(refused("{% if record.price %}").contains("unexpected end of input"));
    let long = refused(&"x".repeat(limit::TEMPLATE + 1));
    assert!(long.contains("the template is longer than 4 KiB"), "{long}");
}

#[test]
fn a_template_reaches_no_other_and_defines_nothing_that_calls_itself() {
    for statement in [
        "{% include 'other' %}",
        "{% import 'other' as o %}",
        "{% from 'other' import o %}",
        "{% extends 'other' %}",
        "{% block b %}{% endblock %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ] {
        let error = refused(statement);
        assert!(error.contains("unknown statement"), "{statement}: {error}");
    }
}

#[test]
fn a_template_that_never_ends_is_refused_with_the_catalog() {
    let numbers = "range(100000)";
    for template in [
        format!("{{% for a in {numbers} %}}{{% for b in {numbers} %}}{{% endfor %}}{{% endfor %}}"),
        format!("{{% for a in {numbers} %}}{{{{ a }}}} and so on{{% endfor %}}"),
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% set x = 'x' * 1000000000 %}".to_owned(),
        format!("{{% set x = 'x' %}}{}", "{% set x = x ~ x %}".repeat(60)),
        format!("{{{{ {numbers} | list | join('{}') }}}}", "y".repeat(1_000)),
        "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}".to_owned(),
    ] {
        match Catalog::parse(&source(&template)) {
            Err(errors) => {
                let told = errors[0].to_string();
                let known = ["more than", "longer than", "namespace", "recursion"];
                assert!(known.iter().any(|word| told.contains(word)), "{template}: {told}");
            }
            // It ends of itself, early and with an error, whatever the record.
            Ok(catalog) => {
                let ended = text(&catalog, "order/o1", json!({}));
                assert!(ended.is_err(), "{template}: {ended:?}");
            }
        }
    }
}

#[test]
fn a_template_that_a_record_makes_long_or_endless_is_stopped() {
    let loops = "{% for a in record.lines %}{% for b in record.lines %}{% for c in record.lines %}\
                 {% endfor %}{% endfor %}{% endfor %}";
    let lines: Vec<_> = (0..1_000).map(|n| json!({"id": n.to_string()})).collect();
    let endless = text(&catalog(loops), "order/o1", json!({"lines": lines}));
    assert_eq!(endless, Err(TemplateError::Endless));
    let repeated = "{{ record.note }}".repeat(200);
    let long = json!({"note": "x".repeat(limit::TEXT)});
    assert_eq!(text(&catalog(&repeated), "order/o1", long), Err(TemplateError::TooLong));
    let failed = text(&catalog("\n{{ record.price + 1 }}"), "order/o1", json!({"price": "much"}));
    assert!(matches!(failed, Err(TemplateError::Failed { line: 2, .. })), "{failed:?}");
    let plain = Catalog::parse("catalog = 1\n[type.a.field]\nnote = { kind = \"text\" }\n");
    let long = json!({"note": "x".repeat(limit::TEXT)});
    let long = text(&plain.expect("a catalog"), "a/1", long);
    assert_eq!(long, Err(TemplateError::TooLong));
}

#[test]
fn the_deepest_template_that_fits_is_compiled_or_refused() {
    let fill = |piece: &str, around: usize| piece.repeat((limit::TEMPLATE - around) / piece.len());
    let chains = [
        format!("{{{{ 1{} }}}}", fill("+1", 7)),
        format!("{{{{ id{} }}}}", fill("~id", 8)),
        format!("{{{{ record{} }}}}", fill(".data", 12)),
        format!("{{{{ id{} }}}}", fill("|trim", 8)),
        format!("{{{{ {}1{} }}}}", "(".repeat(2_000), ")".repeat(2_000)),
        format!("{{{{ {}1 }}}}", fill("not ", 8)),
        format!("{{{{ {}1 }}}}", fill("-", 8)),
        format!("{{{{ {}{} }}}}", "[".repeat(2_000), "]".repeat(2_000)),
        format!("{}x", fill("{% if id %}", 1)),
        format!("{{% if id %}}{}{{% endif %}}", fill("{% elif id %}", 30)),
        format!("{{{{ id{} }}}}", fill(" if id else id", 8)),
    ];
    for template in chains {
        // Refused or not: the process goes on.
        if let Ok(catalog) = Catalog::parse(&source(&template)) {
            let _ = text(&catalog, "order/o1", json!({"data": {"data": {}}}));
        }
    }
}

#[test]
fn another_template_or_location_has_nothing_judged_again() {
    let (one, other) = (catalog("one"), catalog("other"));
    assert_eq!(one.changed_types(&other), Vec::<TypeName>::new());
    let elsewhere = source("one").replace("location = [\"lat\", \"lon\"]", "");
    let elsewhere = Catalog::parse(&elsewhere).expect("a catalog");
    assert_eq!(one.changed_types(&elsewhere), Vec::<TypeName>::new());
    assert!(one.check_successor(&other).is_empty());
}
