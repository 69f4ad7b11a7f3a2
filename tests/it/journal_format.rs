//! The journal's files, byte by byte: what is read back from whole, torn and damaged ones.
//!
//! The fixtures of format version 1 were written by the first version of the program and never change:
//! every later one reads the same counts from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use event_tracker::batch::{Batches, RecoverError, Recovered};
use event_tracker::domain::{BatchId, BatchSeq, EventName, Hour, HourRange, WriterId};
use event_tracker::journal::files::OsFiles;
use event_tracker::journal::record::{FRAME_BYTES, encode_base, encode_counts, encode_end, encode_synced};
use event_tracker::journal::replay::{self, ReplayError, Replayed};
use event_tracker::journal::segment::{self, HEADER_BYTES, Header, Kind, Segment, read_header};
use event_tracker::journal::{DataDir, Options};
use event_tracker::names::{Limits, Names};

use crate::harness::faulty_files::Plan;

/// 2020-09-12T12.
const HOUR: u32 = 444_420;
const WRITER: WriterId = WriterId(*b"\x01\x23\x45\x67\x89\xab\xcd\xef fixture");
const ID: BatchId = BatchId { writer: WRITER, seq: BatchSeq(1) };

type Sums = BTreeMap<(Hour, EventName), u64>;

fn hour(number: u32) -> Hour {
    Hour::from_number(number).unwrap()
}

fn name(text: &str) -> EventName {
    EventName::parse(text).unwrap()
}

/// What every fixture was written with: one record for each of these.
fn records() -> Vec<(Hour, Vec<(&'static str, u64)>)> {
    vec![
        (hour(HOUR), vec![("login", 1)]),
        (hour(HOUR), vec![("resource/209", 40), ("Größe 📏", 2)]),
        (hour(HOUR + 1), vec![("login", 7)]),
        (hour(HOUR + 1), vec![("a", 1_000_000_000), ("login", 1), ("b", 3)]),
    ]
}

/// The sums after the first `count` records.
fn sums(count: usize) -> Sums {
    let mut sums = Sums::new();
    for (hour, counts) in records().into_iter().take(count) {
        for (event, count) in counts {
            *sums.entry((hour, name(event))).or_insert(0) += count;
        }
    }
    sums
}

fn file_name(id: BatchId) -> String {
    segment::file_name(id, Kind::Pending)
}

/// A segment as this version writes it, and where each of its records ends.
fn segment(id: BatchId, ended: bool) -> (Vec<u8>, Vec<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let segment = Segment::create(&OsFiles::open(folder.path()).unwrap(), id, 7).unwrap();
    let mut bytes = std::fs::read(folder.path().join(file_name(id))).unwrap();
    let mut ends = vec![bytes.len()];
    for (hour, counts) in records() {
        let offset = bytes.len() as u64;
        encode_counts(&mut bytes, segment.seed, offset, hour, counts);
        ends.push(bytes.len());
    }
    if ended {
        let offset = bytes.len() as u64;
        encode_end(&mut bytes, segment.seed, offset);
    }
    (bytes, ends)
}

/// The same with the note that all of it is on disk.
fn synced_segment(id: BatchId, ended: bool) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, ends) = segment(id, ended);
    let Header::Valid(layout) = read_header(&bytes, id) else { panic!("a valid header") };
    let offset = bytes.len() as u64;
    encode_synced(&mut bytes, layout.seed, offset, offset);
    (bytes, ends)
}

