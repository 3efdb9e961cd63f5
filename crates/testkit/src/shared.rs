//! Data kept beside the repository, for tests that can do without it.

use std::path::PathBuf;

/// A file of `../shared/data`, if it is there; says so if it is not.
pub fn path(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// Its content.
pub fn read(name: &str) -> Option<Vec<u8>> {
    Some(std::fs::read(path(name)?).expect("a file that is there can be read"))
}

/// A member of an npz file (a zip archive), an array of little-endian f64.
pub fn npz_f64(archive: &[u8], name: &str) -> Vec<f64> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([archive[at], archive[at + 1]]));
    let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
    // The central directory: one record a member, found through the record at the end.
    let end = (0..archive.len() - 21).rev().find(|i| archive[*i..].starts_with(b"PK\x05\x06")).expect("a zip archive");
    let mut at = u32_at(end + 16);
    loop {
        assert!(archive[at..].starts_with(b"PK\x01\x02"), "{name} is not in the archive");
        let (method, size, name_len) = (u16_at(at + 10), u32_at(at + 20), u16_at(at + 28));
        let found = &archive[at + 46..at + 46 + name_len] == name.as_bytes();
        let local = u32_at(at + 42);
        at += 46 + name_len + u16_at(at + 30) + u16_at(at + 32);
        if found {
            let data = local + 30 + u16_at(local + 26) + u16_at(local + 28);
            let packed = &archive[data..data + size];
            let array = match method {
                0 => packed.to_vec(),
                8 => miniz_oxide::inflate::decompress_to_vec(packed).expect("deflated"),
                other => panic!("compression method {other}"),
            };
            let header = 10 + usize::from(u16::from_le_bytes([array[8], array[9]]));
            let text = String::from_utf8_lossy(&array[10..header]);
            assert!(text.contains("'<f8'") && text.contains("'fortran_order': False"), "{text}");
            return array[header..].as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        }
    }
}
