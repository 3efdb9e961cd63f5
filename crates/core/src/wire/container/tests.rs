//! Containers whole and damaged.

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

fn chunks_of<R: Read>(mut reader: Reader<Meta, R>) -> Result<(Meta, Vec<Vec<u32>>), WireError> {
    let sizes: Vec<usize> = reader.chunks().iter().map(|c| c.words as usize).collect();
    let chunks = sizes.iter().enumerate().map(|(i, &n)| reader.chunk(i, n)).collect::<Result<_, _>>()?;
    let metadata = reader.metadata.clone();
    reader.finish()?;
    Ok((metadata, chunks))
}

fn read_all(path: &Path) -> Result<(Meta, Vec<Vec<u32>>), WireError> {
    Reader::<Meta>::open(path, Kind::Ciphertext).and_then(chunks_of)
}

/// As [`read_all`], and the same from anything that can be read, however little it gives at a time.
fn read_both(path: &Path) -> Result<(Meta, Vec<Vec<u32>>), WireError> {
    let from_path = read_all(path);
    let input = Dribble { input: fs::read(path).map(std::io::Cursor::new).unwrap(), turn: 0 };
    let from_input = Opened::input(input).and_then(|o| o.header(Kind::Ciphertext)).and_then(chunks_of);
    assert_eq!(from_path.as_ref().ok(), from_input.as_ref().ok());
    from_path
}

/// Gives a few bytes at a time, and is interrupted before each.
struct Dribble<R> {
    input: R,
    turn: usize,
}
impl<R: Read> Read for Dribble<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.turn += 1;
        if self.turn % 2 == 1 {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let some = bytes.len().min(1 + self.turn % 13);
        self.input.read(&mut bytes[..some])
    }
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
    let (meta, read) = read_both(&path).unwrap();
    assert_eq!((meta, read), (("meta".into(), 7), chunks));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn every_bit_flip_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = sample(dir.path());
    let bytes = fs::read(&path).unwrap();
    let damaged = dir.path().join("damaged.ct");
    let mut padding = 0;
    for i in 0..bytes.len() {
        for bit in 0..8 {
            let mut copy = bytes.clone();
            copy[i] ^= 1 << bit;
            fs::write(&damaged, &copy).unwrap();
            let error = read_all(&damaged).expect_err("damaged");
            padding += usize::from(matches!(error, WireError::Padding { at } if at == i as u64));
        }
    }
    assert!(padding > 0 && padding % 8 == 0);
}

