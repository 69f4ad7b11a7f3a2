//! A report as a picture: latency by percentile, and over time. SVG and PNG.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::report::{PhaseReport, Report};

const SIZE: (u32, u32) = (1200, 900);
const INK: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Told apart by people with any colour vision (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Draws `report` into `folder` as `NAME.svg` and `NAME.png`.
///
/// # Errors
/// If the folder can't be written.
pub fn draw(report: &Report, folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
    std::fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
    for style in [FontStyle::Normal, FontStyle::Bold] {
        register_font("sans-serif", style, epaint_default_fonts::UBUNTU_LIGHT)
            .map_err(|_| anyhow!("the built-in font can't be read"))?;
    }
    let name: String = report.name.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let paths = [folder.join(format!("{name}.svg")), folder.join(format!("{name}.png"))];

    let mut svg = String::new();
    plot(SVGBackend::with_string(&mut svg, SIZE), report)?;
    std::fs::write(&paths[0], svg).with_context(|| format!("can't write {}", paths[0].display()))?;

    let mut pixels = vec![0; SIZE.0 as usize * SIZE.1 as usize * 3];
    plot(BitMapBackend::with_buffer(&mut pixels, SIZE), report)?;
    image::save_buffer(&paths[1], &pixels, SIZE.0, SIZE.1, image::ExtendedColorType::Rgb8)
        .with_context(|| format!("can't write {}", paths[1].display()))?;
    Ok(paths)
}

fn plot<DB: DrawingBackend>(backend: DB, report: &Report) -> anyhow::Result<()> {
    let area = backend.into_drawing_area();
    let drawn = (|| {
        area.fill(&WHITE)?;
        let area = area.margin(10, 0, 0, 0);
        let title = format!("{}: latency from the intended start", report.name);
        let area = area.titled(&title, ("sans-serif", 26).into_font().color(&INK))?;
        let (upper, lower) = area.split_vertically(440);
        by_percentile(&upper, report)?;
        over_time(&lower, report)?;
        area.present()
    })();
    drawn.map_err(|error: DrawingAreaErrorKind<DB::ErrorType>| anyhow!("can't draw: {error}"))
}

/// A line, interrupted between its segments.
struct Line {
    name: String,
    segments: Vec<Vec<(f64, f64)>>,
}

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// The x axis is 1 / (1 - quantile), logarithmic: every decade is one more nine.
fn by_percentile<DB: DrawingBackend>(area: &DrawingArea<DB, plotters::coord::Shift>, report: &Report) -> Drawn<DB> {
    let points = |phase: &PhaseReport| -> Vec<(f64, f64)> {
        let histogram = phase.tally.latencies();
        // Beyond the last request there is nothing to see.
        let last = (histogram.len().max(1) as f64).clamp(10.0, 1e5);
        let steps = (last.log10() * 40.0) as u32;
        let point = |step| {
            let x = 10f64.powf(f64::from(step) / 40.0);
            (x, us(histogram.value_at_quantile(1.0 - 1.0 / x)))
        };
        if histogram.is_empty() { Vec::new() } else { (0..=steps).map(point).collect() }
    };
    let line = |phase: &PhaseReport| Line { name: phase.name.clone(), segments: vec![points(phase)] };
    let lines: Vec<Line> = report.phases.iter().map(line).collect();
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(36)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d((1.0..1e5).log_scale(), latency_axis(&lines))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style(("sans-serif", 16).into_font().color(&INK))
        .x_desc("percentile")
        .x_labels(6)
        .x_label_formatter(&|x| percentile_label(*x))
        .y_label_formatter(&|us| axis_label(*us))
        .draw()?;
    draw_lines(&mut chart, lines)?;
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

/// All phases one after another; a slice without answers is a gap in the lines.
fn over_time<DB: DrawingBackend>(area: &DrawingArea<DB, plotters::coord::Shift>, report: &Report) -> Drawn<DB> {
    const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
    let line = |(name, _): &(&str, f64)| Line { name: (*name).to_owned(), segments: Vec::new() };
    let mut lines: Vec<Line> = QUANTILES.iter().map(line).collect();
    let mut errors = Vec::new();
    let mut phase_began_s = 0.0;
    let mut borders = Vec::new();
    for phase in &report.phases {
        let slice_s = phase.tally.slice_ns() as f64 / 1e9;
        let mut gap = true;
        for (index, slice) in phase.tally.slices.iter().enumerate() {
            let time_s = phase_began_s + (index as f64 + 0.5) * slice_s;
            for (line, (_, quantile)) in lines.iter_mut().zip(QUANTILES) {
                if gap {
                    line.segments.push(Vec::new());
                }
                if !slice.latencies.is_empty()
                    && let Some(segment) = line.segments.last_mut()
                {
                    segment.push((time_s, us(slice.latencies.value_at_quantile(quantile))));
                }
            }
            gap = slice.latencies.is_empty();
            if slice.errors > 0 {
                errors.push(time_s);
            }
        }
        phase_began_s += phase.elapsed_s;
        borders.push(phase_began_s);
    }
    borders.pop();
    let axis = latency_axis(&lines);
    let (lowest, highest) = (axis_start(&lines), axis_end(&lines));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(36)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..phase_began_s.max(0.001), axis)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style(("sans-serif", 16).into_font().color(&INK))
        .x_desc("seconds of sending")
        .x_label_formatter(&|seconds| format!("{seconds:.1}"))
        .y_label_formatter(&|us| axis_label(*us))
        .draw()?;
    let border = |x: f64| PathElement::new([(x, lowest), (x, highest)], INK.mix(0.4));
    chart.draw_series(borders.into_iter().map(border))?;
    draw_lines(&mut chart, lines)?;
    if !errors.is_empty() {
        let mark = |x| TriangleMarker::new((x, lowest), 7, RED.filled());
        chart
            .draw_series(errors.into_iter().map(mark))?
            .label("errors")
            .legend(|(x, y)| TriangleMarker::new((x + 9, y), 6, RED.filled()));
    }
    legend(&mut chart, SeriesLabelPosition::UpperLeft)
}

fn draw_lines<'a, DB: DrawingBackend + 'a, X: Ranged<ValueType = f64>, Y: Ranged<ValueType = f64>>(
    chart: &mut ChartContext<'a, DB, Cartesian2d<X, Y>>,
    lines: Vec<Line>,
) -> Drawn<DB> {
    for (index, line) in lines.into_iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        for (number, points) in line.segments.into_iter().enumerate() {
            let series = chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            if number == 0 {
                series
                    .label(line.name.clone())
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            }
        }
    }
    Ok(())
}

