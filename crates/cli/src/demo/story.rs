//! The field day itself. Everyone acts as in any other day; every sentence is made from what the
//! stores then say, so that another catalog makes another story.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use fieldkeep_device::Device;
use fieldkeep_model::Outcome;
use fieldkeep_model::status::{Forecast, State};
use fieldkeep_replica::{RecordView, TypeCounts};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::field::{
    Field, Line, PATIENCE, arrived, capitalised, connected, key, look, meet, person, put, sync,
};
use super::proof::{self, Holding};
use super::telling::{Chapter, all_of, count, took};
use fieldkeep_console::{Code, Failure, Trouble};

/// The order that two people edit.
pub(super) const ORDER: &str = "order/ann-2";
/// The order with a slip of the finger in it, which nobody repairs.
pub(super) const SLIP: &str = "order/ann-13";
/// The shelf that two people count.
const SHELF: &str = "stock/o01-tonic";
/// The outlet that an order refers to before it is known.
const LATE_OUTLET: &str = "outlet/o25";

/// The whole day.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Story {
    /// What happened, in order.
    pub(super) chapters: Vec<Chapter>,
    /// Records that are not valid at the end of the day: what is left to do.
    pub(super) left: Vec<String>,
}

/// Plays a field day in an empty directory by the rules of a catalog; `tell` gets every chapter as
/// it ends.
///
/// # Errors
/// When something fails that no field day brings: the disk, the network on loopback, a catalog
/// that does not parse or lacks the types; and when the replicas are not equal at the end.
pub(super) async fn play(
    root: &Path,
    catalog: &str,
    tell: &mut dyn FnMut(&Chapter) -> io::Result<()>,
) -> Result<Story, Trouble> {
    let field = Field::set_up(root, catalog).await?;
    let mut chapters = Vec::new();
    let mut end = |chapter: Chapter| {
        tell(&chapter)?;
        chapters.push(chapter);
        Ok::<_, io::Error>(())
    };
    end(morning(&field).await?)?;
    end(capture(&field)?)?;
    end(signal(&field).await?)?;
    end(waiting(&field).await?)?;
    let (chapter, held) = wrong_together(&field).await?;
    end(chapter)?;
    end(near(&field).await?)?;
    end(meanwhile(&field).await?)?;
    end(repair(&field, held).await?)?;
    end(online(&field).await?)?;
    let (chapter, left, equal) = evening(&field).await?;
    end(chapter)?;
    field.close().await?;
    if !equal {
        let message = "the replicas are not equal at the end of the day";
        return Err(Failure::new(Code::Integrity, message, "").into());
    }
    Ok(Story { chapters, left })
}

async fn morning(field: &Field) -> Result<Chapter, Failure> {
    let mut chapter = Chapter::new("Morning: a relay and three devices");
    let names: Vec<_> = field.devices().map(person).to_vec();
    chapter.say(format!(
        "Riverside Drinks has a relay on {} (QUIC). {} took up an invitation each; each device made \
         its own key. That is 4 directories.",
        field.address(),
        all_of(&names),
    ));
    let lines = Line::read(include_str!("office.jsonl"));
    for line in &lines {
        put(&field.cara, &line.key(), &line.fields)?;
    }
    let (sent, time) = sync(&field.cara).await?;
    let kinds = kinds(&lines);
    chapter.say(format!(
        "Cara, in the office, enters {kinds}, and syncs: {} acknowledged by the relay in {}.",
        count(sent.sent, "change"),
        took(time),
    ));
    let (mut got, mut times) = (Vec::new(), Vec::new());
    for device in [&field.ann, &field.ben] {
        let (report, time) = sync(device).await?;
        got.push(format!("{} received {}", person(device), report.received));
        times.push(time);
    }
    chapter.say(format!(
        "Ann and Ben sync before they leave: {} ({}).",
        all_of(&got),
        all_of(&times.into_iter().map(took).collect::<Vec<_>>()),
    ));
    chapter.fact("records", lines.len());
    Ok(chapter)
}