#[test]
fn what_is_written_is_the_same_for_a_path_and_for_anything() {
    let dir = tempfile::tempdir().unwrap();
    let (path, chunks) = sample(dir.path());
    let metadata = ("meta".to_string(), 7u64);
    let sizes: Vec<usize> = chunks.iter().map(Vec::len).collect();
    let chunk = |i: usize| Ok(Cow::from(&chunks[i]));
    let contents = Contents { kind: Kind::Ciphertext, metadata: &metadata, sizes: &sizes, chunk: &chunk };
    let mut output = Vec::new();
    write_to(&mut output, &contents).unwrap();
    assert_eq!(output, fs::read(&path).unwrap());
    // One that is full after k bytes, for every k.
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let some = bytes.len().min(self.0).min(5);
            if some == 0 && !bytes.is_empty() {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0 -= some;
            Ok(some)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for k in 0..output.len() {
        let error = write_to(&mut Full(k), &contents).expect_err("full");
        assert!(
            matches!(&error, WireError::Stream { action: "write", source } if source.kind() == std::io::ErrorKind::StorageFull)
        );
    }
    write_to(&mut Full(output.len()), &contents).unwrap();
}

#[test]
fn chunks_are_read_in_order_and_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = sample(dir.path());
    let open = || Reader::<Meta>::open(&path, Kind::Ciphertext).unwrap();
    assert!(matches!(open().chunk(1, 0), Err(WireError::Shape { what: "order of chunks", .. })));
    assert!(matches!(open().finish(), Err(WireError::Shape { what: "chunks read", .. })));
    assert!(matches!(open().check_sizes([100, 0]), Err(WireError::Shape { what: "chunks", .. })));
    assert!(matches!(open().check_sizes([100, 0, 17, 1]), Err(WireError::Shape { what: "words of a chunk", .. })));
    let mut reader = open();
    reader.check_sizes([100, 0, 17]).unwrap();
    let mut seen = Vec::new();
    reader
        .scan(|chunk, first, words| {
            seen.push((chunk, first, words.len()));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [(0, 0, 100), (2, 0, 17)]);
    reader.finish().unwrap();
}

#[test]
fn every_cut_and_any_addition_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = sample(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let damaged = dir.path().join("damaged.ct");
    for cut in 0..bytes.len() {
        fs::write(&damaged, &bytes[..cut]).unwrap();
        assert!(read_both(&damaged).is_err(), "cut at {cut}");
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
    type Chunk<'a> = &'a dyn Fn(usize) -> Result<Cow<'a, [u32]>, WireError>;
    fn attempt<'a>(path: &Path, sizes: &'a [usize], chunk: Chunk<'a>) -> WireError {
        let contents = Contents { kind: Kind::Ciphertext, metadata: &0u8, sizes, chunk };
        create(path, false, Existing::Replaced, &contents).unwrap_err()
    }
    let error = attempt(&path, &[2, 3], &|_| Ok(vec![1, 2].into()));
    assert!(matches!(error, WireError::Shape { what: "words of a chunk", .. }));
    let error = attempt(&path, &[2, 3], &|i| if i == 0 { Ok(vec![1, 2].into()) } else { Err(WireError::Magic) });
    assert!(matches!(error, WireError::Magic));
    let error = attempt(&path, &[MAX_CHUNK_WORDS + 1], &|_| Ok(vec![].into()));
    assert!(matches!(error, WireError::Shape { what: "chunk", .. }));
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
    // One that is to be kept is kept, whole.
    let chunk = |_: usize| Ok(Cow::from(vec![9u32]));
    let contents = Contents { kind: Kind::SecretKey, metadata: &0u8, sizes: &[1], chunk: &chunk };
    assert!(matches!(create(&path, true, Existing::Kept, &contents), Err(WireError::Exists { .. })));
    assert_eq!(Reader::<u8>::open(&path, Kind::SecretKey).unwrap().chunk(0, 3).unwrap(), [3, 4, 5]);
    let nowhere = dir.path().join("missing").join("secret.key");
    assert!(matches!(write(&nowhere, Kind::SecretKey, &0u8, &[], true), Err(WireError::Io { action: "write", .. })));
}

#[test]
fn a_file_takes_the_place_of_its_own_kind_alone() {
    let dir = tempfile::tempdir().unwrap();
    let words = [1, 2, 3];
    let write = |kind, path: &Path| write(path, kind, &("meta".to_string(), 7u64), &[&words[..]], false);
    let at = |name: &str| dir.path().join(name);
    write(Kind::Ciphertext, &at("a.ct")).unwrap();
    write(Kind::Ciphertext, &at("a.ct")).unwrap();
    fs::write(at("empty"), []).unwrap();
    write(Kind::Ciphertext, &at("empty")).unwrap();
    write(Kind::SecretKey, &at("secret.key")).unwrap();
    fs::write(at("picture.png"), b"\x89PNG").unwrap();
    fs::create_dir(at("folder")).unwrap();
    let mut taken = vec!["secret.key", "picture.png", "folder"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at("a.ct"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nothing"), at("dangling")).unwrap();
        taken.extend(["link", "dangling"]);
    }
    for name in taken {
        let before = fs::symlink_metadata(at(name)).unwrap().len();
        assert!(matches!(write(Kind::Ciphertext, &at(name)), Err(WireError::Occupied { .. })), "{name}");
        assert_eq!(fs::symlink_metadata(at(name)).unwrap().len(), before, "{name}");
    }
}
