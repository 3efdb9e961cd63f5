//! Files of parameters, keys and ciphertexts: what is written can be used when read; whatever was changed is refused by
//! a typed error.
#![allow(clippy::expect_used, clippy::panic, clippy::type_complexity, reason = "a test that cannot go on may stop")]

use cipherlens::backend::{Backend, cpu::CpuBackend};
use cipherlens::ckks::params::MAX_PRIMES;
use cipherlens::ckks::*;
use cipherlens::wire::network::NetworkDigest;
use cipherlens::wire::objects::*;
use cipherlens::wire::{Kind, WireError, container};
use std::path::PathBuf;
use std::sync::Arc;

/// The network that files are made for.
const NETWORK: NetworkDigest = NetworkDigest([7; 32]);

/// A scheme, keys, and a directory for their files.
struct Bed {
    params: Arc<Params>,
    backend: Arc<dyn Backend>,
    generator: KeyGenerator,
    secret: SecretKey,
    values: Vec<Vec<f64>>,
    dir: tempfile::TempDir,
}

impl Bed {
    fn new(preset: &str, seed: u64) -> Self {
        println!("preset {preset}, seed {seed}");
        let params = presets::by_name(preset).expect("a preset");
        let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).expect("a backend"));
        let random = RandomSource::insecure_seeded(seed);
        let generator = KeyGenerator::new(&params, backend.clone(), random).expect("a generator");
        let secret = generator.secret_key().expect("a key");
        let values = (0..3).map(|s| (0..params.slots()).map(|i| ((i + s) as f64).sin()).collect()).collect();
        Self { secret, generator, backend, params, values, dir: tempfile::tempdir().expect("a directory") }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn encrypt(&self) -> SeededCiphertext {
        let top = self.params.max_level();
        let encoder = Encoder::new(self.params.clone(), self.backend.clone());
        let (scale, basis) = (self.params.scale(top), self.params.window(top));
        let plain = encoder.encode_shards(&self.values, scale, basis, PlainForm::Plain).expect("a plaintext");
        let random = RandomSource::insecure_seeded(99);
        let encryptor = Encryptor::new(&self.params, self.backend.clone(), random).expect("an encryptor");
        encryptor.encrypt_seeded(&self.secret, &plain).expect("a ciphertext")
    }
    /// Largest error of the slots against the values, rotated.
    fn error(&self, secret: &SecretKey, ciphertext: &Ciphertext, rotation: usize) -> f64 {
        let decryptor = Decryptor::new(&self.params, self.backend.clone()).expect("a decryptor");
        let slots = decryptor.decrypt_real(secret, ciphertext).expect("slots");
        let n = self.params.slots();
        let of = |s: usize, i: usize| (slots[s][i] - self.values[s][(i + rotation) % n]).abs();
        (0..slots.len()).flat_map(|s| (0..n).map(move |i| of(s, i))).fold(0.0, f64::max)
    }
}

