//! What the command prints. Names come from files that someone else may have made, so nothing in them speaks to the terminal.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

/// Prints a line. A reader that has gone away (`cipherlens plan ... | head`) ends the program quietly.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{}", silent(text)).and_then(|()| out.flush()) {
        let broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        if !broken_pipe {
            tell!("cannot write to standard output: {error}");
        }
        std::process::exit(if broken_pipe { 0 } else { super::failure::Class::Resources as i32 });
    }
}

/// Prints a line on standard error. Where that is full or closed, nobody reads it, and the work goes on.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", silent(text));
}

/// The text with every control character but the ends of lines written out.
fn silent(text: fmt::Arguments<'_>) -> String {
    let text = text.to_string();
    let speaks = |c: char| c.is_control() && c != '\n';
    if !text.contains(speaks) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut all, c| {
        if speaks(c) {
            all.extend(c.escape_unicode())
        } else {
            all.push(c)
        }
        all
    })
}

/// `eprintln!` that does not panic.
macro_rules! tell {
    ($($arg:tt)*) => { $crate::output::note(format_args!($($arg)*)) };
}
pub(crate) use tell;

/// `println!` that does not panic.
macro_rules! say {
    () => { $crate::output::line(format_args!("")) };
    ($($arg:tt)*) => { $crate::output::line(format_args!($($arg)*)) };
}
pub(crate) use say;

/// A column's alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table of text, columns as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new<const C: usize>(columns: [(&str, Align); C]) -> Self {
        Self { columns: columns.iter().map(|(name, align)| (name.to_string(), *align)).collect(), rows: Vec::new() }
    }
    /// Adds a row.
    pub(crate) fn row<const C: usize>(&mut self, cells: [String; C]) {
        self.rows.push(cells.into());
    }
    /// Adds a line between rows.
    pub(crate) fn rule(&mut self) {
        self.rows.push(Vec::new());
    }
    /// The lines, heading first.
    pub(crate) fn render(&self) -> Vec<String> {
        let width = |c: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count());
            cells.chain([self.columns[c].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let render = |cells: &[String]| {
            let mut text = String::new();
            for ((cell, (_, align)), width) in cells.iter().zip(&self.columns).zip(&widths) {
                let separator = if text.is_empty() { "" } else { "  " };
                let _ = match align {
                    Align::Left => write!(text, "{separator}{cell:<width$}"),
                    Align::Right => write!(text, "{separator}{cell:>width$}"),
                };
            }
            text.trim_end().to_string()
        };
        let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1));
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let mut lines = vec![render(&heading), rule.clone()];
        lines.extend(self.rows.iter().map(|row| if row.is_empty() { rule.clone() } else { render(row) }));
        lines
    }
    /// Prints it, indented.
    pub(crate) fn print(&self, indent: &str) {
        for text in self.render() {
            say!("{indent}{text}");
        }
    }
}

/// Bytes in a unit a person reads: `1.9 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Seconds in a form a person reads: `0.42 s`, `3.1 s`, `2 min 05 s`.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if !v.is_finite() => "?".into(),
        v if v < 0.0995 => format!("{:.1} ms", v * 1e3),
        v if v < 9.95 => format!("{v:.2} s"),
        v if v < 119.5 => format!("{v:.1} s"),
        v => format!("{} min {:02} s", (v.round() as u64) / 60, (v.round() as u64) % 60),
    }
}

/// A whole number with thin groups of three: `1,234,567`.
pub(crate) fn grouped(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// How many there are of a thing, in the singular where it is one: `1 picture`, `1,200 pictures`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_columns() {
        let mut table = Table::new([("layer", Align::Left), ("rotations", Align::Right)]);
        table.row(["conv1".into(), "12".into()]);
        table.rule();
        table.row(["all".into(), "1234567890".into()]);
        let lines = table.render();
        assert_eq!(lines[0], "layer   rotations");
        assert_eq!(lines[2], "conv1          12");
        assert_eq!(lines[4], "all    1234567890");
        assert_eq!(lines[1], lines[3]);
    }

    #[test]
    fn units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(seconds(0.0004), "0.4 ms");
        assert_eq!(seconds(125.0), "2 min 05 s");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
        assert_eq!(counted(1, "fit"), "1 fit");
        assert_eq!([0, 1200].map(|n| counted(n, "fit")), ["0 fits", "1,200 fits"]);
    }
}
