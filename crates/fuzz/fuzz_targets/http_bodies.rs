//! The target [`fuzz::http_bodies`] for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz::http_bodies::run(input);
});