#[test]
fn everything_comes_back_and_works_together() {
    let bed = Bed::new("insecure-toy", 1);
    let (params, backend) = (&bed.params, bed.backend.as_ref());
    let top = params.max_level();
    let gadget = params.best_gadget(top..=top).expect("a gadget");
    let low = params.gadget(Level(1)..=Level(2), 2).expect("a gadget");
    let requests = [
        KeyRequest { kind: KeyKind::Galois(params.galois_element(5)), gadget },
        KeyRequest { kind: KeyKind::Galois(params.galois_element(5)), gadget: low },
        KeyRequest { kind: KeyKind::Relin, gadget },
    ];
    let keys = bed.generator.generate(&bed.secret, &requests).expect("keys");
    let public = bed.generator.public_key(&bed.secret).expect("a key");

    write_params(&bed.path("params"), params).expect("written");
    write_secret_key(&bed.path("secret"), params, &bed.secret).expect("written");
    write_public_key(&bed.path("public"), params, &public).expect("written");
    write_evaluation_keys(&bed.path("keys"), params, backend, &keys, Some(NETWORK)).expect("written");
    let fresh = bed.encrypt();
    write_seeded_ciphertext(&bed.path("fresh"), params, &fresh, Some(NETWORK)).expect("written");

    // The server: everything from files, nothing from memory.
    let params = read_params(&bed.path("params")).expect("parameters");
    assert_eq!((params.fingerprint(), params.name()), (bed.params.fingerprint(), "insecure-toy"));
    let keys = read_evaluation_keys(&bed.path("keys"), &params, backend).expect("keys");
    assert_eq!(keys.len(), 3);
    let ciphertext = read_ciphertext(&bed.path("fresh"), &params, backend).expect("a ciphertext");
    let evaluator = Evaluator::new(params.clone(), bed.backend.clone(), Arc::new(keys)).expect("an evaluator");
    let rotated = evaluator.rotate(&ciphertext, 5).expect("rotated");
    write_ciphertext(&bed.path("rotated"), &params, backend, &rotated, Some(NETWORK)).expect("written");

    // The client.
    let secret = read_secret_key(&bed.path("secret"), &params).expect("a key");
    let back = read_ciphertext(&bed.path("rotated"), &params, backend).expect("a ciphertext");
    assert_eq!(backend.download(back.buffer()).expect("words"), backend.download(rotated.buffer()).expect("words"));
    assert!(bed.error(&secret, &back, 5) < 1e-5, "{}", bed.error(&secret, &back, 5));
    let public_back = read_public_key(&bed.path("public"), &params).expect("a key");
    assert_eq!(public_back.parts(), public.parts());

    // A seed stands for half of a fresh ciphertext.
    let size = |name: &str| std::fs::metadata(bed.path(name)).expect("a file").len();
    assert!(size("fresh") * 2 < size("rotated") + 2048);
    for (name, kind) in
        [("params", Kind::Params), ("secret", Kind::SecretKey), ("keys", Kind::EvaluationKeys), ("fresh", Kind::Ciphertext)]
    {
        assert_eq!(container::kind_of(&bed.path(name)).expect("a kind"), kind);
        let origin = read_origin(&bed.path(name)).expect("an origin");
        assert_eq!(
            origin.as_ref().map(|o| (o.key_id, o.insecure)),
            (kind != Kind::Params).then_some((bed.secret.tag().key_id, true))
        );
        let serves_one = matches!(kind, Kind::EvaluationKeys | Kind::Ciphertext);
        assert_eq!(origin.and_then(|o| o.network), serves_one.then_some(NETWORK), "a secret key serves any network");
    }
}

#[test]
fn objects_of_other_parameters_kinds_and_keys_are_refused() {
    let (bed, other) = (Bed::new("insecure-toy", 2), Bed::new("insecure-toy", 3));
    let small = Bed::new("insecure-small", 4);
    let backend = bed.backend.as_ref();
    let path = bed.path("fresh");
    write_seeded_ciphertext(&path, &bed.params, &bed.encrypt(), None).expect("written");
    let error = read_ciphertext(&path, &small.params, small.backend.as_ref()).expect_err("other parameters");
    assert!(error.to_string().contains("insecure-small") && error.to_string().contains("insecure-toy"), "{error}");
    assert!(matches!(read_secret_key(&path, &bed.params), Err(WireError::Kind { expected: Kind::SecretKey, .. })));
    assert!(matches!(read_evaluation_keys(&path, &bed.params, backend), Err(WireError::Kind { .. })));
    // Equal parameters, another key: files tell them apart.
    let ciphertext = read_ciphertext(&path, &bed.params, backend).expect("a ciphertext");
    let decryptor = Decryptor::new(&bed.params, bed.backend.clone()).expect("a decryptor");
    assert!(matches!(decryptor.decrypt_real(&other.secret, &ciphertext), Err(CkksError::KeyMismatch { .. })));
}

