//! The container of every file.
//!
//! ```text
//! bytes 0..8     magic "CIPHLENS"
//!       8..10    format version, u16
//!      10..12    kind, u16
//!      12..16    length H of the header, u32, at most 1 MiB
//!      16..48    BLAKE3 of bytes 0..16 and the header
//!      48..48+H  header: bincode of (metadata of the kind, chunk table)
//!      then, each at the next multiple of 64 bytes, the chunks: u32 words, at most 16 MiB, their BLAKE3 in the table
//! ```
//!
//! All integers are little-endian. The file ends with its last chunk.

use super::{Kind, WireError};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"CIPHLENS";
/// Version written and read. Version 1 did not say which network keys and ciphertexts belong to.
pub const VERSION: u16 = 2;
/// Largest header, bytes.
pub const MAX_HEADER_BYTES: usize = 1 << 20;
/// Largest chunk, words.
pub const MAX_CHUNK_WORDS: usize = 4 << 20;
/// Chunks begin at multiples of this.
const ALIGNMENT: u64 = 64;
/// Bytes before the header.
const PRELUDE: usize = 48;

/// One chunk as the header records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct ChunkEntry {
    /// Its length in words.
    pub words: u32,
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

/// bincode as headers use it: little-endian, bounded.
fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_HEADER_BYTES>()
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> WireError {
    let path = path.to_path_buf();
    move |source| WireError::Io { action, path, source }
}

/// Writes a file in one go; see [`Writer`].
pub fn write<M: Serialize>(path: &Path, kind: Kind, metadata: &M, chunks: &[&[u32]], private: bool) -> Result<(), WireError> {
    let sizes: Vec<usize> = chunks.iter().map(|c| c.len()).collect();
    let mut writer = Writer::create(path, kind, metadata, &sizes, private)?;
    for chunk in chunks {
        writer.chunk(chunk)?;
    }
    writer.finish()
}

/// A file being written, chunk by chunk: to a temporary name beside it, then flushed to disk and renamed over `path`, so that
/// there is never half a file under that name. One that other users of the machine must not read is `private` (mode 0600
/// where the system has modes). Dropped before [`Self::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Writer<M> {
    path: PathBuf,
    kind: Kind,
    metadata: M,
    temporary: Temporary,
    table: Vec<ChunkEntry>,
    written: usize,
    at: u64,
}

impl<M: Serialize> Writer<M> {
    /// Begins a file whose chunks will have these lengths in words.
    pub fn create(path: &Path, kind: Kind, metadata: M, words: &[usize], private: bool) -> Result<Self, WireError> {
        if let Some(&words) = words.iter().find(|&&words| words > MAX_CHUNK_WORDS) {
            let (expected, found) = (format!("at most {MAX_CHUNK_WORDS} words"), words.to_string());
            return Err(WireError::Shape { what: "chunk", expected, found });
        }
        let table: Vec<ChunkEntry> = words.iter().map(|&w| ChunkEntry { words: w as u32, hash: [0; 32] }).collect();
        // Hashes have a fixed size, so the header has its final length before they are known.
        let header = encode_header(&metadata, &table)?;
        let temporary = Temporary::beside(path, private)?;
        let at = (PRELUDE + header.len()) as u64;
        Ok(Self { path: path.to_path_buf(), kind, metadata, temporary, table, written: 0, at })
    }

    /// Writes the next chunk, of the length announced.
    pub fn chunk(&mut self, words: &[u32]) -> Result<(), WireError> {
        let announced = self.table.get(self.written).map(|c| c.words as usize);
        if announced != Some(words.len()) {
            let expected = announced.map_or("no further chunk".into(), |n| n.to_string());
            return Err(WireError::Shape { what: "words of a chunk", expected, found: words.len().to_string() });
        }
        let swapped = to_little_endian(words);
        let bytes: &[u8] = bytemuck::cast_slice(swapped.as_deref().map_or(words, Vec::as_slice));
        self.table[self.written].hash = hash(bytes);
        self.at = self.at.next_multiple_of(ALIGNMENT);
        self.temporary.write_at(self.at, bytes).map_err(io("write", &self.path))?;
        self.at += bytes.len() as u64;
        self.written += 1;
        Ok(())
    }

