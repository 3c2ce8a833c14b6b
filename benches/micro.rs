//! The parts that everything else multiplies: the gate, a record out of a document, the batch codec,
//! loading a segment, judging an order.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fieldkeep_catalog::{Catalog, Holder, Referent, Subject, Surroundings};
use fieldkeep_documents::{Document, History, batch};
use fieldkeep_lab::generate::segment;
use fieldkeep_lab::orders::{catalog, orders};
use fieldkeep_model::{RecordId, SegmentId, TypeName};
use serde_json::Map;

const RECORDS: usize = 1_000;

fn gate(criterion: &mut Criterion) {
    let (created, edited) = segment(RECORDS);
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
    let (created, edited) = segment(RECORDS);
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
    let (created, _) = segment(RECORDS);
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
    let catalog = Catalog::parse(&catalog(1, false)).expect("it is sound");
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