/// Rewrites a file with its chunks and metadata changed and every hash right.
fn forge<T: serde::Serialize + serde::de::DeserializeOwned>(
    path: &std::path::Path,
    kind: Kind,
    change: impl FnOnce(&mut Metadata<T>, &mut Vec<Vec<u32>>),
) {
    let mut reader = container::Reader::<Metadata<T>>::open(path, kind).expect("a file");
    let sizes: Vec<usize> = reader.chunks().iter().map(|c| c.words as usize).collect();
    let mut chunks: Vec<Vec<u32>> = sizes.iter().enumerate().map(|(i, &n)| reader.chunk(i, n).expect("a chunk")).collect();
    let mut metadata = reader.metadata;
    change(&mut metadata, &mut chunks);
    let slices: Vec<&[u32]> = chunks.iter().map(Vec::as_slice).collect();
    container::write(path, kind, &metadata, &slices, false).expect("written");
}

#[test]
fn forged_ciphertexts_are_refused() {
    let bed = Bed::new("insecure-toy", 5);
    let path = bed.path("forged");
    type Body = Metadata<CiphertextBody>;
    let changes: [(&str, fn(&mut Body, &mut Vec<Vec<u32>>)); 12] = [
        ("first residue", |_, c| c[0][0] = u32::MAX),
        ("a residue equal to its modulus", |_, c| c[0][1023] = 1 << 30),
        ("last residue", |_, c| *c.last_mut().and_then(|c| c.last_mut()).expect("a word") = 1 << 31),
        ("a level that is not there", |m, _| m.body.level = 9),
        ("another level", |m, _| m.body.level -= 1),
        ("a huge level", |m, _| m.body.level = u32::MAX),
        ("no shards", |m, _| m.body.shards = 0),
        ("too many shards", |m, _| m.body.shards = u32::MAX),
        ("one shard more", |m, _| m.body.shards += 1),
        ("scale NaN", |m, _| m.body.scale = f64::NAN),
        ("scale 0", |m, _| m.body.scale = 0.0),
        ("a chunk more", |_, c| c.push(vec![0; 1024])),
    ];
    for (name, change) in changes {
        for seeded in [true, false] {
            let fresh = bed.encrypt();
            if seeded {
                write_seeded_ciphertext(&path, &bed.params, &fresh, None).expect("written");
            } else {
                let full = fresh.expand(&bed.params, bed.backend.as_ref()).expect("a ciphertext");
                write_ciphertext(&path, &bed.params, bed.backend.as_ref(), &full, None).expect("written");
            }
            forge(&path, Kind::Ciphertext, change);
            let result = read_ciphertext(&path, &bed.params, bed.backend.as_ref());
            assert!(result.is_err(), "{name}, seeded {seeded}");
        }
    }
}

#[test]
fn keys_for_raising_the_modulus_come_back_and_their_cap_holds_for_files() {
    let bed = Bed::new("insecure-boot", 8);
    write_params(&bed.path("params"), &bed.params).expect("written");
    let params = read_params(&bed.path("params")).expect("parameters");
    assert_eq!(params.bootstrap(), bed.params.bootstrap());
    assert_eq!(params.fingerprint(), bed.params.fingerprint());
    let backend = bed.backend.as_ref();
    let requests = params.encapsulation_requests().expect("requests");
    let keys = bed.generator.generate(&bed.secret, &requests).expect("keys");
    let path = bed.path("keys");
    write_evaluation_keys(&path, &params, backend, &keys, None).expect("written");
    let read = read_evaluation_keys(&path, &params, backend).expect("keys");
    assert_eq!(read.iter().map(|k| k.kind()).collect::<Vec<_>>(), [KeyKind::ToSparse, KeyKind::ToDense]);
    let (before, after) = [keys, read].map(|keys| Evaluator::new(params.clone(), bed.backend.clone(), Arc::new(keys))).into();
    let (before, after) = (before.expect("an evaluator"), after.expect("an evaluator"));
    let ciphertext = bed.encrypt().expand(&params, backend).expect("a ciphertext");
    let low = before.drop_to(&ciphertext, Level(0)).expect("level 0");
    let words = |e: &Evaluator| backend.download(e.mod_raise(&low).expect("raised").buffer()).expect("words");
    assert_eq!(words(&before), words(&after));
    // The key at the top, called one to the sparse secret.
    forge::<Vec<KeyBody>>(&path, Kind::EvaluationKeys, |m, _| m.body[1].request.kind = KeyKind::ToSparse);
    let error = read_evaluation_keys(&path, &params, backend).expect_err("over the cap");
    assert!(error.to_string().contains("sparse secret"), "{error}");
}

