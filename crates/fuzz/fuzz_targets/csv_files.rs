//! The target [`fuzz::csv_files`] for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz::csv_files::run(input);
});
