//! Ctrl-C where a command can end early with what it has.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a process that Ctrl-C ends says to its shell.
const INTERRUPTED: i32 = 130;

/// Becomes true when Ctrl-C is pressed; pressed again, it ends the program as usual. From the first call on.
pub(crate) fn asked() -> &'static AtomicBool {
    static ASKED: AtomicBool = AtomicBool::new(false);
    static HANDLER: OnceLock<()> = OnceLock::new();
    HANDLER.get_or_init(|| {
        let handler = || {
            if ASKED.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED);
            }
            crate::output::tell!("  ending with the best found so far; Ctrl-C again ends at once");
        };
        // Where there can be no handler, Ctrl-C ends the program as it always did.
        let _ = ctrlc::set_handler(handler);
    });
    &ASKED
}
