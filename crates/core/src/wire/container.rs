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
//! All integers are little-endian, bytes between chunks are 0, and the file ends with its last chunk.
//!
//! What is read and written is any [`Read`] and [`Write`], in order from its first byte to its last; functions that take a path are
//! helpers. A reader trusts no length: memory grows with the bytes that have come, or with those of a file whose size is known.

mod place;
#[cfg(test)]
mod tests;

pub use place::{Existing, write_whole};

use super::{Kind, WireError};
use place::Temporary;
use serde::{Serialize, de::DeserializeOwned};
use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"CIPHLENS";
/// The newest version that is written and read. Version 1 did not say which network keys and ciphertexts belong to; version 2 of a compiled
/// network has no layouts. A kind that a version does not change stays at the one before ([`Kind::version`]).
pub const VERSION: u16 = 3;
/// The oldest version that is read.
const OLDEST: u16 = 2;
/// Largest header, bytes.
pub const MAX_HEADER_BYTES: usize = 1 << 20;
/// Largest chunk, words.
pub const MAX_CHUNK_WORDS: usize = 4 << 20;
/// Chunks begin at multiples of this.
const ALIGNMENT: u64 = 64;
/// Bytes before the header.
const PRELUDE: usize = 48;
/// Words read at once into memory that grows.
const PIECE: usize = 1 << 18;

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

/// What is written, whole: its kind, metadata, and chunks, which are asked for in order, once or twice.
pub struct Contents<'a, M> {
    /// What it is.
    pub kind: Kind,
    /// What this kind says about itself.
    pub metadata: &'a M,
    /// Lengths of the chunks in words.
    pub sizes: &'a [usize],
    /// The words of a chunk.
    pub chunk: &'a dyn Fn(usize) -> Result<Cow<'a, [u32]>, WireError>,
}

/// Writes a file in one go, replacing one of its kind; see [`create`].
///
/// # Errors
/// As [`create`].
pub fn write<M: Serialize>(path: &Path, kind: Kind, metadata: &M, chunks: &[&[u32]], private: bool) -> Result<(), WireError> {
    let sizes: Vec<usize> = chunks.iter().map(|c| c.len()).collect();
    let chunk = |i: usize| Ok(chunks[i].into());
    create(path, private, Existing::Replaced, &Contents { kind, metadata, sizes: &sizes, chunk: &chunk })
}

/// Writes a file: without a name or under a temporary one, flushed to disk, and only then under its own, so that there is never half a file
/// under that name, whenever the program or the system stops. One that other users of the machine must not read is `private` (mode
/// 0600 where the system has modes). After an error there is nothing new.
///
/// # Errors
/// [`WireError::Exists`] where a file of that name is to be kept, [`WireError::Occupied`] where something else has it
/// ([`check_replaceable`]), [`WireError::Io`] where the system refuses, [`WireError::Shape`] for a chunk or a header that is too long, or a chunk that has not its length, [`WireError::Header`] where the metadata cannot be encoded,
/// and what [`Contents::chunk`] gives.
pub fn create<M: Serialize>(path: &Path, private: bool, existing: Existing, contents: &Contents<'_, M>) -> Result<(), WireError> {
    contents.check()?;
    let mut temporary = Temporary::beside(path, private)?;
    let failed = |e| io("write", path)(e);
    // Hashes have a fixed size, so the header has its final length before they are known.
    let mut hashes = vec![[0; 32]; contents.sizes.len()];
    let mut at = (PRELUDE + contents.header(&hashes)?.len()) as u64;
    temporary.file.seek(SeekFrom::Start(at)).map_err(failed)?;
    for (i, entry) in hashes.iter_mut().enumerate() {
        let words = contents.words(i)?;
        let swapped = to_little_endian(&words);
        let bytes: &[u8] = bytemuck::cast_slice(swapped.as_deref().map_or(&words, Vec::as_slice));
        *entry = hash(bytes);
        let write = |file: &mut File| file.write_all(padding(at)).and_then(|()| file.write_all(bytes));
        write(&mut temporary.file).map_err(failed)?;
        at = at.next_multiple_of(ALIGNMENT) + bytes.len() as u64;
    }
    let start = contents.start(&hashes)?;
    let write = |file: &mut File| file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&start));
    write(&mut temporary.file).map_err(failed)?;
    // Not sooner: what takes the name in the meantime is not lost either.
    if existing == Existing::Replaced {
        check_replaceable(path, contents.kind)?;
    }
    temporary.name(path, existing)
}

