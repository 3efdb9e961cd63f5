//! The `cipherlens` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    cipherlens_cli::main()
}
