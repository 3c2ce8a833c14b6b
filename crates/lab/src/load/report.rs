//! What a load test came to: figures beside their targets and floors.
//!
//! The schema is `fieldkeep/lab-load/1`: the fields of [`Results`] as they are named here.

use std::fmt::Write as _;

use serde::Serialize;

use super::bad::{Bad, Deeds};
use super::board::Times;
use super::floors::Floors;
use super::{OUTLET, Plan};
use crate::machine::Machine;

/// The schema's name and version.
pub const SCHEMA: &str = "fieldkeep/lab-load/1";

/// The results of a load test.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Whether it was stopped before its end.
    pub partial: bool,
    /// The command that makes them again.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// Devices.
    pub devices: usize,
    /// How many share an outlet: each change of one goes to the others.
    pub outlet: usize,
    /// Changes a second, all devices together.
    pub rate: u64,
    /// How long devices wrote, with nobody misbehaving and with each that does.
    pub seconds: u64,
    /// Bare floors.
    pub floors: Option<Floors>,
    /// How long it took to connect all devices the first time; nothing if it took too long.
    pub connect_ms: Option<f64>,
    /// The same all at once, after they had written.
    pub reconnect_ms: Option<f64>,
    /// The relay's own memory with nobody connected.
    pub relay_bytes: u64,
    /// What an idle device adds to it, in KiB.
    pub idle_kib: f64,
    /// From durable on one device to durable on another.
    pub live: Times,
    /// The relay's processor time while devices wrote, of one processor.
    pub relay_share: f64,
    /// What became of that when somebody misbehaved.
    pub ordeals: Vec<Ordeal>,
    /// The relay's memory over time.
    pub soak: Option<Soak>,
    /// Changes that were written.
    pub written: u64,
    /// Whether every one arrived everywhere.
    pub arrived: bool,
    /// Arrivals that are missing.
    pub missing: u64,
    /// Sessions of honest devices that ended though nobody ended them.
    pub cuts: u64,
    /// Why, the first few.
    pub wrong: Vec<String>,
    /// Whether the relay was still there at the end.
    pub relay_lives: bool,
}

/// Turns without and with somebody who misbehaves.
#[derive(Clone, Debug, Serialize)]
pub struct Ordeal {
    /// How.
    pub bad: Bad,
    /// The honest devices' times without.
    pub calm: Times,
    /// Their times with it.
    pub harried: Times,
    /// By how much the relay's memory grew at most.
    pub growth_bytes: u64,
    /// What was done.
    pub deeds: Deeds,
    /// Sessions of honest devices that ended though nobody ended them.
    pub cuts: u64,
    /// Whether everything arrived.
    pub arrived: bool,
}

/// The relay's memory over time.
#[derive(Clone, Debug, Serialize)]
pub struct Soak {
    /// How long it was watched, in minutes.
    pub minutes: f64,
    /// Its memory at each look, in KiB, evenly over that time.
    pub looks_kib: Vec<f64>,
    /// The slope of the second half, in KiB a minute: the first fills caches.
    pub slope_kib_a_minute: f64,
    /// The devices' times.
    pub times: Times,
}

impl Soak {
    pub(super) fn of(points: &[(f64, f64)], times: Times) -> Self {
        let last = points.last().copied().unwrap_or_default();
        let settled = &points[points.len() / 2..];
        Self {
            minutes: last.0,
            looks_kib: points.iter().map(|point| point.1).collect(),
            slope_kib_a_minute: crate::sync::slope(settled),
            times,
        }
    }
}

impl Soak {
    /// The medians of up to ten parts of that time, in MB.
    fn medians_mb(&self) -> impl Iterator<Item = f64> {
        let part = self.looks_kib.len().div_ceil(10).max(1);
        self.looks_kib.chunks(part).map(|looks| {
            let mut looks = looks.to_vec();
            looks.sort_by(f64::total_cmp);
            looks[looks.len() / 2] * 1_024.0 / 1e6
        })
    }
}

/// A row of the table.
struct Row {
    what: String,
    figure: String,
    target: &'static str,
    floor: String,
}

impl Results {
    pub(super) fn of(plan: &Plan, machine: Machine) -> Self {
        Self {
            schema: SCHEMA,
            partial: true,
            command: plan.command.clone(),
            machine,
            devices: plan.devices,
            outlet: OUTLET,
            rate: plan.rate,
            seconds: plan.seconds,
            floors: None,
            connect_ms: None,
            reconnect_ms: None,
            relay_bytes: 0,
            idle_kib: 0.0,
            live: Times::default(),
            relay_share: 0.0,
            ordeals: Vec::new(),
            soak: None,
            written: 0,
            arrived: false,
            missing: 0,
            cuts: 0,
            wrong: Vec::new(),
            relay_lives: false,
        }
    }

