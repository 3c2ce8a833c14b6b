//! Charts as SVG that stands in a page: lines over a logarithmic scale of both axes.
//!
//! Colours and text follow the page, light or dark, through its style sheet; nothing is fetched.

use std::fmt::Write as _;

const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;

/// One line of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// What it is, for whoever points at it.
    pub(crate) name: String,
    /// Its colour: the class `lineN` of the page.
    pub(crate) colour: usize,
    /// Its points, both coordinates above 0.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart of lines; nothing where there is no point.
pub(crate) fn lines(title: &str, x: &str, lines: &[Line], label: fn(f64) -> String) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let positive = |figure: &f64| figure.is_finite() && *figure > 0.0;
    let xs = Axis::over(points().map(|point| point.0).filter(positive));
    let ys = Axis::over(points().map(|point| point.1).filter(positive));
    let (Some(xs), Some(ys)) = (xs, ys) else { return String::new() };
    let at = |point: (f64, f64)| {
        let across = LEFT + xs.share(point.0) * (WIDTH - LEFT - RIGHT);
        let down = HEIGHT - BOTTOM - ys.share(point.1) * (HEIGHT - TOP - BOTTOM);
        (across, down)
    };
    let mut svg = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{}\">",
        escape(title),
        escape(title)
    );
    grid(&mut svg, (&xs, x), (&ys, label), &at);
    for line in lines {
        draw(&mut svg, line, &at, label);
    }
    svg.push_str("</svg></figure>");
    svg
}

fn grid(
    svg: &mut String,
    (xs, x): (&Axis, &str),
    (ys, label): (&Axis, fn(f64) -> String),
    at: &impl Fn((f64, f64)) -> (f64, f64),
) {
    let (floor, end) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in ys.ticks() {
        let (_, y) = at((xs.from, tick));
        let text = label(tick);
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{end}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            y + 3.5
        );
    }
    for tick in xs.ticks() {
        let (across, _) = at((tick, ys.from));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{across:.1}\" y1=\"{TOP}\" x2=\"{across:.1}\" y2=\"{floor}\"/>\
             <text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            floor + 14.0,
            count(tick)
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(LEFT, end),
        HEIGHT - 4.0,
        escape(x)
    );
}

fn draw(
    svg: &mut String,
    line: &Line,
    at: &impl Fn((f64, f64)) -> (f64, f64),
    label: fn(f64) -> String,
) {
    let mut points: Vec<_> = line.points.iter().filter(|p| p.0 > 0.0 && p.1 > 0.0).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let path: Vec<_> = points.iter().map(|point| at(**point)).collect();
    let text: Vec<_> = path.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let colour = line.colour;
    let _ = write!(svg, "<g class=\"line{colour}\">");
    let _ = write!(svg, "<polyline points=\"{}\"/>", text.join(" "));
    for (point, (x, y)) in points.iter().zip(&path) {
        let said = format!("{}: {} at {}", line.name, label(point.1), count(point.0));
        let _ = write!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{}</title></circle>",
            escape(&said)
        );
    }
    svg.push_str("</g>");
}

/// A logarithmic axis over whole powers of ten.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn over(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut least, mut most) = (f64::INFINITY, 0.0f64);
        for figure in figures {
            (least, most) = (least.min(figure), most.max(figure));
        }
        if most <= 0.0 {
            return None;
        }
        let (mut from, to) = (least.log10().floor(), most.log10().ceil());
        if to <= from {
            from = to - 1.0;
        }
        Some(Self { from: 10f64.powf(from), to: 10f64.powf(to) })
    }

    fn share(&self, figure: f64) -> f64 {
        (figure / self.from).log10() / (self.to / self.from).log10()
    }

    fn ticks(&self) -> Vec<f64> {
        let decades = (self.to / self.from).log10().round();
        let step = if decades > 6.0 { 100.0 } else { 10.0 };
        let ticks = std::iter::successors(Some(self.from), |tick| Some(tick * step));
        ticks.take_while(|tick| *tick <= self.to * 1.01).collect()
    }
}

/// A number as people write it.
pub(crate) fn count(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{}M", n / 1e6),
        n if n >= 1e3 => format!("{}k", n / 1e3),
        n => format!("{n}"),
    }
}

/// Milliseconds as people write them.
pub(crate) fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 60_000.0 => format!("{:.1} min", ms / 60_000.0),
        ms if ms >= 1_000.0 => format!("{} s", three(ms / 1_000.0)),
        ms if ms >= 1.0 => format!("{} ms", three(ms)),
        ms => format!("{} µs", three(ms * 1_000.0)),
    }
}

/// Bytes as people write them.
pub(crate) fn size(bytes: f64) -> String {
    match bytes {
        n if n >= 1e9 => format!("{} GB", three(n / 1e9)),
        n if n >= 1e6 => format!("{} MB", three(n / 1e6)),
        n if n >= 1e3 => format!("{} KB", three(n / 1e3)),
        n => format!("{n:.0} B"),
    }
}

/// A number with three digits that count, without noughts at its end.
fn three(number: f64) -> String {
    let places = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{number:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Text that a page shows as it is.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_point_for_each_figure_and_none_for_what_was_not_measured() {
        let line = Line { name: "a<b".into(), colour: 1, points: vec![(1e3, 2.0), (1e4, 0.0)] };
        let svg = lines("time", "records", &[line], time);
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert_eq!(lines("time", "records", &[], time), "");
    }

    #[test]
    fn figures_are_written_with_their_unit() {
        assert_eq!(time(0.0123), "12.3 µs");
        assert_eq!(time(1_234.0), "1.23 s");
        assert_eq!(size(1_500.0), "1.5 KB");
        assert_eq!(size(100_000_000.0), "100 MB");
        assert_eq!(count(10_000.0), "10k");
    }
}
