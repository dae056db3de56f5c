//! The target [`fuzz::records`] for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz::records::run(input);
});
