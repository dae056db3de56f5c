//! Copies of inputs with a few random changes: still close enough to the original to pass a decoder's first checks.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// How likely another change is after each: half of the copies have one, few have more than four.
const ANOTHER: f64 = 0.5;

/// Longest range that a change removes or inserts.
const RANGE_LEN_MAX: usize = 16;

/// Bytes that a decoder treats differently from their neighbours: bounds of integers, JSON, CSV, numbers, Avro's varints.
const SPECIAL: &[u8] = b"\x00\x01\x02\x7f\x80\xfe\xff\"\\{}[],:;.-+0123456789eE \n\r\t";

/// What single bytes seldom make: lengths and numbers that are too large, too small or too long, and other JSON values.
const TOKENS: [&[u8]; 14] = [
    // As Avro's zigzag varint: 2^28, which fits in memory but in no record, 2^62 and -1.
    b"\x80\x80\x80\x80\x02",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x01",
    b"2147483648",
    b"-9223372036854775809",
    b"99999999999999999999999999999999",
    b"0.00001",
    b"1e999",
    b"1e-999",
    b"null",
    b"[]",
    b"{}",
    b"\\u0000",
    "\u{7fe1}".as_bytes(),
];

/// A damaged copy of one of `inputs`.
pub(crate) fn damaged(rng: &mut StdRng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = any(rng, inputs).to_vec();
    loop {
        change(rng, inputs, &mut bytes);
        if !rng.random_bool(ANOTHER) {
            return bytes;
        }
    }
}

fn change(rng: &mut StdRng, inputs: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let at = rng.random_range(0..=bytes.len());
    let len = rng.random_range(1..=RANGE_LEN_MAX);
    let end = bytes.len().min(at + len);
    match rng.random_range(0..8) {
        0 => set(bytes, at, rng.random()),
        1 => set(bytes, at, special(rng)),
        2 => bytes.insert(at, special(rng)),
        3 => drop(bytes.drain(at..end)),
        4 => bytes.truncate(at),
        5 => {
            let repeated = bytes[at..end].to_vec();
            insert(bytes, at, &repeated);
        }
        6 => {
            let other = any(rng, inputs);
            let from = rng.random_range(0..=other.len());
            insert(bytes, at, &other[from..other.len().min(from + len)]);
        }
        // In the place of one byte.
        _ => drop(bytes.splice(at..bytes.len().min(at + 1), token(rng).iter().copied())),
    }
}

fn any<'a>(rng: &mut StdRng, inputs: &'a [Vec<u8>]) -> &'a [u8] {
    inputs.choose(rng).map(Vec::as_slice).unwrap_or_default()
}

fn special(rng: &mut StdRng) -> u8 {
    SPECIAL.choose(rng).copied().unwrap_or_default()
}

fn token(rng: &mut StdRng) -> &'static [u8] {
    TOKENS.choose(rng).copied().unwrap_or_default()
}

/// Does nothing at the end.
fn set(bytes: &mut [u8], at: usize, byte: u8) {
    if let Some(place) = bytes.get_mut(at) {
        *place = byte;
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, inserted: &[u8]) {
    drop(bytes.splice(at..at, inserted.iter().copied()));
}