fn capture(field: &Field) -> Result<Chapter, Failure> {
    let mut chapter = Chapter::new("In the field: no signal");
    let routes = [(&field.ann, include_str!("ann.jsonl")), (&field.ben, include_str!("ben.jsonl"))];
    let mut total = 0;
    for (device, source) in routes {
        let lines = Line::read(source);
        let mut times = Vec::new();
        let mut doubtful = Vec::new();
        for line in &lines {
            let started = Instant::now();
            let view = put(device, &line.key(), &line.fields)?;
            times.push(started.elapsed());
            if view.state != State::Forecast(Forecast::LikelyValid) {
                doubtful.push(view);
            }
        }
        let name = person(device);
        chapter.say(format!(
            "{name} captures {}. Each is on the disk before the next is typed: {} each (the \
             median).",
            kinds(&lines),
            took(median(times)),
        ));
        for view in &doubtful {
            chapter
                .point(format!("{name}'s device says at once: {}. It is saved.", standing(view)));
        }
        total += lines.len();
    }
    let unsaved = [unsaved(&field.ann)?, unsaved(&field.ben)?];
    chapter.say(format!(
        "Nothing of it has reached the relay: {} records are unsaved on Ann's device, {} on Ben's.",
        unsaved[0], unsaved[1],
    ));
    chapter.fact("captured", total);
    chapter.fact("unsaved", unsaved[0] + unsaved[1]);
    Ok(chapter)
}

async fn signal(field: &Field) -> Result<Chapter, Failure> {
    let mut chapter = Chapter::new("A signal");
    let mut sent = 0;
    for device in [&field.ann, &field.ben, &field.ann, &field.cara] {
        let (report, time) = sync(device).await?;
        sent += report.sent;
        chapter.say(format!(
            "{} syncs: {} sent, {} received, {} proven equal, {}.",
            person(device),
            report.sent,
            report.received,
            count(report.proven, "segment"),
            took(time),
        ));
    }
    let holding = field.relay_holding().await?;
    let [valid, held, waiting] = outcomes(&holding);
    chapter.say(format!(
        "The relay has judged {} by the catalog's rules: {valid} valid, {held} held, {waiting} \
         waiting.",
        count(holding.records.len() as u64, "record"),
    ));
    for view in not_valid(&holding) {
        chapter.point(standing(view));
    }
    chapter.fact("sent", sent);
    chapter.fact("records", holding.records.len());
    chapter.fact("valid", valid);
    chapter.fact("held", held);
    chapter.fact("waiting", waiting);
    chapter.fact("unsaved", unsaved(&field.ann)? + unsaved(&field.ben)?);
    Ok(chapter)
}

async fn waiting(field: &Field) -> Result<Chapter, Failure> {
    let mut chapter = Chapter::new("The record that waits for another");
    let before = field.relay_holding().await?;
    let waits: Vec<_> =
        before.judged(Outcome::Waiting).iter().map(|view| view.key.clone()).collect();
    if waits.is_empty() {
        chapter.say("Nothing waits.");
    }
    let fields = json!({"name": "Riverside Stall 25", "street": "Quay 25", "contact": "Nils"});
    put(&field.cara, &key(LATE_OUTLET), &object(fields))?;
    let (_, time) = sync(&field.cara).await?;
    chapter.say(format!("Cara enters {LATE_OUTLET}, and syncs ({}).", took(time)));
    sync(&field.ben).await?;
    let mut states = Map::new();
    for key in &waits {
        let view = look(&field.ben, key)?;
        chapter.say(format!(
            "{key} was not touched. The relay judged it when {LATE_OUTLET} arrived, and Ben's \
             device has the verdict: {}.",
            state(&view),
        ));
        states.insert(key.to_string(), Value::from(view.state.word()));
    }
    chapter.fact("judged_on_arrival", states);
    Ok(chapter)
}

