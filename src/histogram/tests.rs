#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use roxmltree::{Document, Node};

use super::*;

fn series(event: &str, counts: [u64; 24]) -> Series {
    let day = Day::parse("20200911").unwrap();
    Series { event: EventName::parse(event).unwrap(), day, counts }
}

fn svg_of(series: &Series, size: Size) -> String {
    String::from_utf8(render(series, size, Format::Svg).unwrap()).unwrap()
}

fn number(node: Node, attribute: &str) -> f32 {
    node.attribute(attribute).unwrap().parse().unwrap()
}

fn texts<'a>(document: &'a Document) -> Vec<&'a str> {
    let nodes = document.descendants().filter(|node| node.has_tag_name("text"));
    nodes.map(|node| node.text().unwrap().trim_matches('\n')).collect()
}

/// Heights of the bars from hour 00 on. Besides them only the peak's mark in the header, drawn
/// before all bars, has a colour of theirs.
fn bar_heights(document: &Document) -> Vec<f32> {
    let colored = |node: &Node| matches!(node.attribute("fill"), Some("#4F86BA" | "#B94A13"));
    let bars = document.descendants().filter(|node| node.has_tag_name("rect") && colored(node));
    let mut heights: Vec<_> = bars.map(|node| number(node, "height")).collect();
    heights.drain(..heights.len() - 24);
    heights
}

#[test]
fn there_is_a_bar_for_every_hour_as_high_as_its_count() {
    let counts = std::array::from_fn(|hour| 100 * hour as u64);
    let svg = svg_of(&series("login", counts), Size::default());
    let heights = bar_heights(&Document::parse(&svg).unwrap());
    for (hour, height) in heights.iter().enumerate() {
        let expected = heights[23] * hour as f32 / 23.0;
        assert!((height - expected).abs() <= 1.0, "hour {hour}: {height} instead of {expected}");
    }
    assert!(heights[23] > 250.0);
}

#[test]
fn a_single_count_is_seen_beside_billions() {
    let mut counts = [0; 24];
    (counts[3], counts[4]) = (4_000_000_000, 1);
    let svg = svg_of(&series("login", counts), Size::default());
    let heights = bar_heights(&Document::parse(&svg).unwrap());
    assert!(heights[4] >= 1.0);
    assert_eq!(heights[5], 0.0);
}

#[test]
fn the_picture_says_what_it_shows() {
    let mut counts = [40; 24];
    counts[14] = 1_234;
    let svg = svg_of(&series("resource/209", counts), Size::default());
    let document = Document::parse(&svg).unwrap();
    let texts = texts(&document);
    for text in
        ["resource/209", "Friday, 11 September 2020, UTC", "2,154", "total", "peak at 14:00", "1,234", "00", "23"]
    {
        assert!(texts.contains(&text), "{text} is not among {texts:?}");
    }
    assert_eq!(document.root_element().attribute("role"), Some("img"));
    let title = document.descendants().find(|node| node.has_tag_name("title")).unwrap();
    let description = "resource/209, Friday, 11 September 2020, UTC: 2,154 in total, most at 14:00 (1,234)";
    assert_eq!(title.text(), Some(description));
}

#[test]
fn a_day_without_counts_has_its_axes_and_says_so() {
    let svg = svg_of(&series("login", [0; 24]), Size::default());
    let document = Document::parse(&svg).unwrap();
    assert_eq!(bar_heights(&document), [0.0; 24]);
    let texts = texts(&document);
    for text in ["no counts on this day", "0", "1", "00", "23"] {
        assert!(texts.contains(&text), "{text} is not among {texts:?}");
    }
}

#[test]
fn only_an_hour_above_all_others_is_the_peak() {
    let mut counts = [0; 24];
    assert_eq!(series("login", counts).peak_hour(), None);
    counts[7] = 5;
    assert_eq!(series("login", counts).peak_hour(), Some(7));
    counts[9] = 5;
    assert_eq!(series("login", counts).peak_hour(), None);
}

#[test]
fn json_names_every_hour() {
    let json = series("resource/209", std::array::from_fn(|hour| hour as u64)).to_json();
    assert_eq!(json["event"], "resource/209");
    assert_eq!(json["date"], "20200911");
    assert_eq!(json["total"], 276);
    assert_eq!(json["hours"].as_array().unwrap().len(), 24);
    assert_eq!(json["hours"][23], json!({ "date": "2020091123", "count": 23 }));
}

