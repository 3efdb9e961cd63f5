//! The binary, run as a user runs it.

use std::process::{Command, Stdio};

/// What a run of the command gave.
pub(crate) struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The command on two threads, without what the environment says about processors, GPUs and backtraces.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cipherlens"));
    command.args(args).args(["--threads", "2"]);
    for variable in ["WGPU_ADAPTER_NAME", "WGPU_BACKEND", "CIPHERLENS_CPU", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn finish(command: &mut Command) -> Run {
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

pub(crate) fn run(args: &[&str]) -> Run {
    finish(&mut command(args))
}

impl Run {
    /// Success; the last line of standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(self.stdout.lines().last().unwrap_or_default()).expect("the last line is JSON")
    }

    /// Success; all of standard output.
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.code, 0, "{}", self.stderr);
        &self.stdout
    }

    /// Refused by the parser of the command line, in its own form, with these words.
    pub(crate) fn not_understood(&self, words: &[&str]) {
        assert_eq!(self.code, 2, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for part in ["error: "].iter().chain(words) {
            assert!(self.stderr.contains(part), "{part:?} is missing in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    /// Failure with a code, an explanation, and these words in it.
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for part in ["error: ", "\n  why: ", "\n  do:  "].iter().chain(words) {
            assert!(self.stderr.contains(part), "{part:?} is missing in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("this is a bug"), "{}", self.stderr);
    }
}