/// Refuses the name of anything but a file of the same kind (of any version, whole or not) or an empty one: a picture, a key, a device or a
/// link is not replaced. [`create`] asks this last, when all is written; commands ask it also before they work.
///
/// # Errors
/// [`WireError::Occupied`] where something else has the name, [`WireError::Io`] where that cannot be seen.
pub fn check_replaceable(path: &Path, kind: Kind) -> Result<(), WireError> {
    let occupied = |found: String| Err(WireError::Occupied { path: path.into(), found, kind });
    let about = match std::fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io("write", path)(e)),
    };
    if about.is_dir() {
        return occupied("a folder".into());
    }
    if !about.is_file() {
        return occupied("a link or a device".into());
    }
    if about.len() == 0 {
        return Ok(());
    }
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(PRELUDE as u64).read_to_end(&mut start)).map_err(io("read", path))?;
    match start.starts_with(&MAGIC).then(|| start.get(10..12)).flatten() {
        Some(number) if *number == (kind as u16).to_le_bytes() => Ok(()),
        Some(number) => {
            let there = Kind::from_u16(u16::from_le_bytes([number[0], number[1]]));
            occupied(there.map_or("a file of an unknown kind".into(), |kind| format!("a file of kind `{kind}`")))
        }
        None => occupied("a file of another program".into()),
    }
}

/// Refuses a place where no file can be made: a folder that is not there or must not be written to. For commands that work long before
/// they write. Nothing is left there.
///
/// # Errors
/// [`WireError::Io`] where the system refuses.
pub fn check_place(path: &Path) -> Result<(), WireError> {
    Temporary::beside(path, true).map(drop)
}

/// Writes the same bytes to anything, from first to last. Every chunk is asked for twice, since the hash of each comes before all of them.
///
/// # Errors
/// [`WireError::Stream`] where the output fails; else as [`create`].
pub fn write_to<M: Serialize>(output: &mut dyn Write, contents: &Contents<'_, M>) -> Result<(), WireError> {
    contents.check()?;
    let hash_of = |i: usize| {
        let words = contents.words(i)?;
        let swapped = to_little_endian(&words);
        Ok(hash(bytemuck::cast_slice(swapped.as_deref().map_or(&words, Vec::as_slice))))
    };
    let hashes = (0..contents.sizes.len()).map(hash_of).collect::<Result<Vec<_>, WireError>>()?;
    let failed = |source| WireError::Stream { action: "write", source };
    let start = contents.start(&hashes)?;
    output.write_all(&start).map_err(failed)?;
    let mut at = start.len() as u64;
    for i in 0..contents.sizes.len() {
        let words = contents.words(i)?;
        let swapped = to_little_endian(&words);
        let bytes: &[u8] = bytemuck::cast_slice(swapped.as_deref().map_or(&words, Vec::as_slice));
        output.write_all(padding(at)).and_then(|()| output.write_all(bytes)).map_err(failed)?;
        at = at.next_multiple_of(ALIGNMENT) + bytes.len() as u64;
    }
    output.flush().map_err(failed)
}

