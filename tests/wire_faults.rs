//! Writing that fails, or stops, at any byte; and two programs that want one name. There is the file that was there before, or the whole
//! new one, and never a part of one.
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

use cipherlens::backend::{Backend, cpu::CpuBackend};
use cipherlens::ckks::*;
use cipherlens::wire::objects::*;
use cipherlens::wire::{Expect, Kind, WireError, container, verify};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::result::Result;
use std::sync::Arc;

struct Scheme {
    params: Arc<Params>,
    backend: Arc<dyn Backend>,
    owner: Owner,
}

impl Scheme {
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let params = presets::by_name("insecure-tiny").expect("a preset");
        let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).expect("a backend"));
        let owner = Owner::insecure_seeded(&params, backend.clone(), seed).expect("a key");
        Self { params, backend, owner }
    }
    fn keys(&self) -> Arc<KeySet> {
        let requests = KeyRequest::rotations(&self.params, Level(2), &[1, 2]).expect("requests");
        self.owner.evaluation_keys(&requests).expect("keys")
    }
}

/// Takes so many bytes, a few at a time, and then is full.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let some = bytes.len().min(self.0).min(61);
        if some == 0 && !bytes.is_empty() {
            return Err(ErrorKind::StorageFull.into());
        }
        self.0 -= some;
        Ok(some)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_that_fails_at_any_byte_is_a_typed_error() {
    let scheme = Scheme::new(21);
    let (params, backend) = (&scheme.params, scheme.backend.as_ref());
    let keys = scheme.keys();
    let fresh = scheme.owner.encrypt_seeded(Level(2), &[[0.5f64; 16]]).expect("a ciphertext");
    let whole = fresh.expand(params, backend).expect("a ciphertext");
    let write = |kind: usize, output: &mut dyn Write| match kind {
        0 => write_params_to(output, params),
        1 => write_secret_key_to(output, params, scheme.owner.secret()),
        2 => write_evaluation_keys_to(output, params, backend, &keys, None),
        3 => write_seeded_ciphertext_to(output, params, &fresh, None),
        _ => write_ciphertext_to(output, params, backend, &whole, None),
    };
    for kind in 0..5 {
        let mut bytes = Vec::new();
        write(kind, &mut bytes).expect("written");
        let step = (bytes.len() / 400).max(1);
        for k in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let error = write(kind, &mut Full(k)).expect_err("full");
            let WireError::Stream { action: "write", source } = &error else { unreachable!("{error}") };
            assert_eq!(source.kind(), ErrorKind::StorageFull, "object {kind}, byte {k}");
        }
        write(kind, &mut Full(bytes.len())).expect("room for all of it");
    }
    // What was written to memory is what is written to a file, and both can be read from both.
    let dir = tempfile::tempdir().expect("a directory");
    let mut bytes = Vec::new();
    write_evaluation_keys_to(&mut bytes, params, backend, &keys, None).expect("written");
    write_evaluation_keys(&dir.path().join("keys"), params, backend, &keys, None).expect("written");
    assert_eq!(std::fs::read(dir.path().join("keys")).expect("a file"), bytes);
    assert_eq!(read_evaluation_keys_from(&bytes[..], params, backend, &Expect::default()).expect("keys").len(), 2);
}

#[test]
fn of_keys_written_at_once_under_one_name_one_is_kept() {
    let schemes: Vec<Scheme> = (0..4).map(|i| Scheme::new(30 + i)).collect();
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..25 {
        let path = dir.path().join(format!("secret{round}.key"));
        let outcomes: Vec<Result<(), WireError>> = std::thread::scope(|scope| {
            let writers: Vec<_> =
                schemes.iter().map(|s| scope.spawn(|| write_secret_key(&path, &s.params, s.owner.secret()))).collect();
            writers.into_iter().map(|w| w.join().expect("no panic")).collect()
        });
        let mut written = outcomes.iter().zip(&schemes).filter(|(outcome, _)| outcome.is_ok());
        let (_, winner) = written.next().expect("one has the name");
        assert!(written.next().is_none(), "round {round}: {outcomes:?}");
        assert!(outcomes.iter().flat_map(|o| o.as_ref().err()).all(|e| matches!(e, WireError::Exists { .. })), "{outcomes:?}");
        let read = read_secret_key(&path, &winner.params).expect("whole");
        assert_eq!(read.expose_coefficients(), winner.owner.secret().expose_coefficients());
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 25, "no temporary file is left");
}

#[test]
fn a_folder_that_cannot_be_written_is_a_typed_error() {
    let scheme = Scheme::new(40);
    let dir = tempfile::tempdir().expect("a directory");
    let write = |path: &Path| write_secret_key(path, &scheme.params, scheme.owner.secret());
    assert!(matches!(write(&dir.path().join("none").join("secret.key")), Err(WireError::Io { action: "write", .. })));
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).expect("made");
    assert!(write(&folder).is_err(), "the name of a folder");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o555)).expect("changed");
        // Some users may write anywhere.
        if std::fs::write(folder.join("probe"), []).is_err() {
            assert!(matches!(write(&folder.join("secret.key")), Err(WireError::Io { action: "write", .. })));
        }
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).expect("changed");
    }
}