#[test]
fn forged_keys_are_refused() {
    let bed = Bed::new("insecure-toy", 6);
    let (params, backend) = (&bed.params, bed.backend.as_ref());
    let gadget = params.gadget(Level(2)..=Level(3), 2).expect("a gadget");
    let keys = bed.generator.generate(&bed.secret, &[KeyRequest { kind: KeyKind::Relin, gadget }]).expect("keys");
    let path = bed.path("keys");
    let foreign = presets::by_name("insecure-deep").expect("a preset");
    let foreign = foreign.best_gadget(Level(14)..=Level(14)).expect("a gadget");
    type Body = Vec<KeyBody>;
    let check = |name: &str, change: &dyn Fn(&mut Metadata<Body>, &mut Vec<Vec<u32>>)| {
        write_evaluation_keys(&path, params, backend, &keys, None).expect("written");
        forge::<Body>(&path, Kind::EvaluationKeys, change);
        assert!(read_evaluation_keys(&path, params, backend).is_err(), "{name}");
    };
    check("a residue", &|_, c| c[0][5] = u32::MAX);
    check("a foreign gadget", &|m, _| m.body[0].request.gadget = foreign);
    check("a key more than there are words for", &|m, _| m.body.push(m.body[0].clone()));
    check("a key fewer", &|m, _| m.body.clear());
    check("another fingerprint", &|m, _| m.origin.fingerprint[0] ^= 1);

    check("the same key twice", &|m, c| {
        m.body.push(m.body[0].clone());
        c.extend(c.clone());
    });

    let path = bed.path("secret");
    for word in [2, 5, u32::MAX - 1] {
        let _ = std::fs::remove_file(&path);
        write_secret_key(&path, params, &bed.secret).expect("written");
        assert!(matches!(write_secret_key(&path, params, &bed.secret), Err(WireError::Exists { .. })));
        forge::<()>(&path, Kind::SecretKey, |_, c| c[0][7] = word);
        assert!(matches!(read_secret_key(&path, params), Err(WireError::SecretWord { index: 7 })), "{word}");
    }
}

/// A gadget with any fields, as a file could have them.
fn gadget(start: usize, end: usize, alpha: usize, special: usize) -> Gadget {
    let fields = serde_json::json!({ "start": start, "end": end, "alpha": alpha, "special": special });
    serde_json::from_value(fields).expect("a gadget")
}

