//! Pictures.

/// Placeholder.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {}
