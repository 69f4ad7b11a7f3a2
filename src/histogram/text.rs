//! Text in a picture: which characters can be shown, how wide they are, and how they are drawn.
//!
//! The compiled-in fonts cover most of Latin (not Vietnamese), Greek, Cyrillic, arrows and emoji.
//! plotters' own text drawing knows one font, ignores side bearings and draws boxes for what the
//! font lacks, so [`Label`] brings its own: subpixel positions, kerning, and the next font where one
//! lacks a glyph. What no font has is written out as `<U+65E5>` in bitmaps. An SVG carries the real
//! characters and leaves them to the viewer's fonts. Characters that could turn the text around or
//! hide in it are written out in both.

use std::convert::Infallible;
use std::iter;
use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph, GlyphId, PxScale, point};
use plotters::element::{Drawable, PointCollection};
use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;
use plotters_backend::text_anchor::{HPos, Pos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendTextStyle, DrawingErrorKind, FontFamily};

/// In the order in which they are asked for a glyph.
static FONTS: LazyLock<Vec<FontRef<'static>>> = LazyLock::new(|| {
    [epaint_default_fonts::UBUNTU_LIGHT, epaint_default_fonts::HACK_REGULAR, epaint_default_fonts::NOTO_EMOJI_REGULAR]
        .into_iter()
        .filter_map(|bytes| FontRef::try_from_slice(bytes).ok())
        .collect()
});

/// What the text is drawn on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Medium {
    /// Drawn here, with the compiled-in fonts.
    Bitmap,
    /// Drawn by the viewer, with fonts of the viewer's.
    Svg,
}

/// Usual sans-serif fonts are up to this much wider than ours.
const SVG_WIDTH_RATIO: f32 = 1.2;

impl Medium {
    /// Width of `text` in pixels at `em_px` pixels per em; for an SVG an upper estimate.
    pub(super) fn width(self, text: &str, em_px: f32) -> f32 {
        let width = layout(text, em_px).1;
        if self == Self::Svg { width * SVG_WIDTH_RATIO } else { width }
    }

    /// `text` as this medium can show it, cut with an ellipsis where it is wider than `width_px`.
    pub(super) fn fit(self, text: &str, em_px: f32, width_px: f32) -> String {
        let ellipsis_px = self.width("…", em_px);
        let mut shown = String::with_capacity(text.len());
        let mut shown_px = 0.0;
        // The end of the longest beginning after which the ellipsis still has room.
        let mut cut = 0;
        for c in text.chars() {
            let piece = match c {
                c if self.shows(c) => c.to_string(),
                c if is_joiner(c) => continue,
                c => format!("<U+{:04X}>", u32::from(c)),
            };
            shown_px += self.width(&piece, em_px);
            shown.push_str(&piece);
            if shown_px + ellipsis_px <= width_px {
                cut = shown.len();
            } else if shown_px > width_px {
                shown.truncate(cut);
                shown.truncate(shown.trim_end_matches(|c| c == ' ' || is_joiner(c)).len());
                shown.push('…');
                break;
            }
        }
        shown
    }

    fn shows(self, c: char) -> bool {
        match self {
            Self::Bitmap => find_glyph(c).is_some() && !is_deceptive(c) && !is_joiner(c),
            Self::Svg => !is_deceptive(c),
        }
    }
}

/// Characters without a shape of their own that change the order or the look of others, or that XML
/// forbids.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e00ff}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Joiners and variation selectors: they matter to a font that shapes text and to nobody else.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}')
}

fn find_glyph(c: char) -> Option<(&'static FontRef<'static>, GlyphId)> {
    FONTS.iter().map(|font| (font, font.glyph_id(c))).find(|(_, glyph)| glyph.0 != 0)
}

/// The glyphs of one line, each with its font and placed from (0, 0) on the baseline, and the line's
/// width in pixels. A character without a glyph takes an em.
fn layout(text: &str, em_px: f32) -> (Vec<(&'static FontRef<'static>, Glyph)>, f32) {
    let mut glyphs: Vec<(&'static FontRef<'static>, Glyph)> = Vec::with_capacity(text.len());
    let mut x = 0.0;
    for c in text.chars() {
        let Some((font, id)) = find_glyph(c) else {
            x += if is_joiner(c) { 0.0 } else { em_px };
            continue;
        };
        let px_per_unit = em_px / font.units_per_em().unwrap_or(1000.0);
        if let Some((_, previous)) = glyphs.last().filter(|(previous_font, _)| std::ptr::eq(*previous_font, font)) {
            x += font.kern_unscaled(previous.id, id) * px_per_unit;
        }
        let scale = PxScale::from(font.height_unscaled() * px_per_unit);
        glyphs.push((font, id.with_scale_and_position(scale, point(x, 0.0))));
        x += font.h_advance_unscaled(id) * px_per_unit;
    }
    (glyphs, x)
}

/// One line of text, as an element for plotters.
pub(super) struct Label<'a> {
    pub(super) text: &'a str,
    /// Where the baseline begins, has its middle or ends, in pixels from the top left.
    pub(super) at: BackendCoord,
    pub(super) align: HPos,
    pub(super) em_px: f32,
    pub(super) color: RGBColor,
}

/// From the top of a line to its baseline, in em. The SVG backend writes the same for a text that is
/// anchored at its top, which makes baselines meet in all formats.
const ASCENT_EM: f32 = 0.76;

/// Below 1 it darkens the edges of glyphs: the font is a light one, too faint for small sizes as it is.
const WEIGHT: f32 = 0.65;

/// Between nothing and all of a text's colour. More can't be told apart by eye, and would be more
/// colours than a palette holds.
const SHADES: f32 = 15.0;