fn legend<'a, DB: DrawingBackend + 'a, CT: plotters::coord::CoordTranslate>(
    chart: &mut ChartContext<'a, DB, CT>,
    position: SeriesLabelPosition,
) -> Drawn<DB> {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(("sans-serif", 16).into_font().color(&INK))
        .draw()
}

/// From a round number below the lowest value to one above the highest, never empty.
fn latency_axis(lines: &[Line]) -> LogCoord<f64> {
    let range: Range<f64> = axis_start(lines)..axis_end(lines);
    range.log_scale().into()
}

fn latencies(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| &line.segments).flatten().map(|(_, us)| *us)
}

fn axis_start(lines: &[Line]) -> f64 {
    let lowest = latencies(lines).fold(f64::INFINITY, f64::min);
    if lowest.is_finite() { 10f64.powf(lowest.max(1.0).log10().floor()) } else { 1.0 }
}

fn axis_end(lines: &[Line]) -> f64 {
    let highest = latencies(lines).fold(0.0, f64::max);
    10f64.powf(highest.max(1.0).log10().ceil()).max(axis_start(lines) * 10.0)
}

fn us(ns: u64) -> f64 {
    (ns as f64 / 1e3).max(1.0)
}

/// Axes show powers of ten.
fn axis_label(us: f64) -> String {
    match us.round() {
        us if us < 1e3 => format!("{us} µs"),
        us if us < 1e6 => format!("{} ms", us / 1e3),
        us => format!("{} s", us / 1e6),
    }
}

fn percentile_label(x: f64) -> String {
    match x {
        x if x < 1.5 => "0".to_owned(),
        x if x < 15.0 => "90".to_owned(),
        x if x < 150.0 => "99".to_owned(),
        x if x < 1_500.0 => "99.9".to_owned(),
        x if x < 15_000.0 => "99.99".to_owned(),
        _ => "99.999".to_owned(),
    }
}
