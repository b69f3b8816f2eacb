//! The fuzz target `proxy_header`: see `checks/proxy_header.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_fuzz::proxy_header::check(input));