    /// Writes the header and gives the file its name.
    pub fn finish(mut self) -> Result<(), WireError> {
        if self.written != self.table.len() {
            let (expected, found) = (self.table.len().to_string(), self.written.to_string());
            return Err(WireError::Shape { what: "chunks written", expected, found });
        }
        let header = encode_header(&self.metadata, &self.table)?;
        let mut start = vec![0u8; PRELUDE];
        start[..8].copy_from_slice(&MAGIC);
        start[8..10].copy_from_slice(&VERSION.to_le_bytes());
        start[10..12].copy_from_slice(&(self.kind as u16).to_le_bytes());
        start[12..16].copy_from_slice(&(header.len() as u32).to_le_bytes());
        let hash = header_hash(&start, &header);
        start[16..].copy_from_slice(&hash);
        start.extend(header);
        self.temporary.write_at(0, &start).map_err(io("write", &self.path))?;
        self.temporary.file.sync_all().map_err(io("write", &self.path))?;
        self.temporary.rename(&self.path)
    }
}

fn encode_header<M: Serialize>(metadata: &M, table: &[ChunkEntry]) -> Result<Vec<u8>, WireError> {
    let header = bincode::serde::encode_to_vec((metadata, table), bincode_config())
        .map_err(|e| WireError::Header { reason: e.to_string() })?;
    if header.len() > MAX_HEADER_BYTES {
        let (expected, found) = (format!("at most {MAX_HEADER_BYTES} bytes"), header.len().to_string());
        return Err(WireError::Shape { what: "header", expected, found });
    }
    Ok(header)
}

/// An open file whose header is checked; chunks are read one by one.
#[derive(Debug)]
pub struct Reader<M> {
    /// What the kind of file says about itself.
    pub metadata: M,
    path: PathBuf,
    file: File,
    chunks: Vec<ChunkEntry>,
    positions: Vec<u64>,
}

/// The kind of a file, from its first bytes.
pub fn kind_of(path: &Path) -> Result<Kind, WireError> {
    let mut file = File::open(path).map_err(io("read", path))?;
    let mut prelude = [0u8; PRELUDE];
    read_prelude(&mut file, path, &mut prelude)
}

impl<M: DeserializeOwned> Reader<M> {
    /// Opens a file of a kind: magic, version, kind, header hash and total length are checked before anything is used.
    pub fn open(path: &Path, kind: Kind) -> Result<Self, WireError> {
        let mut file = File::open(path).map_err(io("read", path))?;
        let length = file.metadata().map_err(io("read", path))?.len();
        let mut prelude = [0u8; PRELUDE];
        let found = read_prelude(&mut file, path, &mut prelude)?;
        if found != kind {
            return Err(WireError::Kind { found: found.to_string(), expected: kind });
        }
        let size = u32::from_le_bytes([prelude[12], prelude[13], prelude[14], prelude[15]]) as usize;
        if size > MAX_HEADER_BYTES {
            let (expected, found) = (format!("at most {MAX_HEADER_BYTES} bytes"), size.to_string());
            return Err(WireError::Shape { what: "header", expected, found });
        }
        if length < (PRELUDE + size) as u64 {
            return Err(WireError::Length { what: "header", expected: (PRELUDE + size) as u64, found: length });
        }
        let mut header = vec![0u8; size];
        file.read_exact(&mut header).map_err(io("read", path))?;
        if header_hash(&prelude, &header) != prelude[16..] {
            return Err(WireError::Hash { what: "header".into() });
        }
        let ((metadata, chunks), used): ((M, Vec<ChunkEntry>), usize) =
            bincode::serde::decode_from_slice(&header, bincode_config())
                .map_err(|e| WireError::Header { reason: e.to_string() })?;
        if used != size {
            return Err(WireError::Header { reason: format!("{} bytes are left over", size - used) });
        }
        let mut positions = Vec::with_capacity(chunks.len());
        let mut end = (PRELUDE + size) as u64;
        for chunk in &chunks {
            if chunk.words as usize > MAX_CHUNK_WORDS {
                let (expected, found) = (format!("at most {MAX_CHUNK_WORDS} words"), chunk.words.to_string());
                return Err(WireError::Shape { what: "chunk", expected, found });
            }
            let start = end.next_multiple_of(ALIGNMENT);
            positions.push(start);
            end = start + 4 * u64::from(chunk.words);
        }
        if length != end {
            return Err(WireError::Length { what: "chunks", expected: end, found: length });
        }
        Ok(Self { metadata, path: path.to_path_buf(), file, chunks, positions })
    }

