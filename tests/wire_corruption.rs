//! Files with one thing wrong: every one is refused by a typed error, or means what the right one means, and none makes the library panic.
//!
//! Some thousands of them run with the tests; all of them, some tens of thousands, with `CIPHERLENS_CORRUPTIONS=all`. Damage is what a disk
//! or a network does: hashes then tell. Forgeries have every hash right, as somebody makes them who wants them to be read.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::backend::{Backend, cpu::CpuBackend};
use cipherlens::ckks::*;
use cipherlens::wire::network::NetworkDigest;
use cipherlens::wire::objects::*;
use cipherlens::wire::{Expect, Kind, WireError, container, verify_from};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::result::Result;
use std::sync::Arc;

const SEED: u64 = 77;
const NETWORK: NetworkDigest = NetworkDigest([7; 32]);
const PRELUDE: usize = 48;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Params,
    Secret,
    Public,
    Keys,
    Fresh,
    Whole,
}

const OBJECTS: [Object; 6] = [Object::Params, Object::Secret, Object::Public, Object::Keys, Object::Fresh, Object::Whole];

struct Scheme {
    params: Arc<Params>,
    backend: Arc<dyn Backend>,
    owner: Owner,
    requests: Vec<KeyRequest>,
    level: Level,
    decryptor: Decryptor,
    ciphertext: Ciphertext,
}

/// What came of a file.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Refused,
    /// Taken, and what is read is what the right file holds.
    Equal,
    /// Taken, as another object of this kind that it describes, and used.
    Other,
}

impl Scheme {
    fn new() -> Self {
        println!("seed {SEED}");
        let params = presets::by_name("insecure-tiny").unwrap();
        let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).unwrap());
        let owner = Owner::insecure_seeded(&params, backend.clone(), SEED).unwrap();
        let level = Level(2);
        let mut requests = KeyRequest::rotations(&params, level, &[1, 2]).unwrap();
        requests.push(KeyRequest::relinearization(&params, level).unwrap());
        let ciphertext = owner.encrypt(level, &[[0.25f64; 16]; 2]).unwrap();
        let decryptor = Decryptor::new(&params, backend.clone()).unwrap();
        Self { params, backend, owner, requests, level, decryptor, ciphertext }
    }

    fn bytes(&self, object: Object) -> Vec<u8> {
        let (params, backend, mut out) = (&self.params, self.backend.as_ref(), Vec::new());
        let fresh = || self.owner.encrypt_seeded(self.level, &[[0.5f64; 16]; 2]).unwrap();
        match object {
            Object::Params => write_params_to(&mut out, params).unwrap(),
            Object::Secret => write_secret_key_to(&mut out, params, self.owner.secret()).unwrap(),
            Object::Public => {
                let generator = KeyGenerator::new(params, self.backend.clone(), RandomSource::insecure_seeded(SEED)).unwrap();
                write_public_key_to(&mut out, params, &generator.public_key(self.owner.secret()).unwrap()).unwrap();
            }
            Object::Keys => {
                let keys = self.owner.evaluation_keys(&self.requests).unwrap();
                write_evaluation_keys_to(&mut out, params, backend, &keys, Some(NETWORK)).unwrap();
            }
            Object::Fresh => write_seeded_ciphertext_to(&mut out, params, &fresh(), Some(NETWORK)).unwrap(),
            Object::Whole => {
                let whole = fresh().expand(params, backend).unwrap();
                write_ciphertext_to(&mut out, params, backend, &whole, Some(NETWORK)).unwrap();
            }
        }
        out
    }

    /// Everything that a file's object is, in bytes; used on the way as a server or a client would.
    fn meaning(&self, object: Object, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
        let (params, backend) = (&self.params, self.backend.as_ref());
        let raw = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let key_id = Some(self.owner.tag().key_id);
        Ok(match object {
            Object::Params => read_params_from(bytes)?.fingerprint().to_vec(),
            Object::Secret => {
                let secret = read_secret_key_from(bytes, params)?;
                let _ = self.decryptor.decrypt_real(&secret, &self.ciphertext);
                secret.expose_coefficients().iter().map(|&c| c as u8).chain(secret.tag().key_id.0).collect()
            }
            Object::Public => {
                let key = read_public_key_from(bytes, params)?;
                [raw(key.parts().1), key.parts().0.to_vec(), key.tag().key_id.0.to_vec()].concat()
            }
            Object::Keys => {
                let expect = Expect { key_id, ..Expect::keys(NETWORK, &self.requests).bounded(params) };
                let keys = read_evaluation_keys_from(bytes, params, backend, &expect)?;
                let key = |k: &Arc<KeySwitchKey>| [k.seed().to_vec(), raw(&k.masked_half(backend).unwrap())].concat();
                let meaning = keys.iter().flat_map(key).collect();
                let evaluator = Evaluator::new(params.clone(), self.backend.clone(), Arc::new(keys)).unwrap();
                let _ = evaluator.rotate(&self.ciphertext, 1);
                let _ = evaluator.rotate_many(&self.ciphertext, &[1, 2]);
                let _ = evaluator.mul(&self.ciphertext, &self.ciphertext);
                meaning
            }
            Object::Fresh | Object::Whole => {
                let expect = Expect { key_id, ..Expect::ciphertext(NETWORK, self.level, 2).bounded(params) };
                let ciphertext = read_ciphertext_from(bytes, params, backend, &expect)?;
                let _ = self.owner.decrypt(&ciphertext);
                let keys = Arc::new(KeySet::new(self.owner.tag()));
                let _ = Evaluator::new(params.clone(), self.backend.clone(), keys).unwrap().drop_to(&ciphertext, Level(0));
                raw(&backend.download(ciphertext.buffer()).unwrap())
            }
        })
    }
}

