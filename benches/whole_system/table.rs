//! The table: what was measured, beside what was promised.

use std::fmt;

/// What a figure is held against.
pub(crate) enum Target {
    /// It is to be no higher.
    AtMost(f64, &'static str),
    /// It is to be no lower.
    AtLeast(f64, &'static str),
    /// It is only told.
    None,
}

/// The rows so far. Each is printed when it comes, too.
#[derive(Default)]
pub(crate) struct Table(Vec<[String; 5]>);

impl Table {
    /// Adds a row: the figure that counts, its target, and how it came about.
    pub(crate) fn row(&mut self, what: &str, figure: f64, target: Target, how: String) {
        let (unit, wanted, met) = match target {
            Target::AtMost(most, unit) => (unit, format!("≤ {most} {unit}"), Some(figure <= most)),
            Target::AtLeast(least, unit) => {
                (unit, format!("≥ {least} {unit}"), Some(figure >= least))
            }
            Target::None => ("", "–".to_owned(), None),
        };
        let met = met.map_or("", |met| if met { "yes" } else { "**no**" });
        let figure = format!("{} {unit}", rounded(figure));
        let row = [what.to_owned(), figure, wanted, met.to_owned(), how];
        println!("{}", row.join(" | "));
        self.0.push(row);
    }
}

/// Three significant figures.
fn rounded(figure: f64) -> String {
    if figure.abs() >= 100.0 {
        format!("{figure:.0}")
    } else if figure.abs() >= 10.0 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.2}")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | measured | target | met | how |\n|---|---|---|---|---|")?;
        for row in &self.0 {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}
