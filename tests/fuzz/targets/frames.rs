//! The fuzz target `frames`: see `checks/frames.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_fuzz::frames::check(input));