/// Which of so many cases run.
fn all() -> bool {
    std::env::var("CIPHERLENS_CORRUPTIONS").is_ok_and(|v| v == "all")
}

/// Where the header ends.
fn header_end(bytes: &[u8]) -> usize {
    PRELUDE + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize
}

/// Makes the hash of the header right again.
fn rehash(bytes: &mut [u8]) {
    let end = header_end(bytes).min(bytes.len());
    let hash = *blake3::Hasher::new().update(&bytes[..16]).update(&bytes[PRELUDE..end]).finalize().as_bytes();
    bytes[16..PRELUDE].copy_from_slice(&hash);
}

/// Where the chunks are, from the table that ends the header: of each, its bytes and the place of its hash.
fn chunks(bytes: &[u8], sizes: &[usize]) -> Vec<(std::ops::Range<usize>, usize)> {
    let mut at = header_end(bytes);
    let place = |range: &std::ops::Range<usize>| {
        let hash = *blake3::hash(&bytes[range.clone()]).as_bytes();
        (PRELUDE..header_end(bytes)).find(|&i| bytes[i..].starts_with(&hash)).expect("the hash is in the table")
    };
    sizes
        .iter()
        .map(|words| {
            let start = at.next_multiple_of(64);
            at = start + 4 * words;
            (start..at, place(&(start..at)))
        })
        .collect()
}

fn sizes(object: Object, bytes: &[u8]) -> Vec<usize> {
    fn of<M: serde::de::DeserializeOwned>(bytes: &[u8]) -> Vec<usize> {
        let opened = container::Opened::input(bytes).unwrap();
        let kind = opened.kind();
        opened.header::<M>(kind).unwrap().chunks().iter().map(|c| c.words as usize).collect()
    }
    match object {
        Object::Params => of::<ParamsLiteral>(bytes),
        Object::Secret => of::<Metadata<()>>(bytes),
        Object::Public => of::<Metadata<[u8; 32]>>(bytes),
        Object::Keys => of::<Metadata<Vec<KeyBody>>>(bytes),
        Object::Fresh | Object::Whole => of::<Metadata<CiphertextBody>>(bytes),
    }
}

#[derive(Debug, Default)]
struct Counts {
    damaged: usize,
    forged: usize,
    refused: usize,
    equal: usize,
    other: usize,
    panics: Vec<String>,
    taken: Vec<String>,
}

struct Bed {
    scheme: Scheme,
    counts: Counts,
}

impl Bed {
    fn read(&mut self, object: Object, right: &[u8], bytes: &[u8], what: &str) -> Option<Read> {
        let read = catch_unwind(AssertUnwindSafe(|| {
            let meaning = self.scheme.meaning(object, bytes);
            // Without an expectation, and without keeping it: whatever reading for use takes must be whole.
            let verified = verify_from(bytes, Some(&self.scheme.params));
            assert!(meaning.is_err() || verified.is_ok(), "taken, but not verified: {verified:?}");
            meaning
        }));
        match read {
            Err(_) => {
                self.counts.panics.push(format!("{object:?}: {what}"));
                None
            }
            Ok(Err(_)) => Some(Read::Refused),
            Ok(Ok(meaning)) if meaning == right => Some(Read::Equal),
            Ok(Ok(_)) => Some(Read::Other),
        }
    }

