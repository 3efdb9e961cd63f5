//! Under which name a file ends up, and when.

use super::{WireError, io};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What becomes of a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and writing is an error: where it cannot be made again. Of two programs that write at once, one has the name.
    Kept,
    /// It is replaced, in one step.
    Replaced,
}

/// Writes a file of no kind of ours, as a report, in one step: what had the name stays until all is written. A device, a pipe or a link is
/// written to.
///
/// # Errors
/// [`WireError::Io`] where the system refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), WireError> {
    if std::fs::symlink_metadata(path).is_ok_and(|about| !about.is_file()) {
        return std::fs::write(path, bytes).map_err(io("write", path));
    }
    let mut temporary = Temporary::beside(path, false)?;
    temporary.file.write_all(bytes).map_err(io("write", path))?;
    temporary.name(path, Existing::Replaced)
}

/// A file that disappears unless it is given its name. Where the system has files without one (Linux, on most file systems) nothing is left
/// of it either when the program is killed; elsewhere a file `.NAME.PROCESS.N.part` is.
#[derive(Debug)]
pub(super) struct Temporary {
    /// Its name so far, where it has one that must go.
    path: Option<PathBuf>,
    pub(super) file: File,
}

impl Temporary {
    /// An empty file in the folder of `path`, under no name or one of its own.
    pub(super) fn beside(path: &Path, private: bool) -> Result<Self, WireError> {
        #[cfg(target_os = "linux")]
        if let Some(file) = nameless::open(folder(path), private) {
            return Ok(Self { path: None, file });
        }
        Self::named(path, private)
    }

    /// Under a name of its own.
    fn named(path: &Path, private: bool) -> Result<Self, WireError> {
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
        let (temporary, file) = under_a_new_name(path, |name| options.open(name)).map_err(io("write", path))?;
        Ok(Self { path: Some(temporary), file })
    }

