//! The fuzz target `snapshot`: see `checks/snapshot.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_fuzz::snapshot::check(input));