async fn wrong_together(field: &Field) -> Result<(Chapter, bool), Failure> {
    let mut chapter = Chapter::new("Two edits, made offline at the same time");
    let (order, shelf) = (key(ORDER), key(SHELF));
    sync(&field.ben).await?;
    let fields = ["payment", "discount_percent"];
    chapter.say(format!("{ORDER}: {}.", values(&look(&field.ann, &order)?.fields, &fields)));
    let mut alone = Vec::new();
    for (device, edit) in
        [(&field.ann, json!({"discount_percent": 25})), (&field.ben, json!({"payment": "invoice"}))]
    {
        let edit = object(edit);
        let view = put(device, &order, &edit)?;
        let wrote = values(&edit, &fields);
        let (name, expects) = (person(device), standing_of(&view));
        chapter.point(format!("{name} writes {wrote}. The device alone expects: {expects}."));
        alone.push(view.state == State::Forecast(Forecast::LikelyValid));
    }
    let before = units(&look(&field.ann, &shelf)?);
    for (device, change) in [(&field.ann, -3), (&field.ben, 12)] {
        put(device, &shelf, &object(json!({"units": change})))?;
    }
    for device in [&field.ann, &field.ben, &field.ann] {
        sync(device).await?;
    }
    let on_relay = field.on_relay(&order).await?.ok_or_else(|| Failure::absent(&order))?;
    let held = on_relay.state == State::Judged(Outcome::Held);
    let merged = values(&on_relay.fields, &fields);
    chapter.say(format!("Both sync. The relay merges both edits ({merged}) and judges the merge:"));
    chapter.point(standing(&on_relay));
    if held && alone == [true, true] {
        chapter.say("Each edit was fine, and together they are wrong. Nobody's work is lost:");
    }
    let mut shown = Map::new();
    for device in [&field.ann, &field.ben] {
        let view = look(device, &order)?;
        chapter.point(format!("{}'s device shows: {}.", person(device), blame(&view)));
        shown.insert(device.name(), told(&view));
    }
    if let Some(valid) = on_relay.last_valid.as_ref().filter(|_| held) {
        chapter.point(format!("Readable beside it, last valid: {}.", values(valid, &fields)));
    }
    let after = [units(&look(&field.ann, &shelf)?), units(&look(&field.ben, &shelf)?)];
    chapter.say(format!(
        "Both also counted the shelf {SHELF} from {before}: Ann 3 down, Ben 12 up. It has {} on \
         Ann's device, {} on Ben's.",
        after[0], after[1],
    ));
    let counts = [held_here(&field.ann)?, held_here(&field.ben)?];
    chapter.fact("held_here", json!(counts));
    chapter.fact("order", ORDER);
    chapter.fact("fine_alone", alone);
    chapter.fact("state", on_relay.state.word());
    chapter.fact("reasons", on_relay.reasons.clone());
    chapter.fact("shown", shown);
    chapter.fact("shelf", json!({"before": before, "after": after}));
    Ok((chapter, held))
}

async fn near(field: &Field) -> Result<Chapter, Failure> {
    let mut chapter = Chapter::new("No signal, but each other");
    let order = key(ORDER);
    let before = look(&field.cara, &order)?;
    chapter.say(format!(
        "What the relay says of {ORDER} has not reached Cara. Her device shows: {}.",
        state(&before)
    ));
    let (met, time) = meet(&field.ben, &field.cara).await?;
    chapter.say(format!(
        "Ben meets her where there is no signal. Their devices hand each other what is lacking, {} \
         to her and {} to him, in {}; {} are proven equal. No relay was asked.",
        count(met.sent, "change"),
        count(met.received, "change"),
        took(time),
        count(met.proven, "segment"),
    ));
    let after = look(&field.cara, &order)?;
    chapter.say("The relay's signed word came along:");
    chapter.point(format!("Cara's device shows: {}.", blame(&after)));
    chapter.fact("sent", met.sent);
    chapter.fact("received", met.received);
    chapter.fact("proven", met.proven);
    chapter.fact("before", before.state.word());
    chapter.fact("after", after.state.word());
    Ok(chapter)
}

async fn meanwhile(field: &Field) -> Result<Chapter, Failure> {
    let mut chapter = Chapter::new("Meanwhile, everything else goes on");
    let lines = Line::read(include_str!("late.jsonl"));
    let times = connected(&field.cara, connected(&field.ann, live(field, &lines))).await?;
    let holding = field.relay_holding().await?;
    let written: Vec<_> =
        lines.iter().filter_map(|line| holding.records.get(&line.key())).collect();
    let valid = written.iter().filter(|view| view.state == State::Judged(Outcome::Valid)).count();
    let held = holding.judged(Outcome::Held);
    let held: Vec<_> = held.iter().map(|view| view.key.to_string()).collect();
    chapter.say(match &held[..] {
        [] => "Nothing is held.".to_owned(),
        [one] => format!("{one} is held, and holds up nothing:"),
        many => format!("{} are held, and hold up nothing:", all_of(many)),
    });
    chapter.point(format!(
        "Ann and Cara are connected. Ann writes {}: {} acknowledged, judged ({valid} valid) and on \
         Cara's device.",
        kinds(&lines),
        written.len(),
    ));
    chapter.point(format!(
        "From Ann's put to the relay's verdict on Cara's device: {} (the median of {}).",
        took(median(times.clone())),
        times.len(),
    ));
    chapter.fact("records", written.len());
    chapter.fact("valid", valid);
    chapter.fact("held", held);
    Ok(chapter)
}

/// Ann writes, and Cara is told. The first record is not timed: connections are made with it.
async fn live(field: &Field, lines: &[Line]) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    for line in lines {
        let started = Instant::now();
        put(&field.ann, &line.key(), &line.fields)?;
        arrived(&field.cara, &[line.key()]).await?;
        times.push(started.elapsed());
    }
    arrived(&field.ann, &lines.iter().map(Line::key).collect::<Vec<_>>()).await?;
    Ok(times.split_off(1))
}