impl<M: Serialize> Contents<'_, M> {
    fn check(&self) -> Result<(), WireError> {
        match self.sizes.iter().find(|&&words| words > MAX_CHUNK_WORDS) {
            None => Ok(()),
            Some(words) => Err(WireError::Shape {
                what: "chunk",
                expected: format!("at most {MAX_CHUNK_WORDS} words"),
                found: words.to_string(),
            }),
        }
    }

    fn words(&self, index: usize) -> Result<Cow<'_, [u32]>, WireError> {
        let words = (self.chunk)(index)?;
        if words.len() == self.sizes[index] {
            return Ok(words);
        }
        let (expected, found) = (self.sizes[index].to_string(), words.len().to_string());
        Err(WireError::Shape { what: "words of a chunk", expected, found })
    }

    fn header(&self, hashes: &[[u8; 32]]) -> Result<Vec<u8>, WireError> {
        let table: Vec<ChunkEntry> =
            self.sizes.iter().zip(hashes).map(|(&words, &hash)| ChunkEntry { words: words as u32, hash }).collect();
        let header = bincode::serde::encode_to_vec((self.metadata, table), bincode_config())
            .map_err(|e| WireError::Header { reason: e.to_string() })?;
        if header.len() > MAX_HEADER_BYTES {
            let (expected, found) = (format!("at most {MAX_HEADER_BYTES} bytes"), header.len().to_string());
            return Err(WireError::Shape { what: "header", expected, found });
        }
        Ok(header)
    }

    /// Prelude and header.
    fn start(&self, hashes: &[[u8; 32]]) -> Result<Vec<u8>, WireError> {
        let header = self.header(hashes)?;
        let mut start = vec![0u8; PRELUDE];
        start[..8].copy_from_slice(&MAGIC);
        start[8..10].copy_from_slice(&self.kind.version().to_le_bytes());
        start[10..12].copy_from_slice(&(self.kind as u16).to_le_bytes());
        start[12..16].copy_from_slice(&(header.len() as u32).to_le_bytes());
        let hash = header_hash(&start, &header);
        start[16..].copy_from_slice(&hash);
        start.extend(header);
        Ok(start)
    }
}

/// The zeros before a chunk that would begin at `at`.
fn padding(at: u64) -> &'static [u8] {
    const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
    &ZEROS[..(at.next_multiple_of(ALIGNMENT) - at) as usize]
}

/// The kind of a file, from its first bytes.
///
/// # Errors
/// As [`Opened::path`].
pub fn kind_of(path: &Path) -> Result<Kind, WireError> {
    Opened::path(path).map(|opened| opened.kind)
}

/// What is being read, and how far.
#[derive(Debug)]
struct Source<R> {
    input: R,
    /// Where it is a file.
    path: Option<PathBuf>,
    /// Bytes there are, where that is known.
    length: Option<u64>,
    at: u64,
}

impl<R: Read> Source<R> {
    /// Fills `bytes`, or says how many bytes there are where there should be more.
    fn fill(&mut self, bytes: &mut [u8], what: &'static str) -> Result<(), WireError> {
        let filled = self.fill_some(bytes)?;
        self.at += filled as u64;
        if filled == bytes.len() {
            return Ok(());
        }
        let expected = self.at + (bytes.len() - filled) as u64;
        Err(WireError::Length { what, expected, found: self.at })
    }

    fn fill_some(&mut self, bytes: &mut [u8]) -> Result<usize, WireError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(match &self.path {
                        Some(path) => io("read", path)(source),
                        None => WireError::Stream { action: "read", source },
                    });
                }
            }
        }
        Ok(filled)
    }
}

/// Something whose first bytes are read: its kind is known, its header is not.
#[derive(Debug)]
pub struct Opened<R> {
    source: Source<R>,
    prelude: [u8; PRELUDE],
    kind: Kind,
}

impl Opened<File> {
    /// A file.
    ///
    /// # Errors
    /// [`WireError::Io`] where the system refuses, [`WireError::Magic`] for anything but a container, [`WireError::Length`] where it ends
    /// within the prelude, [`WireError::Version`] for another format version, [`WireError::Shape`] for a kind that there is not.
    pub fn path(path: &Path) -> Result<Self, WireError> {
        let file = File::open(path).map_err(io("read", path))?;
        let about = file.metadata().map_err(io("read", path))?;
        // Of a pipe or a device the system knows no length.
        let length = about.is_file().then_some(about.len());
        Self::of(Source { input: file, path: Some(path.to_path_buf()), length, at: 0 })
    }
}