    /// Whether honest devices were served, whatever that took.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let ordeals = self.ordeals.iter().all(|ordeal| ordeal.arrived);
        self.relay_lives && self.arrived && ordeals && self.cuts == 0
    }

    /// The results as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let rows = self.rows();
        let wide = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
        let (what, figure) = (wide(|row| row.what.len()), wide(|row| row.figure.len()));
        let target = wide(|row| row.target.len()).max("TARGET".len());
        let mut table = format!(
            "{} devices in outlets of {}, {} changes a second\n{}\n\n",
            self.devices, self.outlet, self.rate, self.machine
        );
        let mut line = |row: [&str; 4]| {
            let line =
                format!("{:what$}  {:>figure$}  {:target$}  {}", row[0], row[1], row[2], row[3]);
            let _ = writeln!(table, "{}", line.trim_end());
        };
        line(["", "", "TARGET", "FLOOR"]);
        for row in &rows {
            line([&row.what, &row.figure, row.target, &row.floor]);
        }
        let _ = writeln!(table, "\n{}", self.verdict());
        table
    }

    fn rows(&self) -> Vec<Row> {
        let row = |what: &str, figure: String, target: &'static str, floor: String| Row {
            what: what.to_owned(),
            figure,
            target,
            floor,
        };
        let seconds = |ms: Option<f64>| match ms {
            Some(ms) => format!("{:.2} s", ms / 1e3),
            None => "too long".to_owned(),
        };
        let none = String::new();
        let floor =
            |told: fn(&Floors) -> String| self.floors.as_ref().map_or_else(String::new, told);
        let mut rows = vec![
            row("all connected, the first time", seconds(self.connect_ms), "", none.clone()),
            row("all connected anew", seconds(self.reconnect_ms), "10 s", none.clone()),
            row(
                "the relay with nobody connected",
                format!("{:.1} MB", self.relay_bytes as f64 / 1e6),
                "",
                none.clone(),
            ),
            row(
                "an idle device on the relay",
                format!("{:.1} KiB", self.idle_kib),
                "60 KiB",
                floor(|floors| format!("{:.1} KiB, bare QUIC", floors.echo_idle_kib)),
            ),
            row(
                "from durable to durable, p99",
                times(&self.live),
                "100 ms",
                floor(|floors| {
                    format!(
                        "{:.1} ms there and back, bare QUIC; {:.1} ms a page synced",
                        floors.echo.p99_ms, floors.sync.p99_ms
                    )
                }),
            ),
            row(
                "the relay's processor time",
                format!("{:.0} % of one", self.relay_share * 100.0),
                "",
                none.clone(),
            ),
        ];
        for ordeal in &self.ordeals {
            let Ordeal { bad, calm, harried, growth_bytes, deeds, .. } = ordeal;
            let ratio = harried.p99_ms / calm.p99_ms.max(f64::MIN_POSITIVE);
            let figure = format!("{:.2} × {}", ratio, times(calm));
            rows.push(row(&format!("p99 with {bad}"), figure, "2 ×", told(deeds)));
            let figure = format!("{:.1} MB", *growth_bytes as f64 / 1e6);
            let target = if *bad == Bad::Strangers { "16 MB" } else { "" };
            rows.push(row("  by which the relay grew", figure, target, none.clone()));
        }
        if let Some(soak) = &self.soak {
            let figure = format!("{:+.0} KiB a minute", soak.slope_kib_a_minute);
            let medians: Vec<_> = soak.medians_mb().map(|mb| format!("{mb:.0}")).collect();
            let (minutes, medians) = (soak.minutes, medians.join(" "));
            let over = format!("{medians} MB in {minutes:.1} minutes; p99 {}", times(&soak.times));
            rows.push(row("the relay's memory", figure, "flat", over));
        }
        rows
    }

    fn verdict(&self) -> String {
        let mut words = vec![format!("{} changes written", self.written)];
        words.push(match self.missing {
            0 => "all arrived everywhere".to_owned(),
            missing => format!("{missing} arrivals are missing"),
        });
        words.push(match self.cuts {
            0 => "no honest session was cut".to_owned(),
            cuts => format!("{cuts} honest sessions were cut: {}", self.wrong.join("; ")),
        });
        if !self.relay_lives {
            words.push("the relay has ended".to_owned());
        }
        if self.partial {
            words.push("stopped before its end".to_owned());
        }
        words.join(", ")
    }
}

/// The 99th of 100, with the median.
fn times(times: &Times) -> String {
    format!("{:.1} ms (p50 {:.1})", times.p99_ms, times.p50_ms)
}

/// What somebody did.
fn told(deeds: &Deeds) -> String {
    let Deeds { handshakes, sent, changes, bytes, ended } = deeds;
    let counts = [
        (handshakes, "handshakes"),
        (sent, "frames or pieces"),
        (changes, "changes"),
        (ended, "sessions ended"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| **count > 0);
    let mut told: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    if *bytes > 0 {
        told.push(format!("{:.1} MB", *bytes as f64 / 1e6));
    }
    told.join(", ")
}
