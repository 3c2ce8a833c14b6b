//! What people write becomes edits, or is refused with a way out.

use fieldkeep_catalog::{Attachments, Catalog, Location, ObjectType, UnfitFile};
use fieldkeep_model::{Edit, RecordEdit, RecordId, Scalar, TypeName};
use proptest::prelude::*;
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.order]
scope = "outlet"
buckets = 16
generation = 3
[type.order.field]
outlet = {}
name = {}
count = { schema = { type = "integer" } }
price = { schema = { type = "number" } }
open = { schema = { type = ["boolean", "null"] } }
note = { kind = "text" }
stock = { kind = "counter" }
extra = { kind = "json" }
customer = { ref = "order" }
email = { unique = true }
[type.order.field.lines]
kind = "set"
ref = "order"
[type.order.field.lines.field]
quantity = { schema = { type = "integer" } }
tally = { kind = "counter" }
product = { ref = "order" }
"#;

fn with<T>(act: impl FnOnce(&ObjectType) -> T) -> T {
    let catalog = Catalog::parse(CATALOG).expect("it is right");
    act(catalog.ty(&TypeName::new("order").expect("a name")).expect("declared"))
}

fn words(words: &[&str]) -> Result<RecordEdit, String> {
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    with(|ty| ty.edit_from_words(&words)).map_err(|error| error.to_string())
}

fn from_json(value: &Value) -> Result<RecordEdit, String> {
    let object = value.as_object().expect("an object");
    with(|ty| ty.edit_from_json(object)).map_err(|error| error.to_string())
}

fn put(field: &str, scalar: Scalar) -> Edit {
    Edit::Put(field.to_owned(), scalar)
}

fn text(text: &str) -> Scalar {
    Scalar::Str(text.to_owned())
}

#[test]
fn words_take_the_type_of_their_field() {
    let edit =
        words(&["name=007", "count=007", "price=7", "open=TRUE", "note=a=b", "extra={\"a\":[1]}"]);
    assert_eq!(
        edit.expect("it is right").edits,
        [
            put("name", text("007")),
            put("count", Scalar::Int(7)),
            put("price", Scalar::Float(7.0)),
            put("open", Scalar::Bool(true)),
            Edit::Text("note".into(), "a=b".into()),
            Edit::Json("extra".into(), "{\"a\":[1]}".into()),
        ]
    );
}

#[test]
fn words_count_clear_and_edit_children() {
    let edit = words(&[
        "stock+=3",
        "stock-=1",
        "name=",
        "lines[a.b].quantity=2",
        "lines[a.b].tally+=1",
        "lines[a.b].product=",
        "lines[c[1]]=",
    ]);
    let child = vec![
        put("quantity", Scalar::Int(2)),
        Edit::Add("tally".into(), 1),
        Edit::Clear("product".into()),
    ];
    assert_eq!(
        edit.expect("it is right").edits,
        [
            Edit::Add("stock".into(), 3),
            Edit::Add("stock".into(), -1),
            Edit::Clear("name".into()),
            Edit::Child("lines".into(), "a.b".into(), child),
            Edit::RemoveChild("lines".into(), "c[1]".into()),
        ]
    );
}

#[test]
fn words_that_say_nothing_representable_are_refused_with_a_way_out() {
    let refused = [
        ("name", "`name` is no edit: write field=value, counter+=1 or set[ID].field=value"),
        ("=x", "`=x` is no edit: write field=value, counter+=1 or set[ID].field=value"),
        ("nmae=x", "unknown field `nmae`: did you mean `name`?"),
        (
            "count=9223372036854775808",
            "`count` cannot hold this: expected a whole number of 64 bits",
        ),
        ("price=NaN", "`price` cannot hold this: expected a finite number"),
        ("price=inf", "`price` cannot hold this: expected a finite number"),
        ("open=1", "`open` cannot hold this: expected `true` or `false`"),
        ("stock=3", "`stock` cannot hold this: it is a counter: write stock+=1 or stock-=1"),
        ("stock+=x", "`stock` cannot hold this: expected a whole number of 64 bits"),
        ("name+=1", "`name` cannot hold this: it is a register, and only a counter is added to"),
        ("lines=1", "`lines` cannot hold this: write lines[ID].field=value"),
        (
            "lines[a/b].quantity=1",
            "a child of `lines` needs an id of 1 to 128 bytes without `/` and control characters",
        ),
        ("lines[a].quantty=1", "unknown field `lines.quantty`: did you mean `quantity`?"),
        (
            "lines[a].quantity=x",
            "`lines.quantity` cannot hold this: expected a whole number of 64 bits",
        ),
        ("lines[a]=1", "`lines` cannot hold this: write lines[a].field=value"),
        ("name[a].b=1", "`name` cannot hold this: it is a register and has no children"),
    ];
    for (word, expected) in refused {
        assert_eq!(words(&[word]), Err(expected.to_owned()), "{word}");
    }
    assert!(words(&["extra={"]).expect_err("no JSON").contains("expected JSON"));
}

