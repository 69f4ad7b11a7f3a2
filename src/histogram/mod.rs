//! A day of one event as a picture: 24 bars, one an hour, as PNG, JPEG or SVG, or as JSON.
//!
//! Pure: no clock, no files, no fonts of the machine (`text.rs` says which are
//! compiled in and what becomes of characters they lack). Drawing a picture is CPU work of some milliseconds; keep it
//! off the async threads.

pub mod numbers;

mod chart;
mod palette;
mod text;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError};
use plotters::prelude::{BitMapBackend, SVGBackend};
use serde_json::json;

use crate::domain::{Day, EventName};
use chart::draw;
use numbers::grouped;
use text::Medium;

/// One event's day: the counts of its 24 hours, UTC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series {
    pub event: EventName,
    pub day: Day,
    pub counts: [u64; 24],
}

impl Series {
    /// The sum of the counts. It stays below [`TOTAL_MAX`](crate::domain::TOTAL_MAX) for what a
    /// store holds; anything beyond 64 bits is given as `u64::MAX`.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// The one hour (0 to 23) that has more counts than every other; `None` where several share the
    /// maximum, as on a day without counts.
    #[must_use]
    pub fn peak_hour(&self) -> Option<usize> {
        let most = self.counts.iter().max()?;
        let mut hours = (0..24).filter(|hour| self.counts[*hour] == *most);
        hours.next().filter(|_| hours.next().is_none())
    }

    /// `{"event", "date": "YYYYMMDD", "total", "hours": [{"date": "YYYYMMDDHH", "count"}; 24]}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let first = self.day.range().first;
        let hours = (0..).zip(self.counts);
        let hours = hours.map(|(hour, count)| json!({ "date": first.plus(hour).to_string(), "count": count }));
        json!({
            "event": self.event.as_str(),
            "date": self.day.to_string(),
            "total": self.total(),
            "hours": hours.collect::<Vec<_>>(),
        })
    }

    /// What the picture shows, for those who can't see it.
    fn description(&self) -> String {
        let name = Medium::Svg.fit(self.event.as_str(), 1.0, f32::INFINITY);
        let date = self.day.date().format("%A, %-d %B %Y");
        let total = grouped(u128::from(self.total()));
        let peak = match self.peak_hour() {
            Some(hour) => format!(", most at {hour:02}:00 ({})", grouped(u128::from(self.counts[hour]))),
            None => String::new(),
        };
        format!("{name}, {date}, UTC: {total} in total{peak}")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    Png,
    Jpeg,
    Svg,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::Svg];

    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Svg => "image/svg+xml",
        }
    }
}

/// Width and height of a picture, in pixels, within [`Size::MIN`] and [`Size::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Size {
    width: u32,
    height: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a histogram is {} to {} pixels wide and {} to {} pixels high",
    Size::MIN.width, Size::MAX.width, Size::MIN.height, Size::MAX.height
)]
pub struct SizeError;

impl Size {
    /// Below it, nothing can be read.
    pub const MIN: Self = Self { width: 160, height: 120 };
    /// A page at 200 dpi; the buffer is 11.5 MB then.
    pub const MAX: Self = Self { width: 2400, height: 1600 };

    /// # Errors
    /// When a side is beyond the limits, which the error names.
    pub fn new(width: u32, height: u32) -> Result<Self, SizeError> {
        let within = (Self::MIN.width..=Self::MAX.width).contains(&width)
            && (Self::MIN.height..=Self::MAX.height).contains(&height);
        if within { Ok(Self { width, height }) } else { Err(SizeError) }
    }

    #[must_use]
    pub fn width(self) -> u32 {
        self.width
    }

    #[must_use]
    pub fn height(self) -> u32 {
        self.height
    }
}

/// 1000 × 500: half a page, a slide's width.
impl Default for Size {
    fn default() -> Self {
        Self { width: 1000, height: 500 }
    }
}

/// Neither depends on the data: seeing one means a defect here or in a library.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    #[error("the histogram could not be drawn: {0}")]
    Draw(String),
    #[error("the histogram could not be encoded: {0}")]
    Jpeg(#[from] ImageError),
    #[error("the histogram could not be encoded: {0}")]
    Png(#[from] png::EncodingError),
}

/// Draws the day and encodes it. The same input always gives the same bytes.
///
/// # Errors
/// See [`RenderError`].
pub fn render(series: &Series, size: Size, format: Format) -> Result<Vec<u8>, RenderError> {
    match format {
        Format::Svg => svg(series, size).map(String::into_bytes),
        Format::Png => Ok(palette::png(&bitmap(series, size)?, size)?),
        Format::Jpeg => {
            let mut encoded = Vec::with_capacity(64 * 1024);
            JpegEncoder::new_with_quality(&mut encoded, JPEG_QUALITY).write_image(
                bitmap(series, size)?.as_flattened(),
                size.width,
                size.height,
                ExtendedColorType::Rgb8,
            )?;
            Ok(encoded)
        }
    }
}

/// Lower ones leave marks around text and thin lines.
const JPEG_QUALITY: u8 = 90;

/// Red, green and blue of each pixel.
fn bitmap(series: &Series, Size { width, height }: Size) -> Result<Vec<[u8; 3]>, RenderError> {
    let mut pixels = vec![[0; 3]; width as usize * height as usize];
    let backend = BitMapBackend::with_buffer(pixels.as_flattened_mut(), (width, height));
    draw(series, Medium::Bitmap, backend).map_err(|error| RenderError::Draw(error.to_string()))?;
    Ok(pixels)
}

fn svg(series: &Series, Size { width, height }: Size) -> Result<String, RenderError> {
    let mut svg = String::with_capacity(16 * 1024);
    let backend = SVGBackend::with_string(&mut svg, (width, height));
    draw(series, Medium::Svg, backend).map_err(|error| RenderError::Draw(error.to_string()))?;
    // plotters has no words for these: the picture's role, and its title for screen readers.
    if let Some(end_of_root_tag) = svg.find('>') {
        let description = series.description().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        svg.insert_str(end_of_root_tag + 1, &format!("\n<title id=\"title\">{description}</title>"));
        svg.insert_str(end_of_root_tag, " role=\"img\" aria-labelledby=\"title\"");
    }
    Ok(svg)
}

#[cfg(test)]
mod tests;
