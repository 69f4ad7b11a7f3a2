//! Parsers and schedules on their own.

use event_load::names::{Names, Sampler, objection, segment};
use event_load::replay::{Line, Log};
use event_load::response::{Malformed, Response};
use event_load::scenario::Scenario;
use event_load::schedule::{Schedule, Share};

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"7\"\r\n\r\n\
    5\r\nhello\r\n7;name=value\r\n, world\r\n0\r\nTrailer: x\r\n\r\n";

#[test]
fn an_answer_is_complete_with_its_last_byte_and_not_before() {
    let plain = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\nConnection: close\r\n\r\nok";
    for whole in [plain, CHUNKED] {
        for len in 0..whole.len() {
            assert_eq!(Response::parse(&whole[..len]), Ok(None), "{len} bytes");
        }
        let followed = [whole, b"HTTP/1.1 200 OK\r\n"].concat();
        assert_eq!(Response::parse(&followed).unwrap().unwrap().len, whole.len());
    }
    let response = Response::parse(plain).unwrap().unwrap();
    assert_eq!((response.status, response.close, &*response.body(plain)), (201, true, &b"ok"[..]));
    let response = Response::parse(CHUNKED).unwrap().unwrap();
    assert_eq!((response.close, &*response.body(CHUNKED)), (false, &b"hello, world"[..]));
    assert_eq!(&CHUNKED[response.etag.unwrap()], b"\"7\"");
}

#[test]
fn answers_without_a_body_and_answers_that_are_none() {
    for status in [204, 304] {
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(Response::parse(answer.as_bytes()).unwrap().unwrap().len, answer.len());
    }
    for malformed in [
        &b"SSH-2.0-OpenSSH\r\n"[..],
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ] {
        assert_eq!(Response::parse(malformed), Err(Malformed), "{}", String::from_utf8_lossy(malformed));
    }
}

#[test]
fn replies_of_redis_are_lines() {
    let two = b":12\r\n-ERR no\r\n";
    let first = Response::parse_resp(two).unwrap().unwrap();
    assert_eq!((first.status, first.len), (200, 5));
    assert_eq!(Response::parse_resp(&two[5..]).unwrap().unwrap().status, 500);
    assert_eq!(Response::parse_resp(b":1"), Ok(None));
    assert_eq!(Response::parse_resp(b"$3\r\n"), Err(Malformed));
}

#[test]
fn lines_of_both_log_formats_are_read() {
    let common = r#"::1 - frank [10/Oct/2000:13:55:36 -0700] "POST /a HTTP/1.0" 201 -"#;
    let line = Line::parse(common).unwrap();
    assert_eq!((line.time_s, &*line.method, &*line.path, line.status), (971_211_336, "POST", "/a", 201));
    let combined =
        r#"h - - [10/Oct/2000:13:55:36 +0000] "GET /q?a=\"b\"\\\xc3\xa9 c HTTP/1.1" 404 7 "ref" "Agent \"x\"""#;
    let line = Line::parse(combined).unwrap();
    assert_eq!((&*line.path, line.status), ("/q?a=\"b\"\\é c", 404));
    assert_eq!(line.event("{method} {path}"), "GET /q?a=\"b\"\\é c");
    assert_eq!(line.event("status/{status}"), "status/404");
    assert_eq!(line.event("{route}"), "/q");
}

#[test]
fn garbage_in_a_log_is_no_line() {
    for garbage in [
        "",
        "garbage",
        r#"h - - [10/Oct/2000:13:55:36 +0000] "-" 408 -"#,
        r#"h - - [10/Oct/2000:13:55:36 +0000] "GET /unfinished"#,
        r#"h - - [10/Oct/2000:13:55:36 +0000] "GET /a HTTP/1.1" abc 12"#,
        r#"h - - [10/Oct/2000:13:55:36 +0000] "GET /a HTTP/1.1" 200 twelve"#,
        r#"h - - [40/Oct/2000:13:55:36 +0000] "GET /a HTTP/1.1" 200 12"#,
        r#"h - - [10/Oct/2000:13:55:36 +0000] "GET /\xff HTTP/1.1" 200 12"#,
        r#"h - - [10/Oct/2000:13:55:36 +0000] "GET /\x"#,
    ] {
        assert_eq!(Line::parse(garbage), None, "{garbage}");
    }
}

