//! Charts as SVG, drawn here so that they need no script. Every one is followed by its numbers as a
//! table, which screen readers read and the script takes its hover texts from.
//!
//! Positions are percentages, so a chart fits any width with its text at reading size; the policy
//! against inline styles leaves only attributes and classes.

use std::fmt::Write as _;
use std::ops::Range;

use askama::Template;
use chrono::{Datelike, NaiveDate, TimeDelta, Timelike};

use super::view::grouped;
use super::zone::Zone;
use crate::domain::{Hour, HourRange};
use crate::histogram::numbers::Ticks;

/// One column: an hour, a day or a month.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// In words, for the table and the pointer.
    pub(super) label: String,
    /// Below the axis.
    pub(super) tick: String,
    /// A tick that narrow screens leave out.
    pub(super) spare: bool,
    pub(super) range: HourRange,
    /// The local days it begins and ends on.
    pub(super) days: (NaiveDate, NaiveDate),
    pub(super) value: u64,
    pub(super) before: Option<u64>,
    /// Not over yet: it will grow.
    pub(super) so_far: bool,
}

#[derive(Template, Debug)]
#[template(path = "chart.html", config = "src/admin/askama.toml")]
pub(super) struct Chart {
    pub(super) id: &'static str,
    /// What it shows, in words.
    pub(super) description: String,
    pub(super) columns: Vec<Column>,
    /// What `before` is called; empty without a comparison.
    pub(super) before: &'static str,
    /// Whether dragging leads to a shorter range.
    pub(super) zoom: bool,
}

/// More columns are drawn as an area.
const BARS_MAX: usize = 48;
const TICKS_MAX: usize = 12;
const Y_STEPS_MAX: u32 = 5;
/// Longest range shown by hour, and by day.
const HOURS_MAX: u32 = 8 * 24;
const DAYS_MAX: u32 = 370 * 24;

/// Cuts a range into hours, local days or local months, whichever gives a readable number of columns.
/// The one that holds the hour `now` is not over yet.
pub(super) fn columns(range: HourRange, counts: &[u64], before: Option<&[u64]>, zone: Zone, now: Hour) -> Vec<Column> {
    let length = range.last.number() - range.first.number() + 1;
    let key = |hour: Hour| -> i64 {
        let day = zone.day_of(hour);
        match length {
            length if length <= HOURS_MAX => i64::from(hour.number()),
            length if length <= DAYS_MAX => i64::from(day.num_days_from_ce()),
            _ => i64::from(day.year()) * 12 + i64::from(day.month0()),
        }
    };
    let mut columns: Vec<Column> = Vec::new();
    let mut last_key = None;
    for (index, hour) in (0..i64::from(length)).map(|hours| range.first.plus(hours)).enumerate() {
        let value = counts.get(index).copied().unwrap_or(0);
        let before = before.map(|before| before.get(index).copied().unwrap_or(0));
        let key = key(hour);
        match columns.last_mut() {
            Some(column) if last_key == Some(key) => {
                column.value = column.value.saturating_add(value);
                column.before = column.before.zip(before).map(|(sum, more)| sum.saturating_add(more));
                column.range.last = hour;
                column.days.1 = zone.day_of(hour);
            }
            _ => {
                let (label, tick) = names(hour, length, zone);
                let range = HourRange { first: hour, last: hour };
                let day = zone.day_of(hour);
                columns.push(Column {
                    label,
                    tick,
                    spare: false,
                    range,
                    days: (day, day),
                    value,
                    before,
                    so_far: false,
                });
            }
        }
        last_key = Some(key);
    }
    if let Some(column) = columns.iter_mut().find(|column| column.range.contains(now)) {
        column.so_far = true;
        column.label.push_str(", so far");
    }
    thin_out(&mut columns, length);
    columns
}

fn names(hour: Hour, length: u32, zone: Zone) -> (String, String) {
    let (label, tick) = match length {
        length if length <= 30 => ("%a %-d %b, %H:%M", "%H:%M"),
        length if length <= HOURS_MAX => ("%a %-d %b, %H:%M", "%a %-d"),
        length if length <= DAYS_MAX => ("%a %-d %b %Y", "%-d %b"),
        _ => ("%B %Y", "%b %Y"),
    };
    let label =
        if length <= HOURS_MAX { zone.label(hour, label) } else { zone.local(hour.start()).format(label).to_string() };
    (label, zone.local(hour.start()).format(tick).to_string())
}

