//! What the fuzz targets call: every reader of a file that someone else may have made.

// The command's own modules, by a link: they are not part of the library.
#[allow(dead_code, unused_imports, reason = "of the command's modules only the readers are used here")]
mod cli {
    pub mod dataset;
    pub mod failure;
    pub mod npy;
    pub mod output;
    pub mod picture;
    pub mod sample;
}
pub mod pictures;
pub mod targets;
