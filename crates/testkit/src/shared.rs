//! Data that the repository has not: networks and pictures of others. Tests that need them are ignored unless asked for.

use std::path::PathBuf;

/// Names the folder; without it, it is `shared/data` beside the repository.
const FOLDER: &str = "CIPHERLENS_DATA";

/// A file of the folder.
///
/// # Panics
/// Where it is not there.
pub fn path(name: &str) -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os(FOLDER).map_or_else(beside, PathBuf::from).join(name);
    assert!(path.is_file(), "{} is not there: {FOLDER} names the folder that has it", path.display());
    path
}

/// Its content.
///
/// # Panics
/// As [`path`].
pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).expect("a file that is there can be read")
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