    /// The chunk table.
    pub fn chunks(&self) -> &[ChunkEntry] {
        &self.chunks
    }

    /// Reads a chunk, which must have `words` words and the recorded hash.
    pub fn chunk(&mut self, index: usize, words: usize) -> Result<Vec<u32>, WireError> {
        self.check_chunk(index, words)?;
        let mut out = vec![0u32; words];
        self.chunk_into(index, &mut out)?;
        Ok(out)
    }

    /// Reads a chunk, as long as `out` and with the recorded hash, into memory that is the caller's to wipe, also after an error. Nothing
    /// of the chunk is anywhere else.
    pub fn chunk_into(&mut self, index: usize, out: &mut [u32]) -> Result<(), WireError> {
        self.check_chunk(index, out.len())?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(out);
        let read = |file: &mut File, bytes: &mut [u8]| {
            file.seek(SeekFrom::Start(self.positions[index]))?;
            file.read_exact(bytes)
        };
        read(&mut self.file, bytes).map_err(io("read", &self.path))?;
        if hash(bytes) != self.chunks[index].hash {
            return Err(WireError::Hash { what: format!("chunk {index}") });
        }
        if cfg!(target_endian = "big") {
            out.iter_mut().for_each(|w| *w = u32::from_le(*w));
        }
        Ok(())
    }

    fn check_chunk(&self, index: usize, words: usize) -> Result<(), WireError> {
        let found = self.chunks.get(index).map(|c| c.words as usize);
        if found == Some(words) {
            return Ok(());
        }
        let found = found.map_or("no such chunk".into(), |n| n.to_string());
        Err(WireError::Shape { what: "words of a chunk", expected: words.to_string(), found })
    }
}

/// BLAKE3, without a trace of the bytes in the hasher that was used.
fn hash(bytes: &[u8]) -> [u8; 32] {
    *Zeroizing::new(blake3::Hasher::new()).update(bytes).finalize().as_bytes()
}

fn read_prelude(file: &mut File, path: &Path, prelude: &mut [u8; PRELUDE]) -> Result<Kind, WireError> {
    let mut filled = 0;
    while filled < PRELUDE {
        match file.read(&mut prelude[filled..]).map_err(io("read", path))? {
            0 => break,
            n => filled += n,
        }
    }
    if filled < MAGIC.len() || prelude[..8] != MAGIC {
        return Err(WireError::Magic);
    }
    if filled < PRELUDE {
        return Err(WireError::Length { what: "prelude", expected: PRELUDE as u64, found: filled as u64 });
    }
    let version = u16::from_le_bytes([prelude[8], prelude[9]]);
    if version != VERSION {
        return Err(WireError::Version { found: version, supported: VERSION });
    }
    let kind = u16::from_le_bytes([prelude[10], prelude[11]]);
    Kind::from_u16(kind).ok_or_else(|| WireError::Shape {
        what: "kind",
        expected: format!("1 to {}", Kind::ALL.len()),
        found: kind.to_string(),
    })
}

fn header_hash(prelude: &[u8], header: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&prelude[..16]).update(header).finalize().as_bytes()
}

/// The words as they stand in a file; a copy is made, and wiped, only where the machine has another order.
fn to_little_endian(words: &[u32]) -> Option<Zeroizing<Vec<u32>>> {
    cfg!(target_endian = "big").then(|| Zeroizing::new(words.iter().map(|w| w.to_le()).collect()))
}