    /// Flushes it to disk and gives it its name.
    pub(super) fn name(mut self, to: &Path, existing: Existing) -> Result<(), WireError> {
        self.file.sync_all().map_err(io("write", to))?;
        match existing {
            Existing::Replaced => self.replace(to)?,
            // A second name for the same file: fails where there is one, in one step.
            Existing::Kept => match self.link(to) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Err(WireError::Exists { path: to.into() }),
                Err(e) if self.path.is_none() => return Err(io("write", to)(e)),
                Err(_) => self.claim(to)?,
            },
        }
        // The name itself reaches the disk with the directory; a system that cannot sync one is not an error.
        if let Ok(directory) = File::open(folder(to)) {
            let _ = directory.sync_all();
        }
        Ok(())
    }

    /// Another name for it, that nothing has.
    fn link(&self, to: &Path) -> std::io::Result<()> {
        match &self.path {
            Some(path) => std::fs::hard_link(path, to),
            #[cfg(target_os = "linux")]
            None => nameless::link(&self.file, to),
            #[cfg(not(target_os = "linux"))]
            None => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes the place of whatever has the name.
    fn replace(&mut self, to: &Path) -> Result<(), WireError> {
        if self.path.is_none() {
            // Only names can be exchanged: it has one for as long as that takes.
            let (name, ()) = under_a_new_name(to, |name| self.link(name)).map_err(io("write", to))?;
            self.path = Some(name);
        }
        if let Some(path) = &self.path {
            std::fs::rename(path, to).map_err(io("write", to))?;
            self.path = None;
        }
        Ok(())
    }

    /// For file systems without second names: an empty file of that name, which nobody else can make, then this one in its place.
    fn claim(&mut self, to: &Path) -> Result<(), WireError> {
        match OpenOptions::new().write(true).create_new(true).open(to) {
            Ok(_) => self.replace(to).inspect_err(|_| {
                let _ = std::fs::remove_file(to);
            }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(WireError::Exists { path: to.into() }),
            Err(e) => Err(io("write", to)(e)),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes something beside `path` under the first name that is free.
fn under_a_new_name<T>(path: &Path, make: impl Fn(&Path) -> std::io::Result<T>) -> std::io::Result<(PathBuf, T)> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut attempt = 0;
    loop {
        let temporary = path.with_file_name(format!(".{name}.{}.{attempt}.part", std::process::id()));
        match make(&temporary) {
            Ok(made) => return Ok((temporary, made)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

/// Files that no name leads to until they are whole: the system forgets them when the program ends, however it ends.
#[cfg(target_os = "linux")]
mod nameless {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open as open_at};
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::path::{Path, PathBuf};

    /// None where the file system has no such files, or there is no way to name one later.
    pub(super) fn open(folder: &Path, private: bool) -> Option<File> {
        let mode = if private { Mode::RUSR | Mode::WUSR } else { Mode::from_raw_mode(0o666) };
        let file = File::from(open_at(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode).ok()?);
        handle(&file).exists().then_some(file)
    }

    /// The link to an open file that the system keeps.
    fn handle(file: &File) -> PathBuf {
        format!("/proc/self/fd/{}", file.as_raw_fd()).into()
    }

    pub(super) fn link(file: &File, to: &Path) -> std::io::Result<()> {
        Ok(linkat(CWD, handle(file), CWD, to, AtFlags::SYMLINK_FOLLOW)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Make = fn(&Path, bool) -> Result<Temporary, WireError>;

    fn temporary(make: Make, to: &Path, text: &str) -> Temporary {
        let mut temporary = make(to, true).unwrap();
        temporary.file.write_all(text.as_bytes()).unwrap();
        temporary
    }

    #[test]
    fn what_is_kept_is_never_lost_to_a_race() {
        // With a name of its own, and in the system's way.
        for make in [Temporary::named as Make, Temporary::beside] {
            let dir = tempfile::tempdir().unwrap();
            let to = dir.path().join("secret.key");
            let entries = || std::fs::read_dir(dir.path()).unwrap().count();
            // Both are written before either has its name.
            let (first, second) = (temporary(make, &to, "first"), temporary(make, &to, "second"));
            second.name(&to, Existing::Kept).unwrap();
            let error = first.name(&to, Existing::Kept).unwrap_err();
            assert!(matches!(&error, WireError::Exists { path } if *path == to), "{error}");
            assert_eq!(std::fs::read_to_string(&to).unwrap(), "second");
            assert_eq!(entries(), 1, "no temporary file is left");
            temporary(make, &to, "third").name(&to, Existing::Replaced).unwrap();
            assert_eq!(std::fs::read_to_string(&to).unwrap(), "third");
            drop(temporary(make, &to, "fourth"));
            assert_eq!(entries(), 1);
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
    }

    #[test]
    fn a_report_is_whole_or_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("record.md");
        for text in ["first", "second"] {
            write_whole(&to, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&to).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        // Whoever reads the old one goes on reading it: another file has its name.
        let mut old = File::open(&to).unwrap();
        write_whole(&to, b"third").unwrap();
        let mut read = String::new();
        std::io::Read::read_to_string(&mut old, &mut read).unwrap();
        assert_eq!(read, "second");
        #[cfg(unix)]
        {
            let link = dir.path().join("link.md");
            std::os::unix::fs::symlink(&to, &link).unwrap();
            write_whole(&link, b"fourth").unwrap();
            assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(std::fs::read_to_string(&to).unwrap(), "fourth");
        }
        assert!(matches!(write_whole(&dir.path().join("no/such/folder.md"), b""), Err(WireError::Io { .. })));
    }

    #[test]
    fn a_name_is_claimed_where_there_are_no_second_names() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("secret.key");
        std::fs::write(&to, "old").unwrap();
        let mut first = temporary(Temporary::named, &to, "first");
        assert!(matches!(first.claim(&to), Err(WireError::Exists { .. })));
        drop(first);
        std::fs::remove_file(&to).unwrap();
        let mut second = temporary(Temporary::named, &to, "second");
        second.claim(&to).unwrap();
        drop(second);
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "second");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_in_the_making_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        // On a file system that has no such files there is nothing to see.
        let Some(_file) = nameless::open(dir.path(), true) else { return println!("this file system names every file") };
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