/// Keeps as many ticks as can be read.
fn thin_out(columns: &mut [Column], length: u32) {
    let by_day_in_hours = (31..=HOURS_MAX).contains(&length);
    if by_day_in_hours {
        // A tick where a day begins.
        let mut last = String::new();
        for column in columns {
            if column.tick == last { column.tick.clear() } else { last.clone_from(&column.tick) }
        }
        return;
    }
    let every = columns.len().div_ceil(TICKS_MAX).max(1);
    for (index, column) in columns.iter_mut().enumerate() {
        if index % every != 0 {
            column.tick.clear();
        }
        column.spare = (index / every) % 2 == 1;
    }
}

impl Chart {
    fn ticks(&self) -> Ticks {
        let values = self.columns.iter().flat_map(|column| [Some(column.value), column.before]).flatten();
        Ticks::covering(values.max().unwrap_or(0), Y_STEPS_MAX)
    }

    fn is_empty(&self) -> bool {
        self.columns.iter().all(|column| column.value == 0 && column.before.unwrap_or(0) == 0)
    }

    fn has_bars(&self) -> bool {
        self.columns.len() <= BARS_MAX
    }

    fn has_so_far(&self) -> bool {
        self.columns.iter().any(|column| column.so_far && column.value > 0)
    }

    fn has_key(&self) -> bool {
        self.has_so_far() || !self.before.is_empty()
    }

    /// From the top down.
    fn y_labels(&self) -> Vec<String> {
        let ticks = self.ticks();
        let mut labels: Vec<_> = ticks.values().map(|value| ticks.label(value)).collect();
        labels.reverse();
        labels
    }

    fn rows(&self) -> Vec<(&Column, String, Option<String>)> {
        let rows = self.columns.iter();
        rows.map(|column| (column, grouped(column.value), column.before.map(grouped))).collect()
    }

