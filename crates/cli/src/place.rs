//! Where a command writes: what is refused before the work that comes first.

use super::failure::{Class, Failure, Outcome, explain};
use cipherlens::wire::{Kind, WireError, container};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// A failure to write a file.
pub(crate) fn unwritable(path: &Path) -> impl FnOnce(WireError) -> Failure {
    let what = format!("cannot write {}", path.display());
    move |e| explain(what, &e)
}

/// Writes a new file that its owner alone may read.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Outcome {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|e| {
        let advice = "name a file that there is not yet, in a folder that you may write to";
        Failure::from_error(Class::BadInput, format!("cannot write {}", path.display()), &e, advice)
    })
}

/// Refuses an output that could not be written when the work is done: something else has its name, its folder is not there or must not be
/// written to, or it is one of the files that are read, which would be lost.
pub(crate) fn check_output(path: &Path, kind: Kind, inputs: &[&Path]) -> Outcome {
    container::check_replaceable(path, kind).map_err(unwritable(path))?;
    if let Some(input) = inputs.iter().find(|input| is_same(path, input)) {
        let why = match path == *input {
            true => "it is an input of this command, and would be replaced by the output".to_owned(),
            false => format!(
                "it is the same file as {}, an input of this command, and would be replaced by the output",
                input.display()
            ),
        };
        let what = format!("cannot write {}", path.display());
        return Err(Failure::new(Class::Usage, what, why, "name another file with --output"));
    }
    container::check_place(path).map_err(unwritable(path))
}

/// Refuses the place of a report that could not be written when the work is done. A device, a pipe or a link is written to as it is.
pub(crate) fn check_report(path: &Path) -> Outcome {
    match std::fs::symlink_metadata(path) {
        Ok(about) if !about.is_file() && !about.is_dir() => Ok(()),
        Ok(about) if about.is_dir() => {
            let what = format!("cannot write {}", path.display());
            Err(Failure::new(Class::BadInput, what, "it is a folder", "name a file"))
        }
        _ => container::check_place(path).map_err(unwritable(path)),
    }
}

/// Refuses a folder that cannot be made or written to. It is not made yet.
pub(crate) fn check_folder(path: &Path) -> Outcome {
    let there = path.ancestors().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p }).find(|p| p.exists());
    let what = || format!("cannot make files in {}", path.display());
    match there {
        Some(folder) if !folder.is_dir() => {
            let why = format!("{} is no folder", folder.display());
            Err(Failure::new(Class::BadInput, what(), why, "name another folder"))
        }
        // Any name: nothing gets it.
        Some(folder) => container::check_place(&folder.join("key")).map_err(|e| explain(what(), &e)),
        None => Ok(()),
    }
}

/// Whether two paths lead to one file, by another way, a link or a second name too.
fn is_same(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if let (Ok(a), Ok(b)) = (std::fs::metadata(a), std::fs::metadata(b)) {
            return (a.dev(), a.ino()) == (b.dev(), b.ino());
        }
    }
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_by_any_path() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a.ct"), dir.path().join("b.ct"));
        std::fs::write(&file, "a").unwrap();
        std::fs::write(&other, "a").unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        assert!(is_same(&file, &dir.path().join("sub/../a.ct")) && !is_same(&file, &other));
        assert!(!is_same(&file, &dir.path().join("missing")));
        #[cfg(unix)]
        {
            let (link, name) = (dir.path().join("link"), dir.path().join("name"));
            std::os::unix::fs::symlink(&file, &link).unwrap();
            std::fs::hard_link(&file, &name).unwrap();
            assert!(is_same(&file, &link) && is_same(&name, &file));
        }
    }

    #[test]
    fn a_folder_is_refused_where_nothing_can_be_made() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "a").unwrap();
        check_folder(&dir.path().join("new/newer")).unwrap();
        check_report(&dir.path().join("report.md")).unwrap();
        check_report(&dir.path().join("new/report.md")).unwrap_err();
        check_report(dir.path()).unwrap_err();
        assert!(!dir.path().join("new").exists());
        let refused = check_folder(&dir.path().join("file/keys")).unwrap_err().to_string();
        assert!(refused.contains("is no folder"), "{refused}");
    }
}
