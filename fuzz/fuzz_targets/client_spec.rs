#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    cipherlens_fuzz::targets::client_spec(bytes);
});