impl Label<'_> {
    fn ascent_px(&self) -> i32 {
        (self.em_px * ASCENT_EM).round() as i32
    }
}

impl<'a> PointCollection<'a, BackendCoord> for &'a Label<'_> {
    type Point = &'a BackendCoord;
    type IntoIter = iter::Once<&'a BackendCoord>;

    fn point_iter(self) -> Self::IntoIter {
        iter::once(&self.at)
    }
}

impl<DB: DrawingBackend> Drawable<DB> for Label<'_> {
    fn draw<I: Iterator<Item = BackendCoord>>(
        &self,
        mut points: I,
        backend: &mut DB,
        _: (u32, u32),
    ) -> Result<(), DrawingErrorKind<DB::ErrorType>> {
        match points.next() {
            Some((x, y)) => backend.draw_text(self.text, self, (x, y - self.ascent_px())),
            None => Ok(()),
        }
    }
}

impl BackendTextStyle for Label<'_> {
    type FontError = Infallible;

    fn color(&self) -> BackendColor {
        BackendColor { alpha: 1.0, rgb: (self.color.0, self.color.1, self.color.2) }
    }

    /// The SVG backend divides by 1.24 to get an em.
    fn size(&self) -> f64 {
        f64::from(self.em_px) * 1.24
    }

    fn anchor(&self) -> Pos {
        Pos::new(self.align, VPos::Top)
    }

    fn family(&self) -> FontFamily<'_> {
        FontFamily::Name("Ubuntu, Helvetica, Arial, sans-serif")
    }

    fn layout_box(&self, text: &str) -> Result<(BackendCoord, BackendCoord), Infallible> {
        Ok(((0, 0), (layout(text, self.em_px).1.round() as i32, self.em_px.ceil() as i32)))
    }

    fn draw<E, DrawFunc: FnMut(i32, i32, BackendColor) -> Result<(), E>>(
        &self,
        text: &str,
        (left, top): BackendCoord,
        mut draw: DrawFunc,
    ) -> Result<Result<(), E>, Infallible> {
        let baseline = top + self.ascent_px();
        let mut outcome = Ok(());
        for (font, glyph) in layout(text, self.em_px).0 {
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            let (x0, y0) = (left + corner.x as i32, baseline + corner.y as i32);
            outline.draw(|x, y, coverage| {
                if coverage > 0.0 && outcome.is_ok() {
                    let alpha = (coverage.min(1.0).powf(WEIGHT) * SHADES).round() / SHADES;
                    let color = BackendColor { alpha: f64::from(alpha), ..self.color() };
                    outcome = draw(x0 + x as i32, y0 + y as i32, color);
                }
            });
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_compiled_in_font_is_readable() {
        assert_eq!(FONTS.len(), 3);
    }

    #[test]
    fn european_scripts_symbols_and_emoji_are_drawn_as_they_are() {
        for text in ["Größe/łódź", "Вход", "είσοδος", "a→b ✔", "🚀 launch"] {
            assert_eq!(Medium::Bitmap.fit(text, 20.0, 1000.0), text);
        }
    }

    #[test]
    fn what_no_font_has_is_written_out_in_bitmaps_and_left_to_the_viewer_in_svg() {
        assert_eq!(Medium::Bitmap.fit("日本 ok", 20.0, 1000.0), "<U+65E5><U+672C> ok");
        assert_eq!(Medium::Svg.fit("日本 ok", 20.0, 1000.0), "日本 ok");
        assert_eq!(Medium::Svg.fit("👩\u{200d}🚀", 20.0, 1000.0), "👩\u{200d}🚀");
    }

    #[test]
    fn characters_that_turn_or_hide_text_are_written_out_everywhere() {
        for medium in [Medium::Bitmap, Medium::Svg] {
            assert_eq!(medium.fit("a\u{202e}b\u{200b}c\u{ffff}", 20.0, 1000.0), "a<U+202E>b<U+200B>c<U+FFFF>");
        }
    }

    #[test]
    fn a_long_text_ends_with_an_ellipsis_and_never_within_an_escape() {
        assert_eq!(Medium::Bitmap.fit("abcdefgh", 10.0, 1000.0), "abcdefgh");
        let cut = Medium::Bitmap.fit(&"日".repeat(85), 10.0, 160.0);
        assert!(cut.ends_with("<U+65E5>…"), "{cut}");
    }

    #[test]
    fn text_is_drawn_where_its_width_says() {
        let label = Label { text: "", at: (0, 0), align: HPos::Left, em_px: 20.0, color: RGBColor(0, 0, 0) };
        let text = "Total 8,312";
        let (mut left, mut right) = (i32::MAX, i32::MIN);
        let drawn = BackendTextStyle::draw(&label, text, (0, 0), |x, _, _| {
            (left, right) = (left.min(x), right.max(x));
            Ok::<_, Infallible>(())
        });
        drawn.unwrap().unwrap();
        let width = Medium::Bitmap.width(text, 20.0);
        assert!(left >= 0 && right as f32 <= width && width - (right as f32) < 3.0, "{left} {right} {width}");
    }

    proptest! {
        #[test]
        fn fitted_text_fits(text in "\\PC{0,255}", em_px in 9.0_f32..60.0, width_px in 60.0_f32..2000.0) {
            for medium in [Medium::Bitmap, Medium::Svg] {
                let shown = medium.fit(&text, em_px, width_px);
                // Kerning is not part of the fitting; it rarely widens a pair, and then by a hair.
                prop_assert!(medium.width(&shown, em_px) <= width_px.max(medium.width("…", em_px)) + em_px);
                prop_assert!(!shown.contains(is_deceptive));
            }
        }
    }
}
