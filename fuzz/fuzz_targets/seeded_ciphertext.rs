#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    cipherlens_fuzz::targets::seeded_ciphertext(bytes);
});
