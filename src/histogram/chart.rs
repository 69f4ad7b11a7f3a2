//! The picture itself: where everything stands, for any size and on any plotters backend.
//!
//! Sizes scale with the picture, but text never becomes smaller than can be read; what has no room
//! is shortened or left out instead, first the decoration, then every other label.

use plotters::coord::Shift;
use plotters::prelude::{ChartBuilder, DrawingArea, DrawingBackend, Rectangle};
use plotters::style::{Color, RGBColor, WHITE};
use plotters_backend::text_anchor::HPos;

use super::Series;
use super::numbers::{Ticks, grouped, short};
use super::text::{Label, Medium};

const INK: RGBColor = RGBColor(0x1f, 0x29, 0x33);
const MUTED: RGBColor = RGBColor(0x3e, 0x4c, 0x59);
const AXIS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const GRID: RGBColor = RGBColor(0xe4, 0xe7, 0xeb);
const BAR: RGBColor = RGBColor(0x4f, 0x86, 0xba);
const PEAK: RGBColor = RGBColor(0xb9, 0x4a, 0x13);

pub(super) type DrawError<DB> = plotters::drawing::DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>;

/// Lengths in pixels that follow from the picture's size.
struct Metrics {
    width: i32,
    height: i32,
    margin: i32,
    title_em: f32,
    label_em: f32,
}

impl Metrics {
    fn new((width, height): (u32, u32)) -> Self {
        let scale = (width as f32 / 1000.0).min(height as f32 / 500.0);
        let scaled = |px: f32, min: f32| (px * scale).max(min).round();
        Self {
            width: width as i32,
            height: height as i32,
            margin: scaled(20.0, 6.0) as i32,
            title_em: scaled(22.0, 13.0),
            label_em: scaled(13.0, 10.0),
        }
    }

    /// `ratio` label heights in whole pixels.
    fn label(&self, ratio: f32) -> i32 {
        (self.label_em * ratio).round() as i32
    }
}

/// Draws the day's 24 bars with all that explains them.
pub(super) fn draw<DB: DrawingBackend>(series: &Series, medium: Medium, backend: DB) -> Result<(), DrawError<DB>> {
    let size = backend.get_size();
    let root = DrawingArea::<DB, Shift>::from(backend);
    let chart = Chart { series, medium, metrics: Metrics::new(size), root };
    chart.root.fill(&WHITE)?;
    let header_bottom = chart.draw_header()?;
    chart.draw_plot(header_bottom)?;
    chart.root.present()
}

struct Chart<'a, DB: DrawingBackend> {
    series: &'a Series,
    medium: Medium,
    metrics: Metrics,
    root: DrawingArea<DB, Shift>,
}

