//! A type that is declared otherwise in a catalog that people wrote.

use fieldkeep_catalog::{Afresh, Catalog, Kind};
use fieldkeep_model::TypeName;

const SOURCE: &str = "\
catalog = 1
# People and what they ordered.
[type.order]
scope = \"outlet\" # where it was
[type.order.field.outlet]
[type.order.field.lines]
kind = \"set\"
[type.order.field.lines.field.note]
";

#[test]
fn what_is_declared_otherwise_is_and_the_rest_stays() {
    let changes = Afresh {
        buckets: Some(16),
        scope: Some(None),
        kinds: vec![("lines.note".into(), Kind::Text)],
    };
    let order = TypeName::new("order").expect("a name");
    let text = changes.applied(SOURCE, &order, 3).expect("it is declared");
    let catalog = Catalog::parse(&text).expect("it parses");
    let ty = catalog.ty(&order).expect("it is there");
    assert_eq!((ty.buckets, ty.scope.as_deref(), ty.generation), (16, None, 3));
    assert_eq!(ty.fields["lines"].children["note"].kind, Kind::Text);
    assert!(text.contains("# People and what they ordered."), "{text}");
    let unknown = Afresh { kinds: vec![("nowhere".into(), Kind::Text)], ..Afresh::default() };
    assert!(unknown.applied(SOURCE, &order, 1).is_err());
}
