//! Changing the catalog of a relay that serves: how long a diff over all records takes, and how long a
//! change is on its way while it runs, while what was published is judged again, and while a type is
//! started afresh.

use std::time::Instant;

use fieldkeep_catalog::{Afresh, Catalog};
use fieldkeep_device::{Device, Event};
use fieldkeep_model::Grant;
use fieldkeep_relay::{Judges, Outlook};
use fieldkeep_replica::{Note, Rehearsal};
use fieldkeep_store::{Reader, home};
use tokio::sync::broadcast::Receiver;

use crate::authors::settled_orders;
use crate::camp::{Camp, Sizes, directory, order_key, some_orders, type_named};
use crate::live;
use crate::measure::median;
use crate::table::{Table, Target};

const SEGMENTS: usize = 100;

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    let count = sizes.many;
    let root = directory();
    let (writers, _) = settled_orders(&root.path().join("relay"), count, SEGMENTS);
    let source = writers.replica.published().expect("there is one").catalog.source().to_owned();
    drop(writers);
    let camp = Camp::serve(root);
    let outlet = Grant { ty: Some(type_named("order")), scope: Some("outlet 0".into()) };
    let [ann, ben] = ["ann", "ben"].map(|name| {
        let device = camp.device(name, vec![outlet.clone()]);
        camp.runtime.block_on(device.sync(live::PATIENCE)).expect("the relay is there");
        let connected = device.clone();
        camp.runtime.spawn(async move { connected.keep_synced().await });
        device
    });
    // Where the orders of that outlet lie among all of them: see `settled_orders`.
    let orders = some_orders(1, count, None).into_iter().step_by(SEGMENTS);
    let ids: Vec<String> = orders.map(|(id, _)| id).collect();
    let mut road = Road { camp: &camp, ann, watch: ben.watch(), ids, written: 0 };

    let mut figures = Figures::default();
    for run in 0..sizes.runs {
        figures.normal.extend(road.times(sizes.operations, |_| true));
        let next = stricter(&source, run);
        let reader = Reader::open(&home::database(&camp.root.path().join("relay")));
        let reader = reader.expect("it opens");
        let catalog = Catalog::parse(&next).expect("it is sound");
        let diff = std::thread::spawn(move || {
            let begin = Instant::now();
            let mut rehearsal =
                Rehearsal::begin(reader, catalog, Judges::default()).expect("it reads");
            let members = fieldkeep_store::Settings::members(rehearsal.reader()).expect("it reads");
            let members = fieldkeep_model::MembershipLog::open(members).expect("it verifies");
            let outlook = Outlook::of(&mut rehearsal, &members, &Default::default());
            (begin.elapsed().as_secs_f64(), outlook.expect("it reads"))
        });
        let before = road.held();
        figures.comparing.extend(road.times(usize::MAX, |_| !diff.is_finished()));
        let (seconds, outlook) = diff.join().expect("it ends");
        figures.diff.push(seconds);
        let begin = Instant::now();
        road.ask(move |engine| engine.publish(&next)).expect("it is sound");
        figures.judging.extend(
            road.times(usize::MAX, |road| road.ask(|engine| engine.replica().is_renewing())),
        );
        figures.judged.push(begin.elapsed().as_secs_f64());
        // The edits change no field that the rule reads.
        let expected = before + outlook.weight.held - outlook.weight.released;
        assert_eq!(road.held(), expected, "what the diff says is what happens");
        figures.turned = outlook.weight.held + outlook.weight.released;
    }
    let begin = Instant::now();
    let afresh = Afresh { buckets: Some(2), ..Afresh::default() };
    let note = Note { text: "two buckets a scope", time: 0 };
    road.ask(move |engine| {
        engine.begin_reshape(&type_named("order"), None, &afresh, (note, None)).map(drop)
    })
    .expect("it can be");
    let is_reshaping = |road: &Road<'_>| road.ask(|engine| engine.replica().is_reshaping());
    figures.reshaping.extend(road.times(usize::MAX, is_reshaping));
    figures.reshaped = begin.elapsed().as_secs_f64();
    figures.tell(count, table);
    drop(road);
    camp.stop();
}

/// The catalog with a rule that holds some of the orders, other ones each time.
fn stricter(source: &str, run: usize) -> String {
    let limit = [20, 10][run % 2];
    format!(
        "{source}\n[[type.order.rule]]\nname = \"limit\"\nreason = \"above {limit} percent\"\n\
         cel = \"!has(record.discount) || record.discount <= {limit}\"\n"
    )
}

/// One device writes, another one is told.
struct Road<'c> {
    camp: &'c Camp,
    ann: Device,
    watch: Receiver<Event>,
    ids: Vec<String>,
    written: usize,
}

impl Road<'_> {
    /// How long changes take, in milliseconds, so many of them at most and as long as that is so.
    fn times(&mut self, most: usize, goes_on: impl Fn(&Self) -> bool) -> Vec<f64> {
        let mut times = Vec::new();
        while times.len() < most && goes_on(self) {
            self.written += 1;
            let key = order_key(&self.ids[self.written * 7 % self.ids.len()]);
            let Self { camp, ann, watch, written, .. } = self;
            times.push(live::one(&camp.runtime, ann, watch, &key, *written));
        }
        times
    }

    /// How many records the relay holds.
    fn held(&self) -> u64 {
        self.ask(|engine| engine.replica().segments().values().map(|row| row.held).sum())
    }

    fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut fieldkeep_relay::Engine) -> T + Send + 'static,
    ) -> T {
        let handle = self.camp.relay().handle();
        self.camp.runtime.block_on(handle.call(act)).expect("the relay answers")
    }
}

#[derive(Default)]
struct Figures {
    normal: Vec<f64>,
    comparing: Vec<f64>,
    judging: Vec<f64>,
    reshaping: Vec<f64>,
    diff: Vec<f64>,
    judged: Vec<f64>,
    reshaped: f64,
    turned: u64,
}

impl Figures {
    fn tell(mut self, count: usize, table: &mut Table) {
        let none = Target::None;
        table.row(&format!("catalog diff, {count} records"), median(self.diff), none, "s".into());
        let what = format!("judging again, {count} records");
        let how = format!("s, with a change every few ms; {} turned the last time", self.turned);
        table.row(&what, median(self.judged), Target::None, how);
        let what = format!("a type started afresh, {count} records");
        table.row(&what, self.reshaped, Target::None, "s, once, with a change every few ms".into());
        let (usual, worst) = (median(self.normal.clone()), p99(&mut self.normal));
        for (what, mut times) in [
            ("a diff", self.comparing),
            ("judging again", self.judging),
            ("starting afresh", self.reshaping),
        ] {
            let (samples, middle, high) = (times.len(), median(times.clone()), p99(&mut times));
            let how = format!("{middle:.2} ms, {usual:.2} normally; {samples} changes");
            let what_of = |which: &str| format!("live change during {what}, {which}");
            table.row(&what_of("median"), middle / usual, Target::AtMost(2.0, "× normal"), how);
            let how = format!("{high:.2} ms, {worst:.2} normally");
            table.row(&what_of("p99"), high / worst, Target::AtMost(2.0, "× normal"), how);
        }
    }
}

fn p99(times: &mut [f64]) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[(times.len() * 99 / 100).min(times.len() - 1)]
}
