//! The fuzz target `request`: see `checks/request.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_fuzz::request::check(input));