/// A journal folder with these files.
fn journal(files: &[(BatchId, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (id, bytes) in files {
        std::fs::write(folder.path().join(file_name(*id)), bytes).unwrap();
    }
    folder
}

/// All segments of a folder that wait for their commits.
fn replay(folder: &Path, accept_damage: bool) -> Result<Vec<Replayed>, ReplayError> {
    let files = OsFiles::open(folder).unwrap();
    let found = replay::find(&files)?.pending;
    found.into_iter().map(|id| replay::replay(&files, id, Kind::Pending, accept_damage)).collect()
}

fn replayed(bytes: &[u8]) -> Result<Replayed, ReplayError> {
    let folder = journal(&[(ID, bytes)]);
    replay(folder.path(), false).map(|mut segments| segments.pop().unwrap())
}

fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/journal_v1").join(case)
}

fn fixture_bytes(case: &str) -> Vec<u8> {
    std::fs::read(fixture(case).join(file_name(ID))).unwrap()
}

#[test]
fn whole_segments_of_version_1_give_all_their_counts() {
    for case in ["clean", "sealed"] {
        let segments = replay(&fixture(case), false).unwrap();
        let [segment] = segments.as_slice() else { panic!("{case}: {segments:?}") };
        assert_eq!((segment.id, &segment.counts, segment.records), (ID, &sums(4), 4), "{case}");
        assert_eq!((segment.torn_bytes, segment.damage), (0, None), "{case}");
    }
}

#[test]
fn a_torn_tail_of_version_1_is_cut_off() {
    let [segment] = &replay(&fixture("torn_tail"), false).unwrap()[..] else { panic!("one segment") };
    assert_eq!((&segment.counts, segment.records), (&sums(3), 3));
    assert!(segment.torn_bytes > 0 && segment.damage.is_none());
}

#[test]
fn damage_in_the_middle_is_refused_with_its_size_and_accepted_only_on_request() {
    let error = replay(&fixture("damaged_middle"), false).unwrap_err();
    let (_, ends) = segment(ID, false);
    // Version 1 had a shorter header.
    let ends: Vec<u64> = ends.iter().map(|end| *end as u64 - 8).collect();
    let ReplayError::Damaged { damage, records, sum, .. } = &error else { panic!("{error}") };
    assert_eq!((damage.offset, damage.unreadable_bytes), (ends[1], ends[2] - ends[1]));
    let readable: i128 = sums(4).values().map(|count| i128::from(*count)).sum::<i128>() - 42;
    assert_eq!((*records, *sum), (3, readable));
    assert!(error.to_string().contains("journal.accept_damage = true"), "{error}");

    let [segment] = &replay(&fixture("damaged_middle"), true).unwrap()[..] else { panic!("one segment") };
    assert_eq!(segment.total(), readable);
}

#[test]
fn a_newer_version_is_refused_by_name_even_when_damage_is_accepted() {
    let mut bytes = segment(ID, false).0;
    bytes[8] = 3;
    for accept_damage in [false, true] {
        let error = replay(journal(&[(ID, &bytes)]).path(), accept_damage).unwrap_err();
        assert!(matches!(error, ReplayError::NewerVersion { version: 3, .. }), "{error}");
        assert!(error.to_string().contains("start that version"), "{error}");
    }
}

#[test]
fn a_segment_cut_anywhere_gives_the_longest_valid_prefix() {
    for ended in [false, true] {
        let (bytes, ends) = segment(ID, ended);
        for length in 0..=bytes.len() {
            let segment = replayed(&bytes[..length]).unwrap_or_else(|error| panic!("cut at {length}: {error}"));
            let whole = ends.iter().filter(|end| **end <= length).count().saturating_sub(1);
            assert_eq!((&segment.counts, segment.records), (&sums(whole), whole as u64), "cut at {length}");
            let valid = if length < HEADER_BYTES as usize { 0 } else { ends[whole] };
            // Zeros may be room that was never used.
            let written = bytes[valid..length].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let torn = match length {
                _ if length == bytes.len() => 0,
                _ if length <= HEADER_BYTES as usize => {
                    if length == HEADER_BYTES as usize {
                        0
                    } else {
                        length
                    }
                }
                _ => written,
            };
            assert_eq!(segment.torn_bytes as usize, torn, "cut at {length}");
        }
    }
}

#[test]
fn a_flipped_bit_before_the_last_sync_is_damage() {
    for ended in [false, true] {
        let (bytes, _) = synced_segment(ID, ended);
        // The note of the sync is the last record; without it the rest would be as good as new.
        for bit in 0..(bytes.len() - FRAME_BYTES - 9) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = replayed(&damaged).expect_err("damage");
            assert!(
                matches!(error, ReplayError::Damaged { .. } | ReplayError::NewerVersion { .. }),
                "bit {bit}: {error}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_behind_the_last_sync_costs_its_record_alone() {
    let (bytes, ends) = segment(ID, false);
    for bit in ends[0] * 8..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let segment = replayed(&damaged).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        let hit = ends.iter().filter(|end| **end <= bit / 8).count() - 1;
        let mut expected = Sums::new();
        for (number, (hour, counts)) in records().into_iter().enumerate().filter(|(number, _)| *number != hit) {
            counts.into_iter().for_each(|(event, count)| *expected.entry((hour, name(event))).or_insert(0) += count);
            assert_ne!(number, hit);
        }
        assert_eq!((segment.counts, segment.records), (expected, 3), "bit {bit}");
        assert!(segment.torn_bytes > 0 && segment.damage.is_none(), "bit {bit} went unnoticed");
    }
}

#[test]
fn a_power_cut_that_kept_any_subset_of_the_pages_costs_only_what_was_never_synced() {
    // Many small records over several pages, the first half of them synced.
    let folder = tempfile::tempdir().unwrap();
    let segment = Segment::create(&OsFiles::open(folder.path()).unwrap(), ID, 0).unwrap();
    let mut bytes = std::fs::read(folder.path().join(file_name(ID))).unwrap();
    let mut ends = Vec::new();
    let mut synced = 0;
    for number in 0..600_u64 {
        if number == 300 {
            synced = bytes.len();
            let offset = bytes.len() as u64;
            encode_synced(&mut bytes, segment.seed, offset, offset);
        }
        let offset = bytes.len() as u64;
        encode_counts(&mut bytes, segment.seed, offset, hour(HOUR), [(format!("event-{number}").as_str(), 1)]);
        ends.push((offset as usize, bytes.len()));
    }
    let first_unsynced_page = synced / 512;
    let pages = bytes.len().div_ceil(512) - first_unsynced_page;
    for seed in 0..200_u64 {
        let mut image = bytes.clone();
        for page in 0..pages {
            let is_lost = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (page % 61)) & 1 == 1;
            let from = ((first_unsynced_page + page) * 512).max(synced);
            let to = ((first_unsynced_page + page + 1) * 512).min(bytes.len());
            if is_lost && from < to {
                image[from..to].fill(0);
            }
        }
        let segment = replayed(&image).unwrap_or_else(|error| panic!("image {seed}: {error}"));
        for (number, (start, end)) in ends.iter().enumerate() {
            // A page of zeros may hold just what stood there.
            let is_whole = image[*start..*end] == bytes[*start..*end];
            let is_counted = segment.counts.contains_key(&(hour(HOUR), name(&format!("event-{number}"))));
            assert_eq!(is_counted, is_whole, "image {seed}, record {number}");
            assert!(is_counted || number >= 300, "image {seed} lost the synced record {number}");
        }
    }
}

#[test]
fn a_segment_is_read_piece_by_piece_however_long_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::healthy();
    let dir = plan.folder(folder.path());
    let segment = Segment::create(&*dir.journal, ID, 0).unwrap();
    let (mut bytes, mut records) = (Vec::new(), 0);
    while bytes.len() < 8 << 20 {
        let offset = HEADER_BYTES + bytes.len() as u64;
        encode_counts(&mut bytes, segment.seed, offset, hour(HOUR), [("x".repeat(200).as_str(), 1)]);
        records += 1;
    }
    // Neither what can't be read nor room that was never used is taken into memory as a whole.
    let torn = bytes.len() - 100;
    bytes[torn] ^= 1;
    bytes.resize(16 << 20, 0);
    segment.file.write_at(&bytes, HEADER_BYTES).unwrap();
    let replayed = replay::replay(&*dir.journal, ID, Kind::Pending, false).unwrap();
    assert_eq!((replayed.records, replayed.total()), (records - 1, i128::from(records) - 1));
    assert!(plan.longest_read() <= 2 << 20, "{} bytes were read at once", plan.longest_read());
}

