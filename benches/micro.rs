//! The parts that everything else multiplies: the gate, a record out of a document, the batch codec,
//! loading a segment, judging an order.

use std::hint::black_box;

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fieldkeep_catalog::{Catalog, Holder, Referent, Subject, Surroundings};
use fieldkeep_documents::{Document, History, batch};
use fieldkeep_lab::generate::{commit, create, replica};
use fieldkeep_lab::orders::orders;
use fieldkeep_model::{RecordId, SegmentId, TypeName};
use serde_json::Map;

const RECORDS: usize = 1_000;

const CATALOG: &str = r#"
catalog = 1
[type.customer.field]
name = { required = true }
[type.product.field]
name = { required = true }
[type.order.field]
customer = { ref = "customer", required = true }
outlet = { required = true }
state = { schema = { type = "string", maxLength = 20 } }
ordered_at = { schema = { type = "integer", minimum = 0 } }
discount = { schema = { type = "integer" } }
freight = { schema = { type = "string" } }
paid = { schema = { type = "boolean" } }
weight = { schema = { type = "number" } }
note = {}
[type.order.field.lines]
kind = "set"
[type.order.field.lines.field]
product = { ref = "product", required = true }
quantity = { required = true, schema = { type = "integer" } }
unit_price = { required = true }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
[[type.order.rule]]
name = "quantities"
cel = "record.lines.all(l, l.quantity > 0)"
reason = "every line needs a quantity above 0"
"#;

/// A segment: orders by one device, then an edit of each by another, a change each.
fn segment() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut doc = replica(1);
    let orders = orders(1, RECORDS);
    let created = orders.iter().map(|(id, order)| {
        create(&mut doc, id, order);
        commit(&mut doc, 1).expect("an order is a change")
    });
    let created = created.collect();
    let mut doc = doc.fork().with_actor(replica(2).get_actor().clone());
    let edited = orders.iter().map(|(id, _)| {
        let (_, record) = doc.get(ROOT, id).expect("it reads").expect("it was created");
        doc.put(&record, "state", "paid").expect("it is a map");
        commit(&mut doc, 2).expect("an edit is a change")
    });
    (created, edited.collect())
}

fn gate(criterion: &mut Criterion) {
    let (created, edited) = segment();
    let mut group = criterion.benchmark_group("gate");
    group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(20);
    let replay = |mut history: History, chunks: &[Vec<u8>]| {
        for chunk in chunks {
            history.replay(chunk).expect("honest changes pass");
        }
        history
    };
    group.bench_function("new records", |bench| {
        bench.iter_batched(
            History::new,
            |history| replay(history, &created),
            BatchSize::LargeInput,
        );
    });
    let saved = replay(History::new(), &created).encode();
    group.bench_function("edits", |bench| {
        let held = || History::decode(&saved).expect("it was just encoded");
        bench.iter_batched(held, |history| replay(history, &edited), BatchSize::LargeInput);
    });
    group.finish();
}

fn document(criterion: &mut Criterion) {
    let (created, edited) = segment();
    let mut document = Document::new();
    document.apply(created.iter().chain(&edited).map(Vec::as_slice)).expect("they passed the gate");
    let ids = document.ids();
    let mut at = 0;
    criterion.bench_function("a record out of a document", |bench| {
        bench.iter(|| {
            at = (at + 7) % ids.len();
            document.record(&ids[at])
        });
    });
    let saved = document.save();
    let mut group = criterion.benchmark_group("a segment of 1,000 records");
    group.sample_size(20);
    group.bench_function("save", |bench| bench.iter(|| document.save()));
    group.bench_function("load", |bench| bench.iter(|| Document::load(black_box(&saved))));
    group.finish();
}

fn batches(criterion: &mut Criterion) {
    let (created, _) = segment();
    let chunks: Vec<&[u8]> = created.iter().map(Vec::as_slice).collect();
    let mut group = criterion.benchmark_group("a batch of new records");
    group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(20);
    group.bench_function("encode", |bench| bench.iter(|| batch::encode(black_box(&chunks), 3)));
    let encoded = batch::encode(&chunks, 3);
    group.bench_function("decode", |bench| {
        bench.iter(|| batch::decode(black_box(&encoded), 8 << 20).expect("it was just encoded"));
    });
    group.finish();
}

/// A world in which everything is there.
struct Plenty;

impl Surroundings for Plenty {
    fn referent(&self, _: &TypeName, _: &RecordId) -> Referent {
        Referent::Present { fields: Map::new(), held: false, segment: SegmentId([0; 16]) }
    }

    fn holders(&self, _: &TypeName, _: &str, _: &str) -> Vec<Holder> {
        Vec::new()
    }
}

fn judging(criterion: &mut Criterion) {
    let catalog = Catalog::parse(CATALOG).expect("it is sound");
    let ty = TypeName::new("order").expect("a name");
    let (id, order) = orders(1, 1).pop().expect("one order");
    let id = RecordId::new(id).expect("an id");
    let fields = order.as_object().expect("it is");
    let subject = Subject { ty: &ty, id: &id, fields, deleted: false, previous: None, scope: "" };
    assert!(catalog.judge(&subject, &Plenty).reasons.is_empty(), "the order is valid");
    criterion.bench_function("judge an order", |bench| {
        bench.iter(|| catalog.judge(black_box(&subject), &Plenty));
    });
}

criterion_group!(benches, gate, document, batches, judging);
criterion_main!(benches);