impl<DB: DrawingBackend> Chart<'_, DB> {
    fn text(&self, text: &str, at: (i32, i32), align: HPos, em_px: f32, color: RGBColor) -> Result<(), DrawError<DB>> {
        self.root.draw(&Label { text, at, align, em_px, color })
    }

    fn rectangle(&self, corners: [(i32, i32); 2], color: RGBColor) -> Result<(), DrawError<DB>> {
        self.root.draw(&Rectangle::new(corners, color.filled()))
    }

    fn width(&self, text: &str, em_px: f32) -> i32 {
        self.medium.width(text, em_px).ceil() as i32
    }

    /// The name and the date on the left, the total on the right. Returns where the header ends.
    fn draw_header(&self) -> Result<i32, DrawError<DB>> {
        let Metrics { width, margin, title_em, label_em, .. } = self.metrics;
        let (left, right, gap) = (margin, width - margin, self.metrics.label(1.2));
        let title_y = margin + (title_em * 0.8) as i32;
        let caption_y = title_y + self.metrics.label(1.6);

        let total = u128::from(self.series.total());
        let total_text = match grouped(total) {
            exact if self.width(&exact, title_em) <= width / 3 => exact,
            _ => short(total),
        };
        let caption = "total";
        self.text(&total_text, (right, title_y), HPos::Right, title_em, INK)?;
        self.text(caption, (right, caption_y), HPos::Right, label_em, MUTED)?;

        let room = right - left - gap - self.width(&total_text, title_em);
        let name = self.medium.fit(self.series.event.as_str(), title_em, room as f32);
        self.text(&name, (left, title_y), HPos::Left, title_em, INK)?;

        let room = right - left - gap - self.width(caption, label_em);
        let date = self.series.day.date();
        let dates = ["%A, %-d %B %Y, UTC", "%-d %B %Y, UTC", "%Y-%m-%d UTC", "%Y-%m-%d"];
        let dates = dates.map(|format| date.format(format).to_string());
        let date = dates.iter().find(|text| self.width(text, label_em) <= room).unwrap_or(&dates[3]);
        self.text(date, (left, caption_y), HPos::Left, label_em, MUTED)?;

        if let Some(peak) = self.series.peak_hour() {
            let text = format!("peak at {peak:02}:00");
            let (mark, date_width) = (self.metrics.label(0.7), self.width(date, label_em));
            let x = left + date_width + 2 * gap;
            if date_width + 2 * gap + mark * 3 / 2 + self.width(&text, label_em) <= room {
                self.rectangle([(x, caption_y - mark), (x + mark, caption_y)], PEAK)?;
                self.text(&text, (x + mark * 3 / 2, caption_y), HPos::Left, label_em, MUTED)?;
            }
        }
        Ok(caption_y + self.metrics.label(0.6))
    }

    fn draw_plot(&self, header_bottom: i32) -> Result<(), DrawError<DB>> {
        let Metrics { width, height, margin, label_em, .. } = self.metrics;
        // Captions of the axes are decoration: small pictures have none.
        let has_captions = height >= 18 * self.metrics.label(1.0) && width >= 300;
        let bottom = height - margin - self.metrics.label(if has_captions { 2.9 } else { 1.3 });
        // Above the highest bar there is room for its value, and for the caption of the axis.
        let top = header_bottom + self.metrics.label(if has_captions { 3.0 } else { 1.4 });
        let ticks = Ticks::covering(
            self.series.counts.iter().copied().max().unwrap_or(0),
            ((bottom - top) / self.metrics.label(2.6)).clamp(1, 6).unsigned_abs(),
        );

        let tick_gap = self.metrics.label(0.5);
        let tick_labels: Vec<_> = ticks.values().map(|value| (value, ticks.label(value))).collect();
        let labels_width = tick_labels.iter().map(|(_, label)| self.width(label, label_em)).max().unwrap_or(0);
        let axis_x = margin + labels_width + tick_gap;
        // All hours are equally many pixels wide; what remains is shared by both sides.
        let slot = ((width - margin - axis_x) / 24).max(3);
        let left = axis_x + (width - margin - axis_x - slot * 24).max(0) / 2;
        let right = left + slot * 24;

        let mut chart = ChartBuilder::on(&self.root)
            .margin_left(left)
            .margin_right((width - right).max(0))
            .margin_top(top)
            .margin_bottom(height - bottom)
            .build_cartesian_2d(0.0..24.0, 0.0..ticks.top() as f64)?;

        for (value, label) in &tick_labels {
            let (_, y) = chart.backend_coord(&(0.0, *value as f64));
            let color = if *value == 0 { AXIS } else { GRID };
            self.rectangle([(axis_x, y), (width - margin, y + 1)], color)?;
            let at = (axis_x - tick_gap, y + self.metrics.label(0.35));
            self.text(label, at, HPos::Right, label_em, MUTED)?;
        }

        let peak = self.series.peak_hour();
        let gap = (slot / 6).max(1);
        // A count that is not zero is seen, however small it is beside the others.
        let visible_min = 1.5 * ticks.top() as f64 / f64::from(bottom - top);
        chart.draw_series(self.series.counts.iter().enumerate().map(|(hour, count)| {
            let value = if *count == 0 { 0.0 } else { (*count as f64).max(visible_min) };
            let color = if peak == Some(hour) { PEAK } else { BAR };
            let mut bar = Rectangle::new([(hour as f64, value), (hour as f64 + 1.0, 0.0)], color.filled());
            bar.set_margin(0, 0, gap.div_euclid(2).unsigned_abs(), (gap - gap / 2).unsigned_abs());
            bar
        }))?;

        let middle = |hour: usize| left + slot * hour as i32 + slot / 2;
        let value_em = self.metrics.label_em * 0.92;
        for (hour, text) in self.value_labels(slot, value_em) {
            let (_, y) = chart.backend_coord(&(0.0, self.series.counts[hour] as f64));
            let half = self.width(&text, value_em) / 2;
            let x = middle(hour).clamp(axis_x + half, (width - half - 1).max(axis_x + half));
            let color = if peak == Some(hour) { PEAK } else { INK };
            // A grid line must not cross the digits.
            self.rectangle([(x - half, y - self.metrics.label(1.1)), (x + half, y - 1)], WHITE)?;
            self.text(&text, (x, y - self.metrics.label(0.35)), HPos::Center, value_em, color)?;
        }

        let hour_width = self.width("00", label_em) + self.metrics.label(0.5);
        let every = [1, 2, 3, 6].into_iter().find(|every| slot * every >= hour_width).unwrap_or(12);
        for hour in (0..24).step_by(every.unsigned_abs() as usize) {
            let at = (middle(hour), bottom + self.metrics.label(1.25));
            self.text(&format!("{hour:02}"), at, HPos::Center, label_em, MUTED)?;
        }

        if has_captions {
            let at = (margin, top - self.metrics.label(1.3));
            self.text("counts per hour", at, HPos::Left, label_em, MUTED)?;
            let at = ((left + right) / 2, bottom + self.metrics.label(2.8));
            self.text("hour of the day, UTC", at, HPos::Center, label_em, MUTED)?;
        }
        if self.series.total() == 0 {
            let em = (self.metrics.label_em + self.metrics.title_em) / 2.0;
            let at = ((left + right) / 2, (top + bottom) / 2 + (em * 0.35) as i32);
            self.text("no counts on this day", at, HPos::Center, em, MUTED)?;
        }
        Ok(())
    }

    /// The values over the bars: all of them, if need be shortened, where all have room; else only
    /// the peak's, which has nothing beside it at its height.
    fn value_labels(&self, slot: i32, em_px: f32) -> Vec<(usize, String)> {
        let counted = || self.series.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        for write in [grouped, short] {
            let labels: Vec<_> = counted().map(|(hour, count)| (hour, write(u128::from(*count)))).collect();
            if labels.iter().all(|(_, label)| self.width(label, em_px) + 2 <= slot) {
                return labels;
            }
        }
        let Some(peak) = self.series.peak_hour() else { return Vec::new() };
        let count = u128::from(self.series.counts[peak]);
        vec![(peak, if count < 1_000_000 { grouped(count) } else { short(count) })]
    }
}