#[test]
fn lines_of_one_second_are_spread_over_it_and_time_never_steps_back() {
    let line = |second: u32| format!("h - - [10/Oct/2000:13:55:{second:02} +0000] \"GET / HTTP/1.1\" 200 1\n");
    let log: String = [10, 10, 12, 11, 13].map(line).concat();
    let log = Log::read(log.as_bytes(), "{path}");
    let starts_ms: Vec<u64> = log.starts_ns(2.0).iter().map(|ns| ns / 1_000_000).collect();
    assert_eq!(starts_ms, [0, 250, 1000, 1250, 1500]);
}

#[test]
fn a_schedule_is_even_and_a_ramp_gets_denser() {
    let even = Schedule::Ramp { rate_per_s: 100.0, to_rate_per_s: 100.0, duration_ns: 2_000_000_000 };
    assert_eq!(even.len(), 200);
    let start = |index| even.start_ns(index).unwrap();
    assert!((0..200).all(|index| start(index).abs_diff(index * 10_000_000) < 2));
    let ramp = Schedule::Ramp { rate_per_s: 0.0, to_rate_per_s: 100.0, duration_ns: 2_000_000_000 };
    assert_eq!((ramp.len(), ramp.start_ns(100)), (100, None));
    let starts: Vec<u64> = (0..100).map(|index| ramp.start_ns(index).unwrap()).collect();
    assert!(starts.is_sorted() && *starts.last().unwrap() <= 2_000_000_000);
    let first_half = starts.iter().filter(|start_ns| **start_ns < 1_000_000_000).count();
    assert_eq!(first_half, 25, "a quarter of the triangle");
}

#[test]
fn workers_share_a_schedule_without_gap_or_overlap() {
    let schedule = Schedule::Ramp { rate_per_s: 50.0, to_rate_per_s: 70.0, duration_ns: 1_000_000_000 };
    let mut taken = Vec::new();
    for worker in 0..7 {
        let mut share = Share::new(schedule.clone(), worker, 7);
        let remaining = share.remaining();
        let mut half = share.clone();
        half.cut(500_000_000);
        assert!(half.remaining() < remaining && share.peek_ns() == half.peek_ns());
        let before = taken.len() as u64;
        while share.peek_ns().is_some() {
            taken.push(share.next_index());
            share.take();
        }
        assert_eq!(taken.len() as u64 - before, remaining);
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..60).collect::<Vec<_>>());
}

#[test]
fn names_are_distinct_allowed_and_encoded_once() {
    for (spec, count) in [
        ("distribution = \"uniform\"\ncount = 300\nlength_bytes = 255", 300),
        ("distribution = \"zipf\"\ncount = 300\nstyle = \"unicode\"", 300),
        ("distribution = \"ever-new\"\nstyle = \"path\"", 300),
    ] {
        let phase = "[[phase]]\nname = \"p\"\nduration_s = 1\nmix = [{ op = \"single\", weight = 1 }]\n";
        let text = format!("description = \"test\"\n{phase}[names]\n{spec}\n").replace("[names]", "[phase.names]");
        let spec = Scenario::parse(&text).unwrap().phases[0].names.clone().unwrap();
        let names = Names::generate(&spec, "load-", 0).unwrap();
        let texts: std::collections::BTreeSet<_> = (0..count).map(|id| names.text(1, id).into_owned()).collect();
        assert_eq!(texts.len(), count as usize);
        assert!(texts.iter().all(|text| objection(text).is_none()));
        let mut written = Vec::new();
        names.write_segment(1, 7, &mut written);
        assert_eq!(String::from_utf8(written).unwrap(), segment(&names.text(1, 7)));
        let mut sampler = Sampler::new(&spec).unwrap();
        let mut rng = rand::SeedableRng::seed_from_u64(1);
        assert!((0..1000).all(|_| sampler.next(&mut rng) < 1000));
    }
    assert_eq!(segment("resource/209 ä%"), "resource%2F209%20%C3%A4%25");
    for refused in ["", ".", "..", "a\nb", &"x".repeat(256)] {
        assert!(objection(refused).is_some());
    }
}
