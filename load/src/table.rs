//! Numbers and tables for people.

/// Rows of text in aligned columns; the first row is the head, and the first column is left-aligned.
#[must_use]
pub fn plain(rows: &[Vec<String>]) -> String {
    aligned(rows, |cells, _| format!("  {}\n", cells.join("  ").trim_end()))
}

/// The same as a Markdown table.
#[must_use]
pub fn markdown(rows: &[Vec<String>]) -> String {
    aligned(rows, |cells, is_head| {
        let line = format!("| {} |\n", cells.join(" | "));
        if !is_head {
            return line;
        }
        let rule = |(column, cell): (usize, &String)| {
            let dashes = "-".repeat(cell.chars().count());
            if column == 0 { format!("|{dashes}--") } else { format!("|{dashes}-:") }
        };
        format!("{line}{}|\n", cells.iter().enumerate().map(rule).collect::<String>())
    })
}

fn aligned(rows: &[Vec<String>], line: impl Fn(&[String], bool) -> String) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let pad = |(column, cell): (usize, &String)| {
        let width = widths[column];
        if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    let cells = |row: &Vec<String>| row.iter().enumerate().map(pad).collect::<Vec<_>>();
    rows.iter().enumerate().map(|(index, row)| line(&cells(row), index == 0)).collect()
}

/// 1234567.8 as `1,234,568`; small numbers keep a decimal.
#[must_use]
pub fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    integer(value.round().max(0.0) as u64)
}

/// 1234567 as `1,234,567`.
#[must_use]
pub fn integer(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A duration in microseconds in the unit that suits it.
#[must_use]
pub fn duration(us: f64) -> String {
    match us {
        us if us < 1.0 => format!("{:.0} ns", us * 1e3),
        us if us < 100.0 => format!("{us:.1} µs"),
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 100_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// 0.256 as `26 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Bytes in the unit that suits them.
#[must_use]
pub fn bytes(count: u64) -> String {
    match count as f64 {
        count if count < 1e3 => format!("{count} B"),
        count if count < 1e6 => format!("{:.1} kB", count / 1e3),
        count if count < 1e9 => format!("{:.1} MB", count / 1e6),
        count => format!("{:.2} GB", count / 1e9),
    }
}