    /// A file whose hashes tell.
    fn damaged(&mut self, object: Object, right: &[u8], bytes: &[u8], what: impl Fn() -> String) {
        self.counts.damaged += 1;
        match self.read(object, right, bytes, &what()) {
            Some(Read::Refused) => self.counts.refused += 1,
            Some(_) => self.counts.taken.push(format!("{object:?}: {}", what())),
            None => {}
        }
    }

    /// A file with every hash right; whether it must be refused.
    fn forged(&mut self, object: Object, right: &[u8], bytes: &[u8], refuse: bool, what: impl Fn() -> String) {
        self.counts.forged += 1;
        match self.read(object, right, bytes, &what()) {
            Some(Read::Refused) => self.counts.refused += 1,
            Some(_) if refuse => self.counts.taken.push(format!("{object:?}: {}", what())),
            Some(Read::Equal) => self.counts.equal += 1,
            Some(Read::Other) => self.counts.other += 1,
            None => {}
        }
    }
}

#[test]
fn a_file_with_one_thing_wrong_is_refused() {
    let mut bed = Bed { scheme: Scheme::new(), counts: Counts::default() };
    let step = if all() { 1 } else { 11 };
    std::panic::set_hook(Box::new(|_| ()));
    let files: Vec<Vec<u8>> = OBJECTS.iter().map(|&object| bed.scheme.bytes(object)).collect();
    for (object, bytes) in OBJECTS.into_iter().zip(&files) {
        let right = bed.scheme.meaning(object, bytes).unwrap();
        let (header, sizes) = (header_end(bytes), sizes(object, bytes));
        let chunks = chunks(bytes, &sizes);
        let first = chunks.first().map_or(bytes.len(), |c| c.0.start);

        // Bits: of all that comes before the chunks, each; of the chunks, some.
        for bit in (0..8 * first).step_by(step).chain((8 * first..8 * bytes.len()).step_by(37 * step)) {
            let mut copy = bytes.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            bed.damaged(object, &right, &copy, || format!("bit {bit}"));
        }
        // Bits of the header, whose hash is made right.
        for bit in (8 * PRELUDE..8 * header).step_by(step).chain(8 * 8..8 * 16) {
            let mut copy = bytes.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            rehash(&mut copy);
            // Magic, version, kind and length cannot be others.
            bed.forged(object, &right, &copy, bit < 8 * PRELUDE, || format!("forged bit {bit}"));
        }
        // Bytes of the header set to what bincode takes for lengths.
        for at in (PRELUDE..header).step_by(step) {
            for value in [0, 1, 0x7f, 0x80, 250, 251, 252, 253, 254, 255] {
                let mut copy = bytes.clone();
                copy[at] = value;
                rehash(&mut copy);
                bed.forged(object, &right, &copy, false, || format!("forged byte {at} = {value}"));
            }
        }
        // Ends: everywhere in what is small, at every border and beside it in what is large.
        let borders = chunks.iter().flat_map(|c| [c.0.start, c.0.end]).chain([0, 8, 10, 12, 16, PRELUDE, header]);
        let near = borders.flat_map(|b| b.saturating_sub(2)..=b + 2).filter(|&b| b < bytes.len());
        for cut in (0..bytes.len()).step_by(if bytes.len() < 4096 { step } else { 13 * step }).chain(near) {
            bed.damaged(object, &right, &bytes[..cut], || format!("cut at {cut}"));
        }
        for more in [&[0u8][..], &[1], &[0; 64], bytes] {
            let copy = [bytes, more].concat();
            bed.damaged(object, &right, &copy, || format!("{} bytes more", more.len()));
        }
        // Chunks exchanged, without and with their hashes.
        for i in 0..chunks.len() {
            for j in 0..i {
                if sizes[i] != sizes[j] {
                    continue;
                }
                let mut copy = bytes.clone();
                let (a, b) = (chunks[i].0.clone(), chunks[j].0.clone());
                copy[a.clone()].copy_from_slice(&bytes[b.clone()]);
                copy[b].copy_from_slice(&bytes[a]);
                bed.damaged(object, &right, &copy, || format!("chunks {i} and {j} exchanged"));
                let (a, b) = (chunks[i].1, chunks[j].1);
                copy[a..a + 32].copy_from_slice(&bytes[b..b + 32]);
                copy[b..b + 32].copy_from_slice(&bytes[a..a + 32]);
                rehash(&mut copy);
                bed.forged(object, &right, &copy, false, || format!("chunks {i} and {j} exchanged, with their hashes"));
            }
        }
        // Words that are no residues.
        for (range, hash) in &chunks {
            for at in range.clone().step_by(4 * step) {
                for word in [1u32 << 30, u32::MAX, 0x8000_0000, u32::MAX - 1] {
                    let mut copy = bytes.clone();
                    copy[at..at + 4].copy_from_slice(&word.to_le_bytes());
                    let new = *blake3::hash(&copy[range.clone()]).as_bytes();
                    copy[*hash..hash + 32].copy_from_slice(&new);
                    rehash(&mut copy);
                    // The word of -1 is a coefficient of a secret key.
                    let refuse = !(object == Object::Secret && word == u32::MAX);
                    bed.forged(object, &right, &copy, refuse, || format!("word {word} at {at}"));
                }
            }
        }
        // Another kind, with the header that it has.
        for kind in 0..=8u16 {
            let mut copy = bytes.clone();
            copy[10..12].copy_from_slice(&kind.to_le_bytes());
            rehash(&mut copy);
            let same = copy == *bytes;
            bed.forged(object, &right, &copy, !same, || format!("kind {kind}"));
        }
        for version in [0u16, 1, 3, 0x200, u16::MAX] {
            let mut copy = bytes.clone();
            copy[8..10].copy_from_slice(&version.to_le_bytes());
            rehash(&mut copy);
            bed.forged(object, &right, &copy, true, || format!("version {version}"));
        }
        // The file of another object.
        for (other, theirs) in OBJECTS.into_iter().zip(&files) {
            let both_ciphertexts = matches!((object, other), (Object::Fresh | Object::Whole, Object::Fresh | Object::Whole));
            if other != object && !both_ciphertexts {
                bed.forged(object, &right, theirs, true, || format!("the file of {other:?}"));
            }
        }
    }
    let _ = std::panic::take_hook();
    let Counts { damaged, forged, refused, equal, other, panics, taken } = bed.counts;
    println!(
        "{damaged} damaged and {forged} forged files: {refused} refused, {equal} of equal meaning, {other} other objects, used"
    );
    assert!(panics.is_empty(), "{} panics: {:?}", panics.len(), &panics[..panics.len().min(20)]);
    assert!(taken.is_empty(), "{} taken: {:?}", taken.len(), &taken[..taken.len().min(20)]);
    assert!(damaged + forged >= if all() { 20_000 } else { 2_000 });
}