async fn repair(field: &Field, held: bool) -> Result<Chapter, Failure> {
    let mut chapter = Chapter::new("The repair, made offline");
    let order = key(ORDER);
    if !held {
        let view = look(&field.ben, &order)?;
        chapter.say(format!("{ORDER} needs none: {}.", state(&view)));
        chapter.fact("state", view.state.word());
        return Ok(chapter);
    }
    let edit = object(json!({"discount_percent": 20}));
    let view = put(&field.ben, &order, &edit)?;
    chapter.say(format!(
        "Ben, without a signal, writes {}: an ordinary edit. The device expects: {}.",
        values(&edit, &["discount_percent"]),
        standing_of(&view),
    ));
    let (_, time) = sync(&field.ben).await?;
    sync(&field.ann).await?;
    let on_relay = field.on_relay(&order).await?.ok_or_else(|| Failure::absent(&order))?;
    let released = on_relay.state == State::Judged(Outcome::Valid);
    chapter.say(format!(
        "Ben syncs ({}); so does Ann. On the relay {}.{}",
        took(time),
        standing(&on_relay),
        if released { " It is released; nobody had to let it go." } else { "" },
    ));
    for device in [&field.ann, &field.ben] {
        let view = look(device, &order)?;
        chapter.point(format!("{}'s device shows: {}.", person(device), state(&view)));
    }
    chapter.fact("state", on_relay.state.word());
    chapter.fact("released", released);
    Ok(chapter)
}

/// The proof, what is left to do, and whether all replicas are equal.
/// What needs a connection: a lead becomes an outlet, an expense is filed, and the relay answers.
async fn online(field: &Field) -> Result<Chapter, Failure> {
    let mut chapter = Chapter::new("With a signal: what the relay does at once");
    let lead = key("lead/quay-bar");
    put(&field.ann, &lead, &object(json!({"name": "Quay Bar", "status": "open"})))?;
    let convert = json!({"lead": "quay-bar"});
    let called = field.ann.call("convert_lead", &object(convert.clone()), PATIENCE).await?;
    let written = called.records.iter().map(ToString::to_string).collect::<Vec<_>>();
    chapter.say(format!(
        "Ann asks the relay to make an outlet of {lead}. It writes {}, all or nothing; both are on \
         her device when the call returns.",
        all_of(&written),
    ));
    let again = field.ann.call("convert_lead", &object(convert), PATIENCE).await;
    if let Err(error) = again {
        chapter.point(format!("Once more, she hears: {error}. Nothing is written."));
    }
    let expense = object(json!({"what": "ferry", "cents": 1250}));
    let called = field.ben.call("file_expense", &expense, PATIENCE).await?;
    let leave = object(json!({"first_day": "2026-07-06", "days": 5}));
    let asked = field.ben.call("request_leave", &leave, PATIENCE).await?;
    let records = called.records.len() + asked.records.len();
    chapter.say(format!(
        "Ben files an expense and asks for leave: {}.",
        count(records as u64, "record")
    ));
    let board = field.ben.ask("leaderboard", &Map::new(), PATIENCE).await?;
    let lines = board
        .rows
        .iter()
        .filter_map(|row| Some(format!("{} {}", row.first()?.as_str()?, row.get(1)?)));
    let lines: Vec<String> = lines.collect();
    chapter.say(format!("The leaderboard, over the records that pass: {}.", all_of(&lines)));
    chapter.fact("written", written);
    chapter.fact("leaderboard", lines);
    Ok(chapter)
}

async fn evening(field: &Field) -> Result<(Chapter, Vec<String>, bool), Failure> {
    let mut chapter = Chapter::new("Evening: the proof that all four are equal");
    for device in field.devices() {
        sync(device).await?;
    }
    let relay = field.relay_holding().await?;
    chapter.say(format!(
        "The relay holds {} of {} in {}: {} fields.",
        count(relay.changes(), "change"),
        count(relay.records.len() as u64, "record"),
        count(relay.segments.len() as u64, "segment"),
        relay.fields(),
    ));
    let (mut equal, mut compared) = (true, Map::new());
    for device in field.devices() {
        let own = device.with_replica(proof::holding)?;
        let differences = relay.differences(&own);
        let unsaved = unsaved(device)?;
        equal &= differences.is_empty() && unsaved == 0;
        chapter.point(compare(device, &own, &differences, unsaved));
        let figures = json!({
            "changes": own.changes(), "records": own.records.len(), "unsaved": unsaved,
            "differences": differences,
        });
        compared.insert(device.name(), figures);
    }
    let left: Vec<_> = not_valid(&relay).map(|view| view.key.to_string()).collect();
    chapter.say(match not_valid(&relay).next() {
        None => "Nothing is held or waits.".to_owned(),
        Some(_) => "Left to do, with its reason, and kept by everybody alike:".to_owned(),
    });
    for view in not_valid(&relay) {
        chapter.point(standing(view));
    }
    chapter.fact("changes", relay.changes());
    chapter.fact("records", relay.records.len());
    chapter.fact("replicas", compared);
    chapter.fact("equal", equal);
    Ok((chapter, left, equal))
}