impl<R: Read> Opened<R> {
    /// Anything that can be read. It is read in large pieces, and nothing after the last byte but one byte to see that there is none.
    ///
    /// # Errors
    /// [`WireError::Stream`] where the input fails; else as [`Opened::path`].
    pub fn input(input: R) -> Result<Self, WireError> {
        Self::of(Source { input, path: None, length: None, at: 0 })
    }

    fn of(mut source: Source<R>) -> Result<Self, WireError> {
        let mut prelude = [0u8; PRELUDE];
        let filled = source.fill_some(&mut prelude)?;
        source.at = filled as u64;
        if filled < MAGIC.len() || prelude[..8] != MAGIC {
            return Err(WireError::Magic);
        }
        if filled < PRELUDE {
            return Err(WireError::Length { what: "prelude", expected: PRELUDE as u64, found: filled as u64 });
        }
        let version = u16::from_le_bytes([prelude[8], prelude[9]]);
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(WireError::Version { found: version, supported: VERSION });
        }
        let kind = u16::from_le_bytes([prelude[10], prelude[11]]);
        let kind = Kind::from_u16(kind).ok_or_else(|| WireError::Shape {
            what: "kind",
            expected: format!("1 to {}", Kind::ALL.len()),
            found: kind.to_string(),
        })?;
        if version > kind.version() {
            return Err(WireError::Version { found: version, supported: kind.version() });
        }
        Ok(Self { source, prelude, kind })
    }

    /// The format version it has.
    pub fn version(&self) -> u16 {
        u16::from_le_bytes([self.prelude[8], self.prelude[9]])
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Reads the header, which must be one of this kind: its hash is checked, and the total length where the system knows it, before
    /// anything is used.
    ///
    /// # Errors
    /// [`WireError::Kind`] for another kind, [`WireError::Shape`] for a header or a chunk that is too long, [`WireError::Length`] where
    /// the header or the file is cut short or has something appended, [`WireError::Hash`] for a damaged header, [`WireError::Header`]
    /// where it cannot be decoded, [`WireError::Io`] or [`WireError::Stream`] where reading fails.
    pub fn header<M: DeserializeOwned>(mut self, kind: Kind) -> Result<Reader<M, R>, WireError> {
        if self.kind != kind {
            return Err(WireError::Kind { found: self.kind.to_string(), expected: kind });
        }
        let prelude = &self.prelude;
        let size = u32::from_le_bytes([prelude[12], prelude[13], prelude[14], prelude[15]]) as usize;
        if size > MAX_HEADER_BYTES {
            let (expected, found) = (format!("at most {MAX_HEADER_BYTES} bytes"), size.to_string());
            return Err(WireError::Shape { what: "header", expected, found });
        }
        let mut header = vec![0u8; size];
        self.source.fill(&mut header, "header")?;
        if header_hash(prelude, &header) != prelude[16..] {
            return Err(WireError::Hash { what: "header".into() });
        }
        let ((metadata, chunks), used): ((M, Vec<ChunkEntry>), usize) =
            bincode::serde::decode_from_slice(&header, bincode_config())
                .map_err(|e| WireError::Header { reason: e.to_string() })?;
        if used != size {
            return Err(WireError::Header { reason: format!("{} bytes are left over", size - used) });
        }
        let mut end = (PRELUDE + size) as u64;
        for chunk in &chunks {
            if chunk.words as usize > MAX_CHUNK_WORDS {
                let (expected, found) = (format!("at most {MAX_CHUNK_WORDS} words"), chunk.words.to_string());
                return Err(WireError::Shape { what: "chunk", expected, found });
            }
            end = end.next_multiple_of(ALIGNMENT) + 4 * u64::from(chunk.words);
        }
        if let Some(found) = self.source.length.filter(|&length| length != end) {
            return Err(WireError::Length { what: "chunks", expected: end, found });
        }
        Ok(Reader { metadata, source: self.source, chunks, end, next: 0 })
    }
}

/// Something whose header is checked; chunks are read one by one, in order.
#[derive(Debug)]
pub struct Reader<M, R = File> {
    /// What the kind of file says about itself.
    pub metadata: M,
    source: Source<R>,
    chunks: Vec<ChunkEntry>,
    end: u64,
    next: usize,
}

