//! The target [`fuzz::trace_contexts`] for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz::trace_contexts::run(input);
});