/// Keys of all zeros with every hash right are taken exactly where the generator would make them, and an evaluator that is given them does
/// not panic.
#[test]
fn keys_from_files_obey_the_rules_of_keys_that_are_made() {
    let bed = Bed::new("insecure-toy", 11);
    let (params, backend) = (&bed.params, bed.backend.as_ref());
    let top = params.max_level();
    let honest = KeyRequest::rotations(params, top, &[1]).expect("requests")[0];
    let keys = bed.generator.generate(&bed.secret, &[honest]).expect("keys");
    let path = bed.path("keys");
    let ciphertext = bed.encrypt().expand(params, backend).expect("a ciphertext");
    let read = |request: KeyRequest| {
        write_evaluation_keys(&path, params, backend, &keys, None).expect("written");
        let n = params.degree();
        forge::<Vec<KeyBody>>(&path, Kind::EvaluationKeys, |m, chunks| {
            m.body[0].request = request;
            let limbs = request.gadget.digits().saturating_mul(request.gadget.key_limbs());
            *chunks = vec![vec![0; limbs.min(1000) * n]];
        });
        let keys = read_evaluation_keys(&path, params, backend)?;
        let evaluator = Evaluator::new(params.clone(), bed.backend.clone(), Arc::new(keys)).expect("an evaluator");
        let _ = evaluator.rotate(&ciphertext, 1);
        let _ = evaluator.rotate_many(&ciphertext, &[1]);
        let _ = evaluator.mul(&ciphertext, &ciphertext);
        Ok::<(), WireError>(())
    };
    let (range, special) = (honest.gadget.range(), params.special().len());
    let (start, end) = (range.start, range.end);
    let all = params.tables().len();
    // Whatever a set makes is taken; what differs by too few special primes is not.
    for low in 0..=top.0 {
        for alpha in 1..=special + 1 {
            let Ok(made) = params.gadget(Level(low)..=top, alpha) else { continue };
            read(KeyRequest { gadget: made, ..honest }).expect("a gadget that was made");
            let (range, fewer) = (made.range(), made.special() - 1);
            let forged = gadget(range.start, range.end, alpha, fewer);
            assert!(read(KeyRequest { gadget: forged, ..honest }).is_err(), "{forged}");
        }
    }
    let forged = [
        ("no special prime", gadget(start, end, end - start, 0)),
        ("P below the largest digit", gadget(start, end, end - start, 1)),
        ("digits larger than any P", gadget(start, end, special + 2, special)),
        ("more special primes than there are", gadget(start, end, 1, special + 1)),
        ("digits of nothing", gadget(start, end, 0, special)),
        ("no limbs", gadget(start, start, 1, 1)),
        ("limbs backwards", gadget(end, start, 1, 1)),
        ("special primes among the digits", gadget(start, all, 1, 1)),
        ("limbs of no level", gadget(start, start + 1, 1, 1)),
        ("limbs beyond 16 bits of nothing", gadget(0, usize::from(u16::MAX), 1, 1)),
    ];
    for (name, forged) in forged {
        let error = read(KeyRequest { gadget: forged, ..honest }).expect_err(name);
        let WireError::Scheme(CkksError::Params(ParamsError::ForeignGadget { .. })) = error else { panic!("{name}: {error}") };
    }
    for element in [0, 2, 2 * params.degree() as u32 + 1, u32::MAX] {
        let error = read(KeyRequest { kind: KeyKind::Galois(element), ..honest }).expect_err("no automorphism");
        assert!(error.to_string().contains("automorphism"), "{error}");
    }
    // The generator refuses the same.
    let request = KeyRequest { gadget: gadget(start, end, end - start, 0), ..honest };
    assert!(bed.generator.key(&bed.secret, request).is_err());
}

#[test]
fn forged_parameters_are_refused() {
    let bed = Bed::new("insecure-toy", 7);
    let path = bed.path("params");
    let literal = bed.params.literal();
    let changes: [(&str, fn(&mut ParamsLiteral)); 8] = [
        ("a secure name", |l| l.name = "n10".into()),
        ("a secure name and flag", |l| (l.name, l.insecure) = ("n10".into(), false)),
        ("a huge degree", |l| l.log_n = 40),
        ("an even prime", |l| l.main[0] += 1),
        ("the same prime twice", |l| l.main[1] = l.main[0]),
        ("too many primes", |l| l.main.extend(vec![12_289; MAX_PRIMES])),
        ("a rung beyond the primes", |l| l.ladder[0].main = usize::MAX),
        ("scale infinity", |l| l.base_scale = f64::INFINITY),
    ];
    for (name, change) in changes {
        let mut literal = literal.clone();
        change(&mut literal);
        container::write(&path, Kind::Params, &literal, &[], false).expect("written");
        assert!(read_params(&path).is_err(), "{name}");
    }
    let boot = presets::by_name("insecure-boot").expect("a preset");
    let changes: [(&str, fn(&mut Bootstrap)); 8] = [
        ("more levels than there are", |b| b.coeffs_to_slots = 99),
        ("sizes whose sum overflows", |b| (b.coeffs_to_slots, b.slots_to_coeffs) = (usize::MAX, usize::MAX)),
        ("no level for a transform", |b| b.slots_to_coeffs = 0),
        ("a degree deeper than its levels", |b| b.degree = 32),
        ("angles beyond its levels", |b| b.double_angles = 4),
        ("no multiples of q0", |b| b.k = 1),
        ("a secret of nothing", |b| b.weight = 0),
        ("more slots than the ring has", |b| b.log_slots = 11),
    ];
    for (name, change) in changes {
        let mut literal = boot.literal().clone();
        literal.bootstrap.iter_mut().for_each(change);
        container::write(&path, Kind::Params, &literal, &[], false).expect("written");
        assert!(read_params(&path).is_err(), "{name}");
    }
}
