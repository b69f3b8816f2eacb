//! The fuzz target `config`: see `checks/config.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_fuzz::config::check(input));