impl<M: DeserializeOwned> Reader<M, File> {
    /// Opens a file of a kind ([`Opened::header`]).
    ///
    /// # Errors
    /// As [`Opened::path`] and [`Opened::header`].
    pub fn open(path: &Path, kind: Kind) -> Result<Self, WireError> {
        Opened::path(path)?.header(kind)
    }
}

impl<M, R: Read> Reader<M, R> {
    /// The chunk table.
    pub fn chunks(&self) -> &[ChunkEntry] {
        &self.chunks
    }

    /// Bytes of the whole, as the header has it.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Errors unless the table has chunks of exactly these lengths in words: to be asked before memory is taken for them.
    ///
    /// # Errors
    /// [`WireError::Shape`] for any other.
    pub fn check_sizes(&self, sizes: impl IntoIterator<Item = usize>) -> Result<(), WireError> {
        let mut count = 0;
        for (index, size) in sizes.into_iter().enumerate() {
            self.check_chunk(index, size)?;
            count = index + 1;
        }
        let found = self.chunks.len();
        if found == count {
            return Ok(());
        }
        Err(WireError::Shape { what: "chunks", expected: count.to_string(), found: found.to_string() })
    }

    /// Reads a chunk, the next one, which must have `words` words and the recorded hash.
    ///
    /// # Errors
    /// [`WireError::Shape`] where it is not the next or has another length, [`WireError::Padding`] for a byte before it that is not 0,
    /// [`WireError::Length`] where it is cut short, [`WireError::Hash`] where it is damaged, [`WireError::Scheme`] where memory cannot
    /// hold it, [`WireError::Io`] or [`WireError::Stream`] where reading fails.
    pub fn chunk(&mut self, index: usize, words: usize) -> Result<Vec<u32>, WireError> {
        let mut out = Vec::new();
        self.append_chunk(index, words, &mut out)?;
        Ok(out)
    }

    /// As [`Self::chunk`], after what is in `out`. What is allocated follows the bytes that come.
    ///
    /// # Errors
    /// As [`Self::chunk`].
    pub fn append_chunk(&mut self, index: usize, words: usize, out: &mut Vec<u32>) -> Result<(), WireError> {
        self.begin_chunk(index, words)?;
        if self.source.length.is_some() {
            reserve(out, words)?;
        }
        let mut hasher = blake3::Hasher::new();
        let end = out.len() + words;
        while out.len() < end {
            let (at, piece) = (out.len(), PIECE.min(end - out.len()));
            reserve(out, piece)?;
            out.resize(at + piece, 0);
            self.source.fill(bytemuck::cast_slice_mut(&mut out[at..]), "chunks")?;
            hasher.update(bytemuck::cast_slice(&out[at..]));
            from_little_endian(&mut out[at..]);
        }
        self.end_chunk(index, &hasher)
    }

    /// As [`Self::chunk`], of the length of `out`, into memory that is the caller's to wipe, also after an error. Nothing of the chunk is
    /// anywhere else.
    ///
    /// # Errors
    /// As [`Self::chunk`], but for memory.
    pub fn chunk_into(&mut self, index: usize, out: &mut [u32]) -> Result<(), WireError> {
        self.begin_chunk(index, out.len())?;
        let mut hasher = Zeroizing::new(blake3::Hasher::new());
        self.source.fill(bytemuck::cast_slice_mut(out), "chunks")?;
        hasher.update(bytemuck::cast_slice(out));
        from_little_endian(out);
        self.end_chunk(index, &hasher)
    }

