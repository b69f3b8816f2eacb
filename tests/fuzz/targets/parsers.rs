//! The fuzz target `parsers`: see `checks/parsers.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_fuzz::parsers::check(input));
