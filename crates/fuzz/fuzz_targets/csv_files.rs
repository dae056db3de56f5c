//! A file is commands up to the first row that is none.
#![no_main]

use std::io::Cursor;

use client::replay::csv_file::CsvFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(rows) = CsvFile::from_reader(Cursor::new(file.to_vec())) else { return };
    let read: Vec<_> = rows.collect();
    assert!(read.iter().rev().skip(1).all(Result::is_ok), "{read:?}");
});
