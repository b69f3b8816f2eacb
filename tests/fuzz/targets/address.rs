//! The fuzz target `address`: see `checks/address.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_fuzz::address::check(input));
