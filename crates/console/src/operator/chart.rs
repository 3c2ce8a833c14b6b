//! Charts: lines over time as SVG, rendered here. What stands on the axes is text beside the picture, so
//! that it has its size on any screen; every chart has its numbers in a table as well.

use std::fmt::Write as _;

/// The size of the picture in its own units: it is stretched to the place that it has.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 160.0;
/// Rows of the table below a chart.
const ROWS: usize = 10;

/// What is drawn: a line for each series, over one span of time.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// Names it on the page.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What its numbers are.
    pub(super) unit: &'static str,
    pub(super) lines: Vec<Line>,
    /// What the upper edge stands for, and the middle.
    pub(super) top: String,
    pub(super) middle: String,
    /// The times of the table, and what each line says then.
    pub(super) rows: Vec<(i64, Vec<String>)>,
}

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// What it says at last.
    pub(super) newest: String,
    /// The path, empty while there are fewer than two points.
    pub(super) path: String,
    /// The same closed along the lower edge, of the first line where it is alone.
    pub(super) area: String,
}

/// Numbers over time: milliseconds UTC, and a number where there is one.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(i64, Option<f64>)>,
}

impl Chart {
    /// Draws series over so many milliseconds until `now`.
    pub(super) fn of(
        (id, title, unit): (&'static str, &'static str, &'static str),
        series: &[Series],
        (now, length): (i64, i64),
    ) -> Self {
        let all = series.iter().flat_map(|one| &one.points).filter_map(|(_, value)| *value);
        let top = roof(all.fold(0.0, f64::max));
        let place = |(time, value): (i64, f64)| {
            let x = WIDTH * (1.0 - (now - time) as f64 / length as f64);
            (x.clamp(0.0, WIDTH), HEIGHT * (1.0 - value / top))
        };
        let lines = series.iter().map(|one| {
            let newest = one.points.last().and_then(|(_, value)| *value);
            let places = one.points.iter().map(|(time, value)| Some(place((*time, (*value)?))));
            let places: Vec<_> = places.collect();
            let area = if series.len() == 1 { area(&places) } else { String::new() };
            Line { name: one.name.clone(), newest: number(newest), path: path(&places), area }
        });
        Self {
            id,
            title,
            unit,
            lines: lines.collect(),
            top: number(Some(top)),
            middle: number(Some(top / 2.0)),
            rows: rows(series),
        }
    }

    /// Whether there is nothing to draw yet.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.path.is_empty())
    }

    /// What the picture shows, in a sentence.
    pub(super) fn sentence(&self) -> String {
        let newest = self.lines.iter().map(|line| format!("{} {}", line.name, line.newest));
        let newest: Vec<_> = newest.collect();
        format!("{}, {}: {}", self.title, self.unit, newest.join(", "))
    }
}

/// The rows of the table, the newest first and spread over the span.
fn rows(series: &[Series]) -> Vec<(i64, Vec<String>)> {
    let Some(longest) = series.iter().max_by_key(|one| one.points.len()) else { return Vec::new() };
    let step = longest.points.len().div_ceil(ROWS).max(1);
    let times = longest.points.iter().rev().step_by(step).map(|(time, _)| *time);
    let at = |one: &Series, time| {
        number(one.points.iter().find(|(of, _)| *of == time).and_then(|(_, value)| *value))
    };
    times.map(|time| (time, series.iter().map(|one| at(one, time)).collect())).collect()
}

/// A path through places, with a gap where there is none.
fn path(places: &[Option<(f64, f64)>]) -> String {
    let mut path = String::new();
    let mut gap = true;
    for place in places {
        let Some((x, y)) = place else {
            gap = true;
            continue;
        };
        let step = if gap { 'M' } else { 'L' };
        write!(path, "{step}{x:.1} {y:.1}").expect("writing into memory cannot fail");
        gap = false;
    }
    if path.contains('L') { path } else { String::new() }
}

/// The same closed along the lower edge, if nothing is missing.
fn area(places: &[Option<(f64, f64)>]) -> String {
    let whole: Option<Vec<_>> = places.iter().copied().collect();
    let Some((first, last)) = whole.as_ref().and_then(|all| Some((all.first()?, all.last()?)))
    else {
        return String::new();
    };
    let line = path(places);
    if line.is_empty() {
        return line;
    }
    format!("{line}L{:.1} {HEIGHT:.1}L{:.1} {HEIGHT:.1}Z", last.0, first.0)
}

/// The next round number: one, two or five and zeros. It moves seldom, and the lines with it.
fn roof(most: f64) -> f64 {
    if most <= 1.0 {
        return 1.0;
    }
    let magnitude = 10f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude);
    steps.into_iter().find(|step| *step >= most).unwrap_or(most)
}

/// A number as it is read: with a digit behind the point where it is small.
pub(super) fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value < 10.0 && value.fract() > 0.0 => format!("{value:.1}"),
        Some(value) => crate::words::count(&(value.round() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[Option<f64>]) -> Series {
        let points = values.iter().enumerate().map(|(nth, value)| (nth as i64 * 100, *value));
        Series { name: "held".into(), points: points.collect() }
    }

    fn drawn(values: &[Option<f64>]) -> Chart {
        let now = (values.len() as i64 - 1) * 100;
        Chart::of(("c", "Held", "records"), &[series(values)], (now, 200))
    }

    #[test]
    fn a_line_ends_at_the_right_edge_and_has_its_highest_point_below_the_roof() {
        let chart = drawn(&[Some(0.0), Some(10.0), Some(20.0)]);
        assert_eq!((&*chart.top, &*chart.middle), ("20", "10"));
        assert_eq!(chart.lines[0].path, "M0.0 160.0L300.0 80.0L600.0 0.0");
        assert_eq!(chart.lines[0].area, "M0.0 160.0L300.0 80.0L600.0 0.0L600.0 160.0L0.0 160.0Z");
        assert_eq!(chart.sentence(), "Held, records: held 20");
        assert_eq!(chart.rows.len(), 3);
        assert_eq!(chart.rows[0], (200, vec!["20".to_owned()]), "the newest first");
    }

    #[test]
    fn what_is_missing_is_a_gap_and_one_point_is_no_line() {
        let chart = drawn(&[Some(1.0), Some(1.0), None, Some(1.0), Some(1.0)]);
        assert_eq!(chart.lines[0].path.matches('M').count(), 2);
        assert_eq!(chart.lines[0].area, "");
        assert!(drawn(&[Some(3.0)]).is_empty() && drawn(&[]).is_empty());
        assert_eq!(drawn(&[None, None]).lines[0].newest, "–");
    }

    #[test]
    fn roofs_are_round() {
        let roofs = [0.0, 0.4, 1.2, 3.0, 7.0, 99.0, 100.0, 101.0].map(roof);
        assert_eq!(roofs, [1.0, 1.0, 2.0, 5.0, 10.0, 100.0, 100.0, 200.0]);
        assert_eq!([1.25, 12.4, 1_200.0].map(|value| number(Some(value))), ["1.2", "12", "1,200"]);
    }
}