#[test]
fn json_says_the_same_as_words() {
    let edit = from_json(&json!({
        "name": "007", "count": 7, "price": 7, "open": null, "note": "x", "stock": 3,
        "extra": {"a": [1.50]},
        "lines": [{"id": "a", "quantity": 2, "tally": 1, "product": null}, {"id": "b", "deleted": true}],
    }));
    let child = vec![
        put("quantity", Scalar::Int(2)),
        Edit::Add("tally".into(), 1),
        Edit::Clear("product".into()),
    ];
    assert_eq!(
        edit.expect("it is right").edits,
        [
            put("name", text("007")),
            put("count", Scalar::Int(7)),
            put("price", Scalar::Float(7.0)),
            Edit::Clear("open".into()),
            Edit::Text("note".into(), "x".into()),
            Edit::Add("stock".into(), 3),
            Edit::Json("extra".into(), "{\"a\":[1.5]}".into()),
            Edit::Child("lines".into(), "a".into(), child),
            Edit::RemoveChild("lines".into(), "b".into()),
        ]
    );
}

#[test]
fn json_that_a_field_cannot_hold_is_refused() {
    let refused = [
        (r#"{"name": {}}"#, "`name` cannot hold this: expected a single value"),
        (
            r#"{"name": 9223372036854775808}"#,
            "`name` cannot hold this: expected a whole number of 64 bits",
        ),
        (
            r#"{"price": 1e999}"#,
            "`price` cannot hold this: expected a whole number of 64 bits or a finite one",
        ),
        (r#"{"stock": "1"}"#, "`stock` cannot hold this: expected a whole number"),
        (r#"{"note": 1}"#, "`note` cannot hold this: expected a text in quotes"),
        (r#"{"lines": {}}"#, "`lines` cannot hold this: expected a list of children"),
        (r#"{"lines": [{}]}"#, "a child of `lines` needs an id"),
        (r#"{"colour": 1}"#, "unknown field `colour`"),
    ];
    for (source, expected) in refused {
        let value = serde_json::from_str(source).expect("JSON");
        let told = from_json(&value).expect_err("it is refused");
        assert!(told.starts_with(expected), "{source}: {told}");
    }
}

#[test]
fn a_file_is_measured_by_kind_and_size() {
    let media = ["image/*", "application/pdf"].map(str::to_owned).to_vec();
    let field = Attachments { media, max_size: 10, max_count: 1, location: Location::Keep };
    assert_eq!(field.check("image/png", 10), Ok(()));
    assert_eq!(field.check("application/pdf", 0), Ok(()));
    assert!(matches!(field.check("imagery/png", 1), Err(UnfitFile::Media { .. })));
    assert!(matches!(field.check("image/png", 11), Err(UnfitFile::Size { max: 10, .. })));
}

#[test]
fn cells_are_typed_and_empty_ones_are_absent() {
    with(|ty| {
        let edit =
            ty.edit_from_cells(&[("name", "007"), ("count", "7"), ("stock", "39"), ("note", "")]);
        let expected =
            [put("name", text("007")), put("count", Scalar::Int(7)), Edit::Add("stock".into(), 39)];
        assert_eq!(edit.expect("it is right").edits, expected);
        let child = ty.child_from_cells("lines", "11", &[("quantity", "12")]).expect("it is right");
        assert_eq!(
            child,
            Edit::Child("lines".into(), "11".into(), vec![put("quantity", Scalar::Int(12))])
        );
        assert!(ty.child_from_cells("name", "11", &[]).is_err());
    });
}

#[test]
fn a_type_tells_segment_scope_references_and_unique_values() {
    let fields = json!({
        "outlet": 42, "customer": "ann", "email": "a@b",
        "lines": [{"id": "1", "product": "x"}, {"id": "2", "product": "a/b"}],
    });
    let fields = fields.as_object().expect("an object");
    with(|ty| {
        assert_eq!(ty.scope_of(fields), "42");
        let id = RecordId::new("7").expect("an id");
        let address = ty.address(&id, "42");
        assert_eq!((address.buckets, address.bucket, address.generation), (16, id.bucket(16), 3));
        let references: Vec<_> = ty
            .references(fields)
            .iter()
            .map(|r| format!("{}={}/{}", r.field, r.ty, r.id))
            .collect();
        assert_eq!(
            references,
            ["customer=order/ann", "lines=order/1", "lines.product=order/x", "lines=order/2"]
        );
        assert_eq!(ty.unique_values(fields), [("email".to_owned(), "a@b".to_owned())]);
    });
}

proptest! {
    #[test]
    fn a_number_means_the_same_in_words_and_in_json(int: i64, float in -1e9f64..1e9) {
        let by_word = words(&[&format!("count={int}"), &format!("price={float}")]);
        let by_json = from_json(&json!({"count": int, "price": float}));
        prop_assert_eq!(by_word, by_json);
    }

    #[test]
    fn any_words_are_edits_or_errors(word in "[a-z\\[\\].+=-]{0,24}|\\PC{0,24}|lines\\[\\PC{0,8}\\]\\PC{0,8}") {
        let _ = words(&[&word]);
    }
}
