//! A CSV file is commands up to its first bad row.

use std::io::Cursor;

use client::replay::csv_file::CsvFile;

/// Reads a file to its end, or to its first bad row.
///
/// # Panics
/// If rows follow a bad one.
pub fn run(file: &[u8]) -> bool {
    let Ok(rows) = CsvFile::from_reader(Cursor::new(file.to_vec())) else { return false };
    let rows: Vec<_> = rows.collect();
    assert!(rows.iter().rev().skip(1).all(Result::is_ok), "{rows:?}");
    rows.iter().any(Result::is_ok)
}
