//! What the fuzz targets call: every reader of a file that someone else may have made.

pub mod pictures;
pub mod targets;