/// The same whether a file is read for use or only verified: the first word that may not be, and damage before that.
#[test]
fn a_word_that_may_not_be_is_one_error() {
    let scheme = Scheme::new();
    let errors = |object, bytes: &[u8]| {
        let read = scheme.meaning(object, bytes).unwrap_err();
        let verified = verify_from(bytes, Some(&scheme.params)).unwrap_err();
        assert_eq!(read.to_string(), verified.to_string(), "{object:?}");
        read
    };
    for object in OBJECTS {
        let bytes = scheme.bytes(object);
        for (range, hash) in chunks(&bytes, &sizes(object, &bytes)) {
            let middle = range.start + range.len() / 8 * 4;
            for at in [range.start, middle, range.end - 4] {
                let mut copy = bytes.clone();
                for word in [at, range.end - 4] {
                    copy[word..word + 4].copy_from_slice(&0x8000_0001u32.to_le_bytes());
                }
                let damaged = errors(object, &copy);
                assert!(matches!(damaged, WireError::Hash { .. }), "{object:?} {at}: {damaged}");
                let new = *blake3::hash(&copy[range.clone()]).as_bytes();
                copy[hash..hash + 32].copy_from_slice(&new);
                rehash(&mut copy);
                match (object, errors(object, &copy)) {
                    (Object::Secret, WireError::SecretWord { index }) => assert_eq!(index, (at - range.start) / 4),
                    (_, WireError::Scheme(CkksError::Residue { found: 0x8000_0001, .. })) => (),
                    (_, other) => panic!("{object:?} {at}: {other}"),
                }
            }
        }
    }
}

