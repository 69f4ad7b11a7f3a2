//! In which form a histogram is wanted: `?format=`, else the `Accept` header.

use hyper::HeaderMap;
use hyper::header::ACCEPT;

use crate::histogram::Format;
use crate::web::problem::Problem;

/// A picture, or the numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Picture(Format),
    Json,
}

/// In the order of preference between equals.
const FORMS: [Form; 4] =
    [Form::Picture(Format::Png), Form::Picture(Format::Svg), Form::Picture(Format::Jpeg), Form::Json];

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Picture(format) => format.content_type(),
            Self::Json => "application/json",
        }
    }

    pub(super) fn named(name: &str) -> Result<Self, Problem> {
        match name {
            "png" => Ok(Self::Picture(Format::Png)),
            "jpg" | "jpeg" => Ok(Self::Picture(Format::Jpeg)),
            "svg" => Ok(Self::Picture(Format::Svg)),
            "json" => Ok(Self::Json),
            _ => Err(Problem::BadFormat),
        }
    }

    /// What the client likes best. A client that accepts none of our forms gets a PNG, as RFC 9110
    /// allows: a picture helps more than a refusal.
    pub(super) fn negotiated(headers: &HeaderMap) -> Self {
        let ranges: Vec<MediaRange<'_>> = headers
            .get_all(ACCEPT)
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(MediaRange::parse)
            .collect();
        let mut best = (FORMS[0], 0);
        for form in FORMS {
            let quality = quality(form, &ranges);
            if quality > best.1 {
                best = (form, quality);
            }
        }
        best.0
    }
}

/// One element of `Accept`, such as `image/*;q=0.8`.
struct MediaRange<'a> {
    range: &'a str,
    /// In thousandths.
    quality: u32,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        // What is no number counts as fully wanted, like a missing one.
        let quality: f32 = quality.and_then(|text| text.trim().parse().ok()).unwrap_or(1.0);
        Self { range, quality: (quality.clamp(0.0, 1.0) * 1000.0) as u32 }
    }

    /// How closely the range names the type: exactly 3, its family 2, anything 1, not at all 0.
    fn closeness(&self, content_type: &str) -> u8 {
        let family = self.range.strip_suffix("/*").zip(content_type.split_once('/'));
        if self.range.eq_ignore_ascii_case(content_type) {
            3
        } else if self.range == "*/*" {
            1
        } else if family.is_some_and(|(wanted, (family, _))| wanted.eq_ignore_ascii_case(family)) {
            2
        } else {
            0
        }
    }
}

/// The quality that the closest range gives to the form; 0: not accepted.
fn quality(form: Form, ranges: &[MediaRange<'_>]) -> u32 {
    let content_type = form.content_type();
    let closest = ranges.iter().max_by_key(|range| range.closeness(content_type));
    closest.filter(|range| range.closeness(content_type) > 0).map_or(0, |range| range.quality)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hyper::header::HeaderValue;

    use super::*;

    const PNG: Form = Form::Picture(Format::Png);
    const SVG: Form = Form::Picture(Format::Svg);
    const JPEG: Form = Form::Picture(Format::Jpeg);

    fn negotiated(accept: &str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        Form::negotiated(&headers)
    }

    #[test]
    fn without_a_wish_it_is_a_png() {
        assert_eq!(Form::negotiated(&HeaderMap::new()), PNG);
        assert_eq!(negotiated("*/*"), PNG);
        assert_eq!(negotiated("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"), PNG);
        assert_eq!(negotiated("text/html"), PNG);
    }

    #[test]
    fn the_highest_quality_wins_and_the_closest_range_sets_it() {
        assert_eq!(negotiated("application/json"), Form::Json);
        assert_eq!(negotiated("image/png;q=0.5, image/jpeg"), JPEG);
        assert_eq!(negotiated("image/*;q=0.2, Image/SVG+xml ; q=0.9"), SVG);
        assert_eq!(negotiated("image/png;q=0, image/*"), SVG);
        assert_eq!(negotiated("*/*;q=0.1, application/json;q=0.2"), Form::Json);
    }

    #[test]
    fn nonsense_is_no_wish() {
        assert_eq!(negotiated(",;q=,/*;q=-1,image/png;q=NaN"), PNG);
    }
}