#[test]
fn a_file_that_ends_before_its_last_sync_is_damaged() {
    let (bytes, ends) = synced_segment(ID, false);
    let mut note = bytes[bytes.len() - FRAME_BYTES - 9..].to_vec();
    let Header::Valid(layout) = read_header(&bytes, ID) else { panic!("a valid header") };
    let mut cut = bytes[..ends[2]].to_vec();
    note.clear();
    encode_synced(&mut note, layout.seed, ends[2] as u64, bytes.len() as u64);
    cut.extend_from_slice(&note);
    assert!(matches!(replayed(&cut), Err(ReplayError::Damaged { .. })));
}

#[test]
fn catalog_and_base_of_a_segment_are_read_back() {
    let (mut bytes, _) = segment(ID, false);
    let Header::Valid(layout) = read_header(&bytes, ID) else { panic!("a valid header") };
    let offset = bytes.len() as u64;
    encode_base(&mut bytes, layout.seed, offset, 1 << 70);
    let segment = replayed(&bytes).unwrap();
    assert_eq!((segment.catalog, segment.base), (Some(7), Some(1 << 70)));
}

#[test]
fn bytes_of_another_segment_or_place_never_pass_for_records() {
    let (own, ends) = segment(ID, false);
    let (other, _) = segment(BatchId { seq: BatchSeq(2), ..ID }, false);
    let mut mixed = own[..ends[2]].to_vec();
    mixed.extend_from_slice(&other[ends[2]..]);
    assert_eq!(replayed(&mixed).unwrap().counts, sums(2), "records of another segment");

    let mut repeated = own.clone();
    repeated.extend_from_slice(&own[ends[3]..]);
    assert_eq!(replayed(&repeated).unwrap().counts, sums(4), "a record that stands there twice");

    let folder = journal(&[(BatchId { seq: BatchSeq(7), ..ID }, &own)]);
    assert!(matches!(replay(folder.path(), false), Err(ReplayError::Damaged { .. })), "a renamed segment");
}

