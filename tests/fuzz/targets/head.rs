//! The fuzz target `head`: see `checks/head.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_fuzz::head::check(input));