    /// Reads all chunks and checks their hashes, without keeping them: `each(chunk, first, words)` sees the words from number `first` of a
    /// chunk on, some at a time, before the hash of the chunk is known to be right.
    ///
    /// # Errors
    /// As [`Self::chunk`], but for memory, and what `each` gives.
    pub fn scan(&mut self, mut each: impl FnMut(usize, usize, &[u32]) -> Result<(), WireError>) -> Result<(), WireError> {
        let mut piece = Zeroizing::new(vec![0u32; PIECE]);
        for index in 0..self.chunks.len() {
            let words = self.chunks[index].words as usize;
            self.begin_chunk(index, words)?;
            let mut hasher = Zeroizing::new(blake3::Hasher::new());
            for first in (0..words).step_by(PIECE) {
                let piece = &mut piece[..PIECE.min(words - first)];
                self.source.fill(bytemuck::cast_slice_mut(piece), "chunks")?;
                hasher.update(bytemuck::cast_slice(piece));
                from_little_endian(piece);
                each(index, first, piece)?;
            }
            self.end_chunk(index, &hasher)?;
        }
        Ok(())
    }

    /// Errors unless all chunks were read and nothing follows.
    ///
    /// # Errors
    /// [`WireError::Shape`] where a chunk was not read, [`WireError::Length`] where a byte follows, [`WireError::Io`] or
    /// [`WireError::Stream`] where reading fails.
    pub fn finish(mut self) -> Result<(), WireError> {
        if self.next != self.chunks.len() {
            let (expected, found) = (self.chunks.len().to_string(), self.next.to_string());
            return Err(WireError::Shape { what: "chunks read", expected, found });
        }
        // Of a file this was seen before; but it may have grown since.
        if self.source.fill_some(&mut [0])? == 0 {
            return Ok(());
        }
        Err(WireError::Length { what: "end", expected: self.end, found: self.end + 1 })
    }

    fn check_chunk(&self, index: usize, words: usize) -> Result<(), WireError> {
        let found = self.chunks.get(index).map(|c| c.words as usize);
        if found == Some(words) {
            return Ok(());
        }
        let found = found.map_or("no such chunk".into(), |n| n.to_string());
        Err(WireError::Shape { what: "words of a chunk", expected: words.to_string(), found })
    }

    /// Up to the first word of a chunk.
    fn begin_chunk(&mut self, index: usize, words: usize) -> Result<(), WireError> {
        self.check_chunk(index, words)?;
        if index != self.next {
            let (expected, found) = (format!("chunk {}", self.next), format!("chunk {index}"));
            return Err(WireError::Shape { what: "order of chunks", expected, found });
        }
        let mut zeros = [0u8; ALIGNMENT as usize];
        let zeros = &mut zeros[..padding(self.source.at).len()];
        let at = self.source.at;
        self.source.fill(zeros, "chunks")?;
        match zeros.iter().position(|&b| b != 0) {
            None => Ok(()),
            Some(i) => Err(WireError::Padding { at: at + i as u64 }),
        }
    }

    fn end_chunk(&mut self, index: usize, hasher: &blake3::Hasher) -> Result<(), WireError> {
        if *hasher.finalize().as_bytes() != self.chunks[index].hash {
            return Err(WireError::Hash { what: format!("chunk {index}") });
        }
        self.next += 1;
        Ok(())
    }
}

/// Room for more words, or a typed error.
fn reserve(out: &mut Vec<u32>, words: usize) -> Result<(), WireError> {
    let bytes = 4 * (out.len() + words);
    let full = |_| WireError::Scheme(crate::backend::BackendError::OutOfMemory { op: "read", bytes }.into());
    out.try_reserve(words).map_err(full)
}

fn header_hash(prelude: &[u8], header: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&prelude[..16]).update(header).finalize().as_bytes()
}

/// BLAKE3, without a trace of the bytes in the hasher that was used.
fn hash(bytes: &[u8]) -> [u8; 32] {
    *Zeroizing::new(blake3::Hasher::new()).update(bytes).finalize().as_bytes()
}

/// The words as they stand in a file; a copy is made, and wiped, only where the machine has another order.
fn to_little_endian(words: &[u32]) -> Option<Zeroizing<Vec<u32>>> {
    cfg!(target_endian = "big").then(|| Zeroizing::new(words.iter().map(|w| w.to_le()).collect()))
}

fn from_little_endian(words: &mut [u32]) {
    if cfg!(target_endian = "big") {
        words.iter_mut().for_each(|w| *w = u32::from_le(*w));
    }
}
