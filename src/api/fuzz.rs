//! Whatever a client writes into the target and the headers of a request, it is understood or refused.

use bolero::check;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue, IF_NONE_MATCH};

use super::accept::Form;
use crate::mangled::{Edit, mangled};
use crate::web::conditional;
use crate::web::query_string::{Parameters, RawQuery};

#[test]
fn any_query_is_parsed_or_refused() {
    let texts: [&[u8]; 3] = [b"start_date=20260101&end_date=2026010203", b"a=1&a=2&%zz=%", b"limit=5&after=%C3%A4+b"];
    check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        let text = mangled(&texts, *which, edits);
        let Ok(uri) = format!("/x?{}", String::from_utf8_lossy(&text)).parse() else { return };
        if let Ok(parameters) = Parameters::parse(Some(&RawQuery(uri))) {
            assert!(parameters.get("start_date").is_none_or(|value| value.len() <= text.len() * 3));
        }
    });
}

#[test]
fn any_accept_and_any_tag_are_understood() {
    let texts: [&[u8]; 3] = [b"image/svg+xml;q=0.5, image/*;q=1, */*;q=0", b"W/\"a-1\", \"b\", *", b"text/html;q=nan"];
    check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        let Ok(value) = HeaderValue::from_bytes(&mangled(&texts, *which, edits)) else { return };
        let headers: HeaderMap = [(ACCEPT, value.clone()), (IF_NONE_MATCH, value)].into_iter().collect();
        Form::negotiated(&headers);
        conditional::is_known(&headers, "\"b\"");
    });
}