#[test]
fn a_length_beyond_all_reason_is_a_torn_tail() {
    let (mut bytes, _) = segment(ID, false);
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    bytes.extend_from_slice(&[0; FRAME_BYTES]);
    assert_eq!(replayed(&bytes).unwrap().counts, sums(4));
}

#[test]
fn zeros_at_the_end_are_room_that_was_never_used() {
    for ended in [false, true] {
        let (mut bytes, _) = segment(ID, ended);
        bytes.extend_from_slice(&[0; 5000]);
        let segment = replayed(&bytes).unwrap();
        assert_eq!((segment.counts, segment.torn_bytes, segment.damage), (sums(4), 0, None));
    }
}

#[test]
fn empty_files_count_nothing_and_garbage_is_refused() {
    assert_eq!(replayed(b"").unwrap().counts, Sums::new());
    assert_eq!(replayed(&[0; HEADER_BYTES as usize]).unwrap().counts, Sums::new(), "never used");
    for garbage in [vec![0; 4096], b"what is this? ".repeat(100), vec![0xff; 49]] {
        assert!(matches!(replayed(&garbage), Err(ReplayError::Damaged { .. })));
    }
}

#[test]
fn a_missing_segment_between_others_is_refused_by_its_name() {
    let id = |seq| BatchId { seq: BatchSeq(seq), ..ID };
    let bytes = |seq| segment(id(seq), true).0;
    let folder = journal(&[(id(4), &bytes(4)), (id(6), &bytes(6))]);
    let error = replay(folder.path(), true).unwrap_err();
    assert!(matches!(&error, ReplayError::Missing { path } if path.ends_with(file_name(id(5)))), "{error}");

    let folder = journal(&[(id(4), &bytes(4)), (id(5), &bytes(5))]);
    assert_eq!(replay(folder.path(), false).unwrap().len(), 2, "earlier ones are gone because they are committed");
}

