//! The `cipherlens` command.

fn main() {
    println!("cipherlens {}", env!("CARGO_PKG_VERSION"));
}