    /// Only digits and fixed words go in, so nothing needs escaping.
    fn drawing(&self) -> String {
        let ticks = self.ticks();
        let mut svg = String::with_capacity(8 * 1024);
        for step in 0..=ticks.steps {
            let y = percent(step, ticks.steps);
            // Writing into a String cannot fail.
            let _ = write!(svg, r#"<line class="grid" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>"#);
        }
        if self.has_bars() {
            self.draw_bars(&mut svg, ticks.top())
        } else {
            self.draw_area(&mut svg, ticks.top())
        }
        svg
    }

    fn draw_bars(&self, svg: &mut String, top: u128) {
        let n = self.columns.len().max(1) as u128;
        for (index, column) in (0_u128..).zip(&self.columns) {
            // Hundredths of a column.
            let at = |hundredths: u128| percent(index * 100 + hundredths, n * 100);
            let mut bar = |class: &str, value: u64, left: u128, width: u128| {
                if value > 0 {
                    let (x, width) = (at(left), percent(width, n * 100));
                    let (y, height) = (percent(top - u128::from(value), top), percent(u128::from(value), top));
                    let _ = write!(
                        svg,
                        r#"<rect class="{class}" x="{x}%" y="{y}%" width="{width}%" height="{height}%" rx="2"/>"#
                    );
                }
            };
            let class = if column.so_far { "bar so-far" } else { "bar" };
            match column.before {
                None => bar(class, column.value, 18, 64),
                Some(before) => {
                    bar("before", before, 10, 36);
                    bar(class, column.value, 50, 40);
                }
            }
        }
    }

    fn draw_area(&self, svg: &mut String, top: u128) {
        svg.push_str(r#"<svg viewBox="0 0 1000 1000" preserveAspectRatio="none">"#);
        if !self.before.is_empty() {
            let before: Vec<u64> = self.columns.iter().map(|column| column.before.unwrap_or(0)).collect();
            let _ = write!(svg, r#"<path class="before-line" d="{}"/>"#, line(&before, 0..before.len(), top));
        }
        let values: Vec<u64> = self.columns.iter().map(|column| column.value).collect();
        let n = values.len().max(1);
        // A line to what is not over yet would fall every time: that is a dot.
        let over = self.columns.iter().position(|column| column.so_far).unwrap_or(n);
        let path = line(&values, 0..over, top);
        if over > 0 {
            let (first, last) = (500 / n, (over * 1000 - 500) / n);
            let _ = write!(svg, r#"<path class="area" d="{path}L{last} 1000L{first} 1000Z"/>"#);
        }
        let _ = write!(svg, r#"<path class="line" d="{path}"/>"#);
        if over < n {
            let _ = write!(svg, r#"<path class="line so-far" d="{}h0"/>"#, line(&values, over..over + 1, top));
        }
        svg.push_str("</svg>");
    }
}

/// A path through the middles of the columns `part`, in a square of 1000 that holds all.
fn line(values: &[u64], part: Range<usize>, top: u128) -> String {
    let mut path = String::new();
    let n = values.len().max(1);
    for (index, value) in values.iter().enumerate().take(part.end).skip(part.start) {
        let (x, y) = ((index * 1000 + 500) / n, 1000 - u128::from(*value) * 1000 / top.max(1));
        let _ = write!(path, "{}{x} {y}", if index == part.start { 'M' } else { 'L' });
    }
    path
}

/// A small line without axes through hours that are over; `None` where there is nothing to draw.
/// Points are of equal length and end with the last hour.
pub(super) fn sparkline(hours: &[u64]) -> Option<String> {
    const POINTS_MAX: usize = 90;
    // Parts of a day or whole ones, or the hours of the day would beat against the points.
    let per_point = [1, 4, 24].into_iter().find(|length| hours.len() / length <= POINTS_MAX).unwrap_or(hours.len());
    let mut points: Vec<u64> = hours.rchunks_exact(per_point).map(|chunk| chunk.iter().sum()).collect();
    points.reverse();
    let top = points.iter().copied().max().filter(|top| *top > 0)?;
    let path = line(&points, 0..points.len(), u128::from(top));
    Some(format!(
        r#"<svg class="spark" viewBox="0 -60 1000 1120" preserveAspectRatio="none" aria-hidden="true"><path d="{path}"/></svg>"#
    ))
}

/// `part` of `whole` with two decimals.
fn percent(part: u128, whole: u128) -> String {
    let hundredths = part.saturating_mul(10_000) / whole.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Counts by weekday (from Monday) and hour, as a table with a shade a cell.
#[derive(Template, Debug)]
#[template(path = "heat.html", config = "src/admin/askama.toml")]
pub(super) struct Heat {
    counts: [[u64; 24]; 7],
}

const SHADES: u128 = 8;
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl Heat {
    pub(super) fn new(range: HourRange, counts: &[u64], zone: Zone) -> Self {
        let mut sums = [[0_u64; 24]; 7];
        for (hour, count) in (0..).map(|hours| range.first.plus(hours)).zip(counts) {
            let (hour, weekday) = zone.hour_and_weekday(hour);
            sums[weekday][hour] = sums[weekday][hour].saturating_add(*count);
        }
        Self { counts: sums }
    }

    /// For each weekday its name and cells of shade (0 to 8) and number.
    fn rows(&self) -> Vec<(&'static str, Vec<(u128, String)>)> {
        let top = self.counts.iter().flatten().copied().max().unwrap_or(0);
        let cell = |count: &u64| ((u128::from(*count) * SHADES).div_ceil(u128::from(top.max(1))), grouped(*count));
        WEEKDAYS.into_iter().zip(&self.counts).map(|(name, day)| (name, day.iter().map(cell).collect())).collect()
    }
}

/// The first and the last day of a range, as the viewer sees it.
pub(super) fn days_of(range: HourRange, zone: Zone) -> (NaiveDate, NaiveDate) {
    (zone.day_of(range.first), zone.day_of(range.last))
}

/// From the first hour of `days - 1` days ago through the current hour.
pub(super) fn last_days(days: i64, now: Hour, zone: Zone) -> HourRange {
    let first_day = zone.day_of(now) - TimeDelta::days(days - 1);
    HourRange { first: zone.hours_of(first_day).first.min(now), last: now }
}

/// The same hours earlier: by as many whole days as the range touches, so that hours of the day stand
/// against each other.
pub(super) fn before(range: HourRange) -> HourRange {
    let length = range.last.number() - range.first.number() + 1;
    let hours = i64::from(length.div_ceil(24) * 24);
    HourRange { first: range.first.plus(-hours), last: range.last.plus(-hours) }
}

/// How much of the current hour has passed, in seconds; at least one.
pub(super) fn seconds_into_hour(now: chrono::DateTime<chrono::Utc>) -> u64 {
    u64::from(now.minute() * 60 + now.second()).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn range(first: &str, last: &str) -> HourRange {
        HourRange::parse(Some(first), Some(last)).unwrap()
    }

    fn cut(first: &str, last: &str, zone: &str) -> Vec<Column> {
        let range = range(first, last);
        let counts = vec![1; (range.last.number() - range.first.number()) as usize + 1];
        columns(range, &counts, Some(&counts), Zone::parse(zone).unwrap(), range.last.plus(1))
    }

    #[test]
    fn ranges_are_cut_into_hours_then_days_then_months_and_nothing_is_lost() {
        for (first, last, length) in [
            ("2024050100", "2024050123", 24),
            ("20240501", "20240507", 168),
            ("20240501", "20240530", 30),
            ("20230101", "20231231", 365),
            ("20200101", "20241231", 60),
        ] {
            let columns = cut(first, last, "UTC");
            assert_eq!(columns.len(), length, "{first} to {last}");
            let hours = range(first, last).last.number() - range(first, last).first.number() + 1;
            assert_eq!(columns.iter().map(|column| column.value).sum::<u64>(), u64::from(hours));
            assert!(columns.iter().all(|column| column.before == Some(column.value)));
        }
    }

    #[test]
    fn days_are_the_viewers_days() {
        let columns = cut("2024033100", "2024041023", "Europe/Berlin");
        assert_eq!(columns[0].value, 22, "from 02:00, and clocks skip an hour");
        assert_eq!(columns[1].value, 24);
        assert_eq!(columns[1].label, "Mon 1 Apr 2024");
    }

    #[test]
    fn a_chart_of_any_size_stays_within_its_frame() {
        for value in [0, 1, 999, u64::MAX / 2] {
            let mut columns = cut("2024050100", "2024050123", "UTC");
            columns[3].value = value;
            let chart = Chart { id: "x", description: String::new(), columns, before: "before", zoom: false };
            let drawing = chart.drawing();
            assert!(!drawing.contains("-"), "{drawing}");
            assert!(!drawing.contains("101."), "{drawing}");
            assert_eq!(chart.y_labels().last().map(String::as_str), Some("0"));
        }
    }

    #[test]
    fn what_is_not_over_yet_is_drawn_apart_and_said_to_be() {
        let now = range("2024050123", "2024050123").first;
        for (first, last, class) in
            [("2024050100", "2024050123", "bar so-far"), ("2024010100", "2024050123", "line so-far")]
        {
            let range = range(first, last);
            let counts = vec![1; (range.last.number() - range.first.number()) as usize + 1];
            let columns = columns(range, &counts, None, Zone::default(), now);
            assert!(columns.last().unwrap().label.ends_with(", so far"));
            assert_eq!(columns.iter().filter(|column| column.so_far).count(), 1);
            let chart = Chart { id: "x", description: String::new(), columns, before: "", zoom: false };
            assert_eq!(chart.drawing().matches(class).count(), 1);
            assert!(chart.render().unwrap().contains("</svg> so far</span>"));
            if let Some((_, line)) = chart.drawing().split_once("class=\"line\" d=\"") {
                let points = line.split('"').next().unwrap().matches(['M', 'L']).count();
                assert_eq!(points, chart.columns.len() - 1, "the line ends before it");
            }
        }
    }

    #[test]
    fn a_sparkline_has_points_of_equal_length_that_end_with_the_last_hour() {
        let path = |hours: &[u64]| {
            let drawing = sparkline(hours).unwrap();
            drawing.split_once("d=\"").unwrap().1.split('"').next().unwrap().to_owned()
        };
        assert_eq!(path(&[1, 2]), "M250 500L750 0");
        assert_eq!(path(&[1; 24]).matches(['M', 'L']).count(), 24);
        // A flat week stays flat although 167 hours are no whole number of points.
        let week = path(&[3; 167]);
        assert_eq!((week.matches(['M', 'L']).count(), week.matches(" 0").count()), (41, 41));
        assert_eq!(sparkline(&[0; 24]), None);
        assert_eq!(sparkline(&[]), None);
    }

    #[test]
    fn the_heat_map_is_darkest_where_most_happens_and_empty_where_nothing_does() {
        let range = range("20240506", "20240512");
        let mut counts = vec![0; 168];
        (counts[0], counts[30], counts[167]) = (1, 50, 400);
        let rows = Heat::new(range, &counts, Zone::default()).rows();
        assert_eq!(rows[0].1[0], (1, "1".into()));
        assert_eq!(rows[1].1[6], (1, "50".into()));
        assert_eq!(rows[6].1[23], (8, "400".into()));
        assert_eq!(rows[3].1[3], (0, "0".into()));
    }
}
