//! Inputs for fuzz tests that are nearly right: pure noise gets no further than the first byte of a parser.
//!
//! `BOLERO_RANDOM_TEST_TIME_MS` says how long each fuzz test tries (one second), and `cargo bolero test NAME` lets a
//! fuzzer do it that sees which branches an input takes.

/// One change: where, what kind of, and which byte.
pub type Edit = (u16, u8, u8);

/// One of these texts, changed.
pub fn mangled(texts: &[&[u8]], which: u8, edits: &[Edit]) -> Vec<u8> {
    let mut bytes = texts[usize::from(which) % texts.len()].to_vec();
    for (place, kind, byte) in edits {
        let at = usize::from(*place) % (bytes.len() + 1);
        match kind % 5 {
            0 => bytes.insert(at, *byte),
            1 => bytes.truncate(at),
            2 => bytes.extend_from_within(..at.min(64)),
            _ => {
                if let Some(found) = bytes.get_mut(at) {
                    *found = if kind % 5 == 3 { *byte } else { *found ^ (1 << (byte % 8)) };
                }
            }
        }
    }
    bytes
}
