//! The fuzz target `answer`: see `checks/answer.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_fuzz::answer::check(input));
