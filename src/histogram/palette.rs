//! PNG with a palette: a picture of few colours takes a quarter of the bytes so, and what a picture
//! costs that is drawn already is mostly the sending of its bytes.

use std::borrow::Cow;
use std::collections::HashMap;

use png::{BitDepth, ColorType, DeflateCompression, Encoder, EncodingError, Filter};

use super::Size;

/// Higher ones take twice as long to save a tenth.
const COMPRESSION: DeflateCompression = DeflateCompression::Level(4);

type Color = [u8; 3];

pub(super) fn png(pixels: &[Color], size: Size) -> Result<Vec<u8>, EncodingError> {
    let mut encoded = Vec::with_capacity(32 * 1024);
    let mut encoder = Encoder::new(&mut encoded, size.width(), size.height());
    encoder.set_depth(BitDepth::Eight);
    encoder.set_deflate_compression(COMPRESSION);
    let data = match numbered(pixels) {
        Some((palette, numbers)) => {
            encoder.set_color(ColorType::Indexed);
            encoder.set_palette(palette.into_flattened());
            // Between numbers of colours there are no gradients that a filter could flatten.
            encoder.set_filter(Filter::NoFilter);
            Cow::Owned(numbers)
        }
        None => {
            encoder.set_color(ColorType::Rgb);
            Cow::Borrowed(pixels.as_flattened())
        }
    };
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&data)?;
    writer.finish()?;
    Ok(encoded)
}

/// The distinct colours and the number of each pixel's among them; `None` if a byte can't number them.
fn numbered(pixels: &[Color]) -> Option<(Vec<Color>, Vec<u8>)> {
    let mut palette = Vec::new();
    let mut numbers = Vec::with_capacity(pixels.len());
    let mut known = HashMap::<Color, u8, foldhash::fast::RandomState>::default();
    // Most pixels are like the one before.
    for run in pixels.chunk_by(|a, b| a == b) {
        let number = match known.get(&run[0]) {
            Some(number) => *number,
            None => {
                let number = u8::try_from(palette.len()).ok()?;
                palette.push(run[0]);
                known.insert(run[0], number);
                number
            }
        };
        numbers.resize(numbers.len() + run.len(), number);
    }
    Some((palette, numbers))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decoded(encoded: &[u8]) -> Vec<u8> {
        image::load_from_memory(encoded).unwrap().into_rgb8().into_raw()
    }

    #[test]
    fn every_pixel_keeps_its_color_whether_they_fit_into_a_palette_or_not() {
        let size = Size::new(160, 120).unwrap();
        let picture = |colors: u32| -> Vec<Color> {
            (0..160 * 120).map(|at| (at % colors * 77).to_le_bytes()).map(|[r, g, b, _]| [r, g, b]).collect()
        };
        for (colors, color_type) in [(1, 3), (2, 3), (256, 3), (257, 2), (5_000, 2)] {
            let pixels = picture(colors);
            let encoded = png(&pixels, size).unwrap();
            assert_eq!(encoded[25], color_type, "{colors} colours");
            assert!(decoded(&encoded) == pixels.as_flattened(), "{colors} colours");
        }
    }
}