#[test]
fn a_picture_with_every_label_has_few_enough_colors_for_a_palette() {
    let mut counts = std::array::from_fn(|hour| 900 + hour as u64);
    counts[7] = 2_000;
    for size in [Size::default(), Size::MAX] {
        let png = render(&series("🚀 launch/Вход", counts), size, Format::Png).unwrap();
        let (type_of_header, color_type) = (&png[12..16], png[25]);
        assert_eq!((type_of_header, color_type), (b"IHDR".as_slice(), 3), "{size:?}");
    }
}

#[test]
fn sizes_beyond_the_limits_are_refused_with_the_limits() {
    for (width, height) in [(159, 500), (2401, 500), (1000, 119), (1000, 1601), (0, 0), (u32::MAX, u32::MAX)] {
        let error = Size::new(width, height).unwrap_err().to_string();
        assert_eq!(error, "a histogram is 160 to 2400 pixels wide and 120 to 1600 pixels high");
    }
    assert_eq!(Size::new(1000, 500), Ok(Size::default()));
}

#[test]
fn a_name_is_text_and_never_markup() {
    let name = "</text><script>alert(1)</script>&\"'\u{202e}";
    let svg = svg_of(&series(name, [1; 24]), Size::default());
    let document = Document::parse(&svg).unwrap();
    let shown = "</text><script>alert(1)</script>&\"'<U+202E>";
    assert!(texts(&document).contains(&shown));
    assert!(!document.descendants().any(|node| node.has_tag_name("script")));
}

fn any_series() -> impl Strategy<Value = Series> {
    let count = prop_oneof![Just(0), Just(u64::MAX), 0_u64..2000, any::<u64>().prop_map(|n| n >> 20), any::<u64>()];
    let name =
        prop_oneof!["[a-z/]{1,255}", "\\PC{1,60}"].prop_filter_map("a name", |text| EventName::parse(&text).ok());
    (name, prop::array::uniform24(count))
        .prop_map(|(event, counts)| Series { counts, ..series(event.as_str(), [0; 24]) })
}

fn any_size() -> impl Strategy<Value = Size> {
    let width = prop_oneof![Just(Size::MIN.width), Just(Size::MAX.width), Size::MIN.width..=Size::MAX.width];
    let height = prop_oneof![Just(Size::MIN.height), Just(Size::MAX.height), Size::MIN.height..=Size::MAX.height];
    (width, height).prop_map(|(width, height)| Size::new(width, height).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn bitmaps_have_the_size_that_was_asked_for(series in any_series(), size in any_size()) {
        for (format, guessed) in [(Format::Png, image::ImageFormat::Png), (Format::Jpeg, image::ImageFormat::Jpeg)] {
            let bytes = render(&series, size, format).unwrap();
            prop_assert_eq!(image::guess_format(&bytes).unwrap(), guessed);
            let picture = image::load_from_memory(&bytes).unwrap();
            prop_assert_eq!((picture.width(), picture.height()), (size.width(), size.height()));
        }
    }
}

proptest! {
    #[test]
    fn every_svg_is_well_formed_and_no_text_leaves_the_picture_or_meets_another(
        series in any_series(),
        size in any_size(),
    ) {
        let svg = svg_of(&series, size);
        let document = Document::parse(&svg).unwrap();
        prop_assert_eq!(bar_heights(&document).len(), 24);
        let mut lines: Vec<(f32, f32, f32, &str)> = Vec::new();
        for node in document.descendants().filter(|node| node.has_tag_name("text")) {
            let text = node.text().unwrap().trim_matches('\n');
            let (x, y) = (number(node, "x"), number(node, "y"));
            let width = Medium::Svg.width(text, number(node, "font-size"));
            let from = match node.attribute("text-anchor") {
                Some("start") => x,
                Some("end") => x - width,
                _ => x - width / 2.0,
            };
            prop_assert!(from > -2.0 && from + width < size.width() as f32 + 2.0, "{text} is at {from} + {width}");
            prop_assert!(y >= 0.0 && y < size.height() as f32, "{text} is at {y}");
            for (other_y, other_from, other_to, other) in &lines {
                let apart = *other_y != y || from > other_to - 1.0 || from + width < other_from + 1.0;
                prop_assert!(apart, "{text} meets {other}");
            }
            lines.push((y, from, from + width, text));
        }
    }
}