/// Of another parameter set, key, or network, and what was not asked for: each is refused by the header.
#[test]
fn what_is_not_expected_is_refused_by_the_header() {
    let scheme = Scheme::new();
    let (params, backend) = (&scheme.params, scheme.backend.as_ref());
    let keys = scheme.bytes(Object::Keys);
    let fresh = scheme.bytes(Object::Fresh);
    // Nothing after the header is there to be read.
    let header = |bytes: &[u8]| bytes[..header_end(bytes)].to_vec();
    let read_keys = |expect: Expect<'_>| read_evaluation_keys_from(&header(&keys)[..], params, backend, &expect).map(|_| ());
    let read = |expect: Expect<'_>| read_ciphertext_from(&header(&fresh)[..], params, backend, &expect).map(|_| ());
    let (n, shards) = (NETWORK, 2);
    let right = Expect::ciphertext(n, scheme.level, shards).bounded(params);
    assert!(matches!(read(right), Err(WireError::Length { what: "chunks", .. })), "the rest is missing");
    assert!(matches!(read(Expect { level: Some(Level(1)), ..right }), Err(WireError::Shape { what: "level", .. })));
    assert!(matches!(read(Expect { shards: Some(1), ..right }), Err(WireError::Shape { what: "shards", .. })));
    assert!(matches!(read(Expect { network: Some(NetworkDigest([8; 32])), ..right }), Err(WireError::Network { .. })));
    assert!(matches!(
        read(Expect { key_id: Some(KeyId([0; 16])), ..right }),
        Err(WireError::Scheme(CkksError::KeyMismatch { .. }))
    ));
    let size = fresh.len() as u64;
    assert!(
        matches!(read(Expect { max_bytes: Some(size - 1), ..right }), Err(WireError::TooLarge { most, found }) if most + 1 == found)
    );
    assert!(matches!(read(Expect { max_bytes: Some(size), ..right }), Err(WireError::Length { .. })));
    let right = Expect::keys(n, &scheme.requests).bounded(params);
    assert!(matches!(read_keys(right), Err(WireError::Length { what: "chunks", .. })));
    let fewer = Expect { keys: Some(&scheme.requests[1..]), ..right };
    assert!(matches!(read_keys(fewer), Err(WireError::Shape { what: "evaluation keys", .. })));
    let more = [&scheme.requests[..], &KeyRequest::rotations(params, scheme.level, &[3]).unwrap()].concat();
    assert!(matches!(
        read_keys(Expect { keys: Some(&more), ..right }),
        Err(WireError::Scheme(CkksError::MissingKeys { missing: 1, needed: 4, .. }))
    ));
    assert!(matches!(read_keys(Expect { max_bytes: Some(100), ..right }), Err(WireError::TooLarge { .. })));
    let other = presets::by_name("insecure-toy").unwrap();
    let other_backend = CpuBackend::new(other.tables().clone()).unwrap();
    let error = read_evaluation_keys_from(&keys[..], &other, &other_backend, &Expect::default()).map(|_| ());
    assert!(matches!(error, Err(WireError::Origin { .. })));
}

/// A header that claims much and is followed by little: what is taken from the system follows the bytes that come.
#[test]
fn hostile_headers_take_no_memory() {
    let scheme = Scheme::new();
    let (params, backend) = (&scheme.params, scheme.backend.as_ref());
    let fresh = scheme.bytes(Object::Fresh);
    let metadata =
        container::Opened::input(&fresh[..]).unwrap().header::<Metadata<CiphertextBody>>(Kind::Ciphertext).unwrap().metadata;
    // 65,536 shards: some 1,600 chunks of what is never sent.
    let shards = MAX_SHARDS as u32;
    let words = shards as usize * params.window(Level(2)).len() * params.degree();
    let table: Vec<container::ChunkEntry> = (0..words.div_ceil(container::MAX_CHUNK_WORDS))
        .map(|i| container::ChunkEntry {
            words: container::MAX_CHUNK_WORDS.min(words - i * container::MAX_CHUNK_WORDS) as u32,
            hash: [0; 32],
        })
        .collect();
    let metadata = Metadata { body: CiphertextBody { shards, ..metadata.body }, ..metadata };
    let header = bincode::serde::encode_to_vec((&metadata, &table), bincode::config::standard()).unwrap();
    let mut bytes = [&fresh[..12], &(header.len() as u32).to_le_bytes(), &[0; 32], &header, &[0; 5000]].concat();
    rehash(&mut bytes);
    let before = peak();
    let error = read_ciphertext_from(&bytes[..], params, backend, &Expect::default()).map(|_| ());
    assert!(matches!(error, Err(WireError::Length { what: "chunks", .. })), "{error:?}");
    let error = verify_from(&bytes[..], Some(params));
    assert!(matches!(error, Err(WireError::Length { what: "chunks", .. })), "{error:?}");
    let grown = peak() - before;
    assert!(grown < 32 << 20, "{grown} bytes for {} of a file that claims {}", bytes.len(), 4 * words);
}

/// The most memory that this process has had, bytes; 0 where the system does not tell.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