/// A file that disappears unless it is renamed.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Temporary {
    fn beside(path: &Path, private: bool) -> Result<Self, WireError> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut options = OpenOptions::new();
        // Never an existing file: it might be readable by others, or a link to somewhere else.
        options.write(true).create_new(true);
        #[cfg(unix)]
        if private {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        #[cfg(not(unix))]
        let _ = private;
        let mut attempt = 0;
        let (temporary, file) = loop {
            let temporary = path.with_file_name(format!(".{name}.{}.{attempt}.part", std::process::id()));
            match options.open(&temporary) {
                Ok(file) => break (temporary, file),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
                Err(e) => return Err(io("write", path)(e)),
            }
        };
        Ok(Self { path: temporary, file, kept: false })
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(bytes)
    }

    fn rename(mut self, to: &Path) -> Result<(), WireError> {
        std::fs::rename(&self.path, to).map_err(io("write", to))?;
        self.kept = true;
        // The rename itself reaches the disk with the directory; a system that cannot sync one is not an error.
        if let Some(Ok(directory)) = to.parent().map(File::open) {
            let _ = directory.sync_all();
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    type Meta = (String, u64);

    fn sample(dir: &Path) -> (PathBuf, Vec<Vec<u32>>) {
        let path = dir.join("sample.ct");
        let chunks: Vec<Vec<u32>> = vec![(0..100).collect(), vec![], vec![u32::MAX; 17]];
        let slices: Vec<&[u32]> = chunks.iter().map(Vec::as_slice).collect();
        write(&path, Kind::Ciphertext, &("meta".to_string(), 7u64), &slices, false).unwrap();
        (path, chunks)
    }

    fn read_all(path: &Path) -> Result<(Meta, Vec<Vec<u32>>), WireError> {
        let mut reader = Reader::<Meta>::open(path, Kind::Ciphertext)?;
        let sizes: Vec<usize> = reader.chunks().iter().map(|c| c.words as usize).collect();
        let chunks = sizes.iter().enumerate().map(|(i, &n)| reader.chunk(i, n)).collect::<Result<_, _>>()?;
        Ok((reader.metadata, chunks))
    }

    #[test]
    fn layout_is_as_documented() {
        let dir = tempfile::tempdir().unwrap();
        let (path, chunks) = sample(dir.path());
        let bytes = fs::read(&path).unwrap();
        assert_eq!(&bytes[..8], b"CIPHLENS");
        assert_eq!(bytes[8..12], [2, 0, 5, 0]);
        let header = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let first = (48 + header).next_multiple_of(64);
        assert_eq!(bytes[first + 4..first + 8], [1, 0, 0, 0], "word 1 of chunk 0");
        assert_eq!(bytes.len(), (first + 400).next_multiple_of(64) + 68);
        let (meta, read) = read_all(&path).unwrap();
        assert_eq!((meta, read), (("meta".into(), 7), chunks));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_bit_flip_outside_padding_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = sample(dir.path());
        let bytes = fs::read(&path).unwrap();
        let header = 48 + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let first = header.next_multiple_of(64);
        let padding = |i: usize| (header..first).contains(&i) || (first + 400..(first + 400).next_multiple_of(64)).contains(&i);
        let damaged = dir.path().join("damaged.ct");
        for i in (0..bytes.len()).filter(|&i| !padding(i)) {
            for bit in 0..8 {
                let mut copy = bytes.clone();
                copy[i] ^= 1 << bit;
                fs::write(&damaged, &copy).unwrap();
                assert!(read_all(&damaged).is_err(), "byte {i} bit {bit}");
            }
        }
    }

    #[test]
    fn every_cut_and_any_addition_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = sample(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        let damaged = dir.path().join("damaged.ct");
        for cut in 0..bytes.len() {
            fs::write(&damaged, &bytes[..cut]).unwrap();
            assert!(read_all(&damaged).is_err(), "cut at {cut}");
        }
        bytes.push(0);
        fs::write(&damaged, &bytes).unwrap();
        assert!(matches!(read_all(&damaged), Err(WireError::Length { what: "chunks", .. })));
    }

    /// A file whose header hash is right but whose header lies.
    fn forge(path: &Path, header: &[u8], claimed: u32) {
        let mut prelude = [0u8; PRELUDE];
        prelude[..8].copy_from_slice(&MAGIC);
        prelude[8..12].copy_from_slice(&[2, 0, 5, 0]);
        prelude[12..16].copy_from_slice(&claimed.to_le_bytes());
        let hash = header_hash(&prelude, header);
        prelude[16..].copy_from_slice(&hash);
        fs::write(path, [&prelude[..], header].concat()).unwrap();
    }

    #[test]
    fn forged_headers_are_refused_without_large_allocations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("forged.ct");
        forge(&path, &[], u32::MAX);
        assert!(matches!(read_all(&path), Err(WireError::Shape { what: "header", .. })));
        // A string of 2^60 bytes (bincode: 253 begins a u64 length).
        let lie = [&[253u8][..], &(1u64 << 60).to_le_bytes()].concat();
        forge(&path, &lie, lie.len() as u32);
        assert!(matches!(read_all(&path), Err(WireError::Header { .. })));
        // An empty string, 0, a table of 2^40 chunks.
        let lie = [&[0u8, 0, 253][..], &(1u64 << 40).to_le_bytes()].concat();
        forge(&path, &lie, lie.len() as u32);
        assert!(matches!(read_all(&path), Err(WireError::Header { .. })));
        // Left-over bytes, which bincode itself would let pass.
        forge(&path, &[0, 0, 0, 9], 4);
        assert!(matches!(read_all(&path), Err(WireError::Header { reason }) if reason.contains("left over")));
        // An honest empty header is fine.
        forge(&path, &[0, 0, 0], 3);
        read_all(&path).unwrap();
        // A chunk that the file does not have.
        let entry = bincode::serde::encode_to_vec(
            (("".to_string(), 0u64), vec![ChunkEntry { words: MAX_CHUNK_WORDS as u32, hash: [0; 32] }]),
            bincode_config(),
        );
        let entry = entry.unwrap();
        forge(&path, &entry, entry.len() as u32);
        assert!(matches!(read_all(&path), Err(WireError::Length { .. })));
    }

    #[test]
    fn a_file_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("given-up.ct");
        let mut writer = Writer::create(&path, Kind::Ciphertext, 0u8, &[2, 3], false).unwrap();
        assert!(matches!(writer.chunk(&[1]), Err(WireError::Shape { what: "words of a chunk", .. })));
        writer.chunk(&[1, 2]).unwrap();
        assert!(matches!(writer.finish(), Err(WireError::Shape { what: "chunks written", .. })));
        assert!(matches!(
            Writer::create(&path, Kind::Ciphertext, 0u8, &[MAX_CHUNK_WORDS + 1], false),
            Err(WireError::Shape { what: "chunk", .. })
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn other_kinds_and_versions_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = sample(dir.path());
        let error = Reader::<Meta>::open(&path, Kind::SecretKey).unwrap_err();
        assert_eq!(error.to_string(), "this is a file of kind `ciphertext`, and one of kind `secret key` is needed");
        assert_eq!(kind_of(&path).unwrap(), Kind::Ciphertext);
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 9;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(kind_of(&path), Err(WireError::Version { found: 9, supported: VERSION })));
        fs::write(&path, b"{}").unwrap();
        assert!(matches!(kind_of(&path), Err(WireError::Magic)));
    }

    #[test]
    #[cfg(unix)]
    fn private_files_are_private_and_replaced_whole() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        write(&path, Kind::SecretKey, &0u8, &[&[1, 2]], true).unwrap();
        write(&path, Kind::SecretKey, &0u8, &[&[3, 4, 5]], true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Reader::<u8>::open(&path, Kind::SecretKey).unwrap().chunk(0, 3).unwrap(), [3, 4, 5]);
        let nowhere = dir.path().join("missing").join("secret.key");
        assert!(matches!(write(&nowhere, Kind::SecretKey, &0u8, &[], true), Err(WireError::Io { action: "write", .. })));
    }
}
