//! The example catalogs against the data sets that they are written for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fieldkeep_catalog::{Catalog, Holder, ObjectType, Referent, Subject, Surroundings};
use fieldkeep_model::{Edit, Outcome, RecordId, Scalar, SegmentId, TypeName};
use serde_json::{Map, Value, json};

type Records = BTreeMap<String, Map<String, Value>>;
type Row = BTreeMap<String, String>;

/// The folder of the data sets, or nothing where there is none.
#[expect(clippy::print_stderr, reason = "a skipped test is told loudly")]
fn data() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path =
        std::env::var_os("FIELDKEEP_DATA").map_or(root.join("../shared/data"), PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "no data sets: set FIELDKEEP_DATA");
    eprintln!("SKIPPED: no data sets at {}: set FIELDKEEP_DATA", path.display());
    None
}

fn catalog(name: &str) -> Catalog {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let source = std::fs::read_to_string(path).expect("the example");
    Catalog::parse(&source).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// A header as a field name: `CustomerID` is `customer_id`, `Tail flags` is `tail_flags`.
fn snake(header: &str) -> String {
    let mut name = String::new();
    let mut lower = false;
    for c in header.chars() {
        if c.is_uppercase() && lower || c == ' ' {
            name.push('_');
        }
        lower = c.is_lowercase();
        name.extend(c.to_lowercase().filter(|c| *c != ' '));
    }
    name
}

fn rows(path: &Path) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(path).expect("the data");
    let headers: Vec<_> = reader.headers().expect("headers").iter().map(snake).collect();
    let rows = reader.records().map(|row| row.expect("a row"));
    rows.map(|row| headers.iter().cloned().zip(row.iter().map(str::to_owned)).collect()).collect()
}

fn scalar(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Bool(flag) => json!(flag),
        Scalar::Int(int) => json!(int),
        Scalar::Float(float) => json!(float),
        Scalar::Str(text) => json!(text),
    }
}

/// A record as documents would give it back.
fn apply(edits: Vec<Edit>) -> Map<String, Value> {
    let mut fields = Map::new();
    for edit in edits {
        match edit {
            Edit::Put(field, value) => fields.insert(field, scalar(value)),
            Edit::Text(field, text) => fields.insert(field, json!(text)),
            Edit::Add(field, by) => fields.insert(field, json!(by)),
            Edit::Json(..) | Edit::Clear(_) | Edit::Child(..) | Edit::RemoveChild(..) => {
                panic!("a row of these files makes no such edit")
            }
        };
    }
    fields
}

fn record(ty: &ObjectType, row: &Row, skipped: &[&str]) -> Map<String, Value> {
    let cells = row.iter().filter(|(name, _)| !skipped.contains(&name.as_str()));
    let cells: Vec<_> = cells.map(|(name, cell)| (name.as_str(), cell.as_str())).collect();
    apply(ty.edit_from_cells(&cells).expect("the catalog has its fields").edits)
}

struct World {
    types: BTreeMap<TypeName, Records>,
    unique: BTreeMap<(String, String), BTreeSet<String>>,
}

impl World {
    fn new(catalog: &Catalog, types: BTreeMap<TypeName, Records>) -> Self {
        let mut unique: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (name, records) in &types {
            for (id, fields) in records {
                for key in catalog.types()[name].unique_values(fields) {
                    unique.entry(key).or_default().insert(id.clone());
                }
            }
        }
        Self { types, unique }
    }

    /// The records that are not valid, with their sentences.
    fn held(&self, catalog: &Catalog) -> Vec<(String, String)> {
        let mut held = Vec::new();
        for (ty, records) in &self.types {
            for (id, fields) in records {
                let id = RecordId::new(id.clone()).expect("an id");
                let subject =
                    Subject { ty, id: &id, fields, deleted: false, previous: None, scope: "" };
                let judgement = catalog.judge(&subject, self);
                if judgement.outcome != Outcome::Valid {
                    let reason = &judgement.reasons[0];
                    held.push((
                        reason.id.clone(),
                        format!("{ty}/{id}: {}", catalog.explain(ty, reason)),
                    ));
                }
            }
        }
        held
    }
}

impl Surroundings for World {
    fn referent(&self, ty: &TypeName, id: &RecordId) -> Referent {
        match self.types[ty].get(id.as_str()) {
            Some(fields) => Referent::Present {
                fields: fields.clone(),
                held: false,
                segment: SegmentId([0; 16]),
            },
            None => Referent::Absent,
        }
    }

    fn holders(&self, _: &TypeName, field: &str, value: &str) -> Vec<Holder> {
        let ids = self.unique.get(&(field.to_owned(), value.to_owned())).into_iter().flatten();
        ids.map(|id| Holder {
            id: RecordId::new(id.clone()).expect("an id"),
            segment: SegmentId([0; 16]),
        })
        .collect()
    }
}

#[test]
fn all_of_northwind_is_valid() {
    let Some(data) = data() else { return };
    let catalog = catalog("northwind.toml");
    let mut types = BTreeMap::new();
    for (name, file, id) in [
        ("customer", "customers.csv", "customer_id"),
        ("employee", "employees.csv", "employee_id"),
        ("product", "products.csv", "product_id"),
        ("order", "orders.csv", "order_id"),
    ] {
        let name = TypeName::new(name).expect("a name");
        let ty = &catalog.types()[&name];
        let rows = rows(&data.join("northwind").join(file));
        let records: Records =
            rows.iter().map(|row| (row[id].clone(), record(ty, row, &[id]))).collect();
        types.insert(name, records);
    }
    let order = TypeName::new("order").expect("a name");
    let lines = lines(&catalog.types()[&order], &data.join("northwind/order_details.csv"));
    assert_eq!(lines.values().map(Vec::len).sum::<usize>(), 2155);
    for (id, lines) in lines {
        let order = types.get_mut(&order).expect("orders").get_mut(&id).expect("the order");
        order.insert("lines".to_owned(), lines.into());
    }
    assert_eq!(types.values().map(BTreeMap::len).sum::<usize>(), 93 + 9 + 77 + 830);
    assert_eq!(World::new(&catalog, types).held(&catalog), []);
}

fn lines(order: &ObjectType, path: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut lines: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in rows(path) {
        let cells =
            row.iter().filter(|(name, _)| !["order_id", "product_id"].contains(&name.as_str()));
        let cells: Vec<_> = cells.map(|(name, cell)| (name.as_str(), cell.as_str())).collect();
        let edit = order.child_from_cells("lines", &row["product_id"], &cells).expect("a line");
        let Edit::Child(_, id, edits) = edit else { panic!("a line is a child") };
        let mut child = apply(edits);
        child.insert("id".to_owned(), json!(id));
        lines.entry(row["order_id"].clone()).or_default().push(child.into());
    }
    lines
}

#[test]
fn of_all_squirrels_only_those_with_doubled_ids_are_held() {
    let Some(data) = data() else { return };
    let catalog = catalog("squirrels.toml");
    let sighting = TypeName::new("sighting").expect("a name");
    let ty = &catalog.types()[&sighting];
    let rows = rows(&data.join("squirrels/squirrel-census-2018.csv"));
    let records = rows.iter().enumerate().map(|(n, row)| (n.to_string(), record(ty, row, &[])));
    let world = World::new(&catalog, [(sighting, records.collect())].into());
    assert_eq!(world.types.values().map(BTreeMap::len).sum::<usize>(), 3023);
    let held = world.held(&catalog);
    assert!(held.iter().all(|(id, _)| id == "unique"), "{held:?}");
    assert_eq!(held.len(), 10, "{held:?}");
}
