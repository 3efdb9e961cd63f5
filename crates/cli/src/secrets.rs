//! What a command does that handles a secret key or a picture.

use std::path::Path;

/// Leaves secrets out of core dumps: should this process crash, the system writes none of it to disk. A system that refuses, or has no
/// such dumps, is not an error.
pub(crate) fn no_core_dumps() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
}

/// Warns of a secret key that others than its owner can read. `keygen` makes none: it was copied, or its mode was changed.
pub(crate) fn warn_if_shared(key: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if std::fs::metadata(key).is_ok_and(|about| about.permissions().mode() & 0o077 != 0) {
            let key = key.display();
            crate::output::tell!(
                "warning: {key} is a secret key, and others than its owner may read or write it: chmod 600 {key}"
            );
        }
    }
    #[cfg(not(unix))]
    let _ = key;
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn core_dumps_are_off() {
        super::no_core_dumps();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
        assert_eq!(line.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{line}");
    }
}
