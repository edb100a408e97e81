//! See `leads_fuzz::targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leads_fuzz::targets::access(data));
