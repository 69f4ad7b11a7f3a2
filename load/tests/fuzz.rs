//! Whatever a server answers, and whatever is in a log, the load tool reads it or says that it can't.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "../../src/mangled.rs"]
mod mangled;

use bolero::check;
use event_load::replay::{Line, Log};
use event_load::response::Response;
use mangled::{Edit, mangled};

#[test]
fn answers_of_any_bytes_take_no_more_than_there_is() {
    let texts: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\netag: \"a\"\r\n\r\nabcHTTP/1.1",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        b":12\r\n",
    ];
    check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        let bytes = mangled(&texts, *which, edits);
        for parsed in [Response::parse(&bytes), Response::parse_resp(&bytes)] {
            if let Ok(Some(response)) = parsed {
                assert!(response.len <= bytes.len());
                assert!(response.body(&bytes).len() <= bytes.len());
            }
        }
    });
}

#[test]
fn logs_of_any_bytes_are_read_line_by_line() {
    let texts: [&[u8]; 2] = [
        br#"10.0.0.1 - - [27/Nov/2026:10:00:00 +0000] "GET /a%2Fb?x=1 HTTP/1.1" 200 5 "-" "a \"b\"""#,
        br#"::1 - u [01/Jan/2026:00:00:00 -0130] "\x16\x03" 400 -"#,
    ];
    check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        let bytes = mangled(&texts, *which, edits);
        if let Some(line) = Line::parse(&String::from_utf8_lossy(&bytes)) {
            let _ = line.event("{method} {path}");
        }
        let _ = Log::read(&bytes, "{path}");
    });
}