fn compare(device: &Device, own: &Holding, differences: &[String], unsaved: u64) -> String {
    let same = if differences.is_empty() {
        "heads equal, records equal, verdicts equal".to_owned()
    } else {
        format!("{} differ: {}", differences.len(), all_of(differences))
    };
    format!(
        "{}: {}, {}, {same}; {unsaved} unsaved.",
        person(device),
        count(own.changes(), "change"),
        count(own.records.len() as u64, "record"),
    )
}

/// A record with its state and reasons, as a sentence without its full stop.
fn standing(view: &RecordView) -> String {
    format!("{} is {}", view.key, standing_of(view))
}

fn standing_of(view: &RecordView) -> String {
    let reasons = view.reasons.join("; ");
    if reasons.is_empty() { state(view).to_owned() } else { format!("{} ({reasons})", state(view)) }
}

fn state(view: &RecordView) -> &'static str {
    match view.state {
        State::Judged(outcome) => outcome.word(),
        State::Forecast(Forecast::LikelyValid) => "likely valid",
        State::Forecast(Forecast::LikelyHeld) => "likely to be held",
        State::Forecast(Forecast::NeedsRelay) => "for the relay to judge",
    }
}

/// The state, and who wrote what the rules object to.
fn blame(view: &RecordView) -> String {
    let culprits = view.culprits.iter().map(|culprit| {
        format!("{} wrote {}", capitalised(&culprit.person), all_of(&culprit.fields))
    });
    let culprits: Vec<_> = culprits.collect();
    if culprits.is_empty() {
        return state(view).to_owned();
    }
    format!("{}, {}", standing_of(view), all_of(&culprits))
}

/// The same for programs.
fn told(view: &RecordView) -> Value {
    let culprits = view.culprits.iter();
    let culprits = culprits.map(|c| json!({"person": c.person, "fields": c.fields}));
    json!({
        "state": view.state.word(), "reasons": view.reasons,
        "culprits": culprits.collect::<Vec<_>>(),
    })
}

fn not_valid(holding: &Holding) -> impl Iterator<Item = &RecordView> {
    holding.records.values().filter(|view| view.state != State::Judged(Outcome::Valid))
}

fn outcomes(holding: &Holding) -> [usize; 3] {
    [Outcome::Valid, Outcome::Held, Outcome::Waiting].map(|outcome| holding.judged(outcome).len())
}

/// The fields of a record that are asked for, as `payment cash, discount_percent 10`.
fn values(fields: &Map<String, Value>, names: &[&str]) -> String {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let present = names.iter().filter_map(|name| Some((*name, fields.get(*name)?)));
    present.map(|(name, value)| format!("{name} {}", shown(value))).collect::<Vec<_>>().join(", ")
}

fn units(view: &RecordView) -> i64 {
    view.fields.get("units").and_then(Value::as_i64).unwrap_or_default()
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { return Map::new() };
    fields
}

/// How many records of a device have no receipt.
fn unsaved(device: &Device) -> Result<u64, Failure> {
    counted(device, |counts| counts.unsaved)
}

/// How many records a device counts as held.
fn held_here(device: &Device) -> Result<u64, Failure> {
    counted(device, |counts| counts.held)
}

fn counted(device: &Device, which: impl Fn(TypeCounts) -> u64) -> Result<u64, Failure> {
    let catalog = device.catalog();
    let types = catalog.iter().flat_map(|catalog| catalog.types().keys());
    types.map(|ty| Ok(which(device.counts(ty)?))).sum()
}

/// `12 visits, 13 orders and 24 stock counts`.
fn kinds(lines: &[Line]) -> String {
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines {
        *kinds.entry(line.key().ty.to_string()).or_default() += 1;
    }
    let noun = |ty: &str| if ty == "stock" { "stock count".to_owned() } else { ty.to_owned() };
    all_of(&kinds.iter().map(|(ty, number)| count(*number, &noun(ty))).collect::<Vec<_>>())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