#[test]
fn other_files_in_the_folder_are_left_alone() {
    let folder = journal(&[(ID, &segment(ID, true).0)]);
    for other in ["notes.txt", "x.journal", "LOCK"] {
        std::fs::write(folder.path().join(other), "not ours").unwrap();
    }
    assert_eq!(replay(folder.path(), false).unwrap().len(), 1);
}

#[test]
fn reading_twice_gives_the_same_and_changes_nothing() {
    let (bytes, ends) = segment(ID, false);
    let folder = journal(&[(ID, &bytes[..ends[3] + 5])]);
    let first = replay(folder.path(), false).unwrap();
    assert_eq!(replay(folder.path(), false).unwrap(), first);
    assert_eq!(std::fs::read(folder.path().join(file_name(ID))).unwrap(), bytes[..ends[3] + 5]);
}

fn recover(data_dir: &Path) -> Result<(Batches, Recovered), RecoverError> {
    let folder = DataDir::lock(data_dir).unwrap();
    Batches::recover(&folder, Options::default(), Arc::new(Names::new(Limits { events_max: 1000 })))
}

fn pending(batches: &Batches) -> Sums {
    let pending = batches.pending().within(HourRange::ALL);
    pending.into_iter().map(|row| ((row.hour, row.event), row.count)).collect()
}

#[test]
fn recovery_repeats_exactly_however_often_it_is_interrupted() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path().join("journal");
    std::fs::create_dir_all(&dir).unwrap();
    let (bytes, ends) = segment(ID, false);
    std::fs::write(dir.join(file_name(ID)), &bytes[..ends[3] + 5]).unwrap();
    // A rewrite that a crash has left half done is no segment.
    std::fs::write(dir.join(file_name(ID)).with_extension("rewrite"), &bytes[..50]).unwrap();

    for start in 0..3 {
        let (batches, found) = recover(data_dir.path()).unwrap();
        assert_eq!(pending(&batches), sums(3), "start {start}");
        assert_eq!(found.torn_bytes, if start == 0 { 5 } else { 0 }, "start {start}");
        let sealed = batches.oldest_sealed(&[]).unwrap();
        assert_eq!(sealed.id, ID, "a recovered batch keeps the identity it was born with");
    }
}

#[test]
fn a_recovered_batch_stays_sealed_and_new_counts_go_into_a_new_one() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path().join("journal");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(file_name(ID)), segment(ID, false).0).unwrap();

    let (batches, _) = recover(data_dir.path()).unwrap();
    batches.record(&name("login"), hour(HOUR), 5).unwrap();
    drop(batches);
    let (batches, found) = recover(data_dir.path()).unwrap();
    assert_eq!(found.batches, 2);
    let mut expected = sums(4);
    *expected.entry((hour(HOUR), name("login"))).or_insert(0) += 5;
    assert_eq!(pending(&batches), expected);
    let recovered = replay(&dir, false).unwrap().into_iter().find(|segment| segment.id == ID).unwrap();
    assert_eq!(recovered.counts, sums(4), "the old batch did not change");
}

#[test]
fn a_journal_that_can_not_be_read_is_left_as_it_is() {
    for case in ["damaged_middle", "newer_version"] {
        let data_dir = tempfile::tempdir().unwrap();
        let dir = data_dir.path().join("journal");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(file_name(ID)), fixture_bytes(case)).unwrap();
        assert!(recover(data_dir.path()).is_err(), "{case}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "{case}");
        assert_eq!(std::fs::read(dir.join(file_name(ID))).unwrap(), fixture_bytes(case), "{case}");
    }
}

#[test]
fn the_fixtures_have_the_header_of_their_batch() {
    assert!(matches!(read_header(&fixture_bytes("clean"), ID), Header::Valid(_)));
}