const FILE: &str = "CIPHERLENS_TEST_FILE";
const WORDS: usize = 3000;
const CHUNKS: usize = 5;

fn write_generation(path: &Path, generation: u32) -> Result<(), WireError> {
    let words = vec![generation; WORDS];
    container::write(path, Kind::Ciphertext, &generation, &[&words[..]; CHUNKS], false)
}

/// Which generation a file is of; whole, or this fails.
fn generation(path: &Path) -> u32 {
    let mut reader = container::Reader::<u32>::open(path, Kind::Ciphertext).expect("a whole header");
    for chunk in 0..CHUNKS {
        assert_eq!(reader.chunk(chunk, WORDS).expect("a whole chunk"), vec![reader.metadata; WORDS]);
    }
    reader.metadata
}

/// Not a test: the program that is stopped.
#[test]
#[ignore = "the other process of the test below"]
fn writes_until_it_is_stopped() {
    let Some(path) = std::env::var_os(FILE) else { return };
    if let Err(error) = write_generation(Path::new(&path), 2) {
        assert!(matches!(error, WireError::Io { action: "write", .. }), "{error}");
        std::process::exit(9);
    }
}

/// The system stops a program that writes more than it may, at exactly that byte, or tells it that there is no room.
#[test]
#[cfg(target_os = "linux")]
fn a_program_stopped_in_mid_write_leaves_what_was_there() {
    use std::os::unix::process::ExitStatusExt;
    let exe = std::env::current_exe().expect("this program");
    let size = 4 * WORDS * CHUNKS;
    let (mut killed, mut told, mut done) = (0, 0, 0);
    for mode in ["", "trap '' XFSZ; "] {
        for blocks in (0..2 + size / 512).step_by(7).chain([size / 512 + 4]) {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("file");
            write_generation(&path, 1).expect("written");
            let script =
                format!("{mode}ulimit -c 0; ulimit -f {blocks}; exec \"$0\" --exact --ignored writes_until_it_is_stopped");
            let status = std::process::Command::new("/bin/sh")
                .args(["-c", &script])
                .arg(&exe)
                .env(FILE, &path)
                .stdout(std::process::Stdio::null())
                .status()
                .expect("a shell");
            let files = std::fs::read_dir(dir.path()).expect("a directory").count();
            match (status.signal(), status.code()) {
                (Some(_), _) => {
                    killed += 1;
                    assert_eq!(generation(&path), 1, "stopped within {blocks} blocks");
                }
                (None, Some(9)) => {
                    told += 1;
                    assert_eq!((generation(&path), files), (1, 1), "no room beyond {blocks} blocks");
                }
                (None, code) => {
                    done += 1;
                    assert_eq!((code, generation(&path), files), (Some(0), 2, 1));
                }
            }
        }
    }
    println!("{killed} stopped, {told} told, {done} done");
    assert!(killed > 5 && told > 5 && done > 1);
}

#[test]
fn a_whole_file_is_verified_without_being_kept() {
    let scheme = Scheme::new(50);
    let (params, backend) = (&scheme.params, scheme.backend.as_ref());
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let fresh = scheme.owner.encrypt_seeded(Level(2), &[[0.5f64; 16]]).expect("a ciphertext");
    write_params(&path("params"), params).expect("written");
    write_secret_key(&path("secret"), params, scheme.owner.secret()).expect("written");
    write_evaluation_keys(&path("keys"), params, backend, &scheme.keys(), None).expect("written");
    write_seeded_ciphertext(&path("fresh"), params, &fresh, None).expect("written");
    write_ciphertext(&path("whole"), params, backend, &fresh.expand(params, backend).expect("whole"), None).expect("written");
    for (name, kind) in [
        ("params", Kind::Params),
        ("secret", Kind::SecretKey),
        ("keys", Kind::EvaluationKeys),
        ("fresh", Kind::Ciphertext),
        ("whole", Kind::Ciphertext),
    ] {
        let verified = verify(&path(name), Some(params)).expect("whole");
        let size = std::fs::metadata(path(name)).expect("a file").len();
        assert_eq!((verified.kind, verified.bytes), (kind, size), "{name}");
        assert_eq!(verified.origin.map(|o| o.key_id), (kind != Kind::Params).then_some(scheme.owner.tag().key_id));
        let mut bytes = std::fs::read(path(name)).expect("a file");
        *bytes.last_mut().expect("a byte") ^= 1;
        std::fs::write(path(name), &bytes).expect("written");
        assert!(verify(&path(name), Some(params)).is_err(), "{name}");
    }
    let other = presets::by_name("insecure-toy").expect("a preset");
    write_seeded_ciphertext(&path("fresh"), params, &fresh, None).expect("written");
    assert!(matches!(verify(&path("fresh"), Some(&other)), Err(WireError::Origin { .. })));
    assert!(verify(&path("fresh"), None).is_err());
}
