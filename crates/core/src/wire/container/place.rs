//! Under which name a file ends up, and when.

use super::{WireError, io};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// What becomes of a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and writing is an error: where it cannot be made again. Of two programs that write at once, one has the name.
    Kept,
    /// It is replaced, in one step.
    Replaced,
}

/// A file that disappears unless it is given its name.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    pub(super) file: File,
    moved: bool,
}

impl Temporary {
    /// An empty file in the folder of `path`, under a name of its own.
    pub(super) fn beside(path: &Path, private: bool) -> Result<Self, WireError> {
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
        Ok(Self { path: temporary, file, moved: false })
    }

    /// Flushes it to disk and gives it its name.
    pub(super) fn name(mut self, to: &Path, existing: Existing) -> Result<(), WireError> {
        self.file.sync_all().map_err(io("write", to))?;
        match existing {
            Existing::Replaced => self.rename(to)?,
            // A second name for the same file: fails where there is one, in one step.
            Existing::Kept => match std::fs::hard_link(&self.path, to) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Err(WireError::Exists { path: to.into() }),
                Err(_) => self.claim(to)?,
            },
        }
        // The name itself reaches the disk with the directory; a system that cannot sync one is not an error.
        let directory = to.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
        if let Some(Ok(directory)) = directory.map(File::open) {
            let _ = directory.sync_all();
        }
        Ok(())
    }

    fn rename(&mut self, to: &Path) -> Result<(), WireError> {
        std::fs::rename(&self.path, to).map_err(io("write", to))?;
        self.moved = true;
        Ok(())
    }

    /// For file systems without second names: an empty file of that name, which nobody else can make, then this one in its place.
    fn claim(&mut self, to: &Path) -> Result<(), WireError> {
        match OpenOptions::new().write(true).create_new(true).open(to) {
            Ok(_) => self.rename(to).inspect_err(|_| {
                let _ = std::fs::remove_file(to);
            }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(WireError::Exists { path: to.into() }),
            Err(e) => Err(io("write", to)(e)),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.moved {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn temporary(to: &Path, text: &str) -> Temporary {
        let mut temporary = Temporary::beside(to, true).unwrap();
        temporary.file.write_all(text.as_bytes()).unwrap();
        temporary
    }

    #[test]
    fn what_is_kept_is_never_lost_to_a_race() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("secret.key");
        // Both are written before either has its name.
        let (first, second) = (temporary(&to, "first"), temporary(&to, "second"));
        second.name(&to, Existing::Kept).unwrap();
        let error = first.name(&to, Existing::Kept).unwrap_err();
        assert!(matches!(&error, WireError::Exists { path } if *path == to), "{error}");
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "second");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        // Without second names, the same.
        let mut third = temporary(&to, "third");
        assert!(matches!(third.claim(&to), Err(WireError::Exists { .. })));
        drop(third);
        std::fs::remove_file(&to).unwrap();
        let mut fourth = temporary(&to, "fourth");
        fourth.claim(&to).unwrap();
        drop(fourth);
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "fourth");
        temporary(&to, "fifth").name(&to, Existing::Replaced).unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "fifth");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
