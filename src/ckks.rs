//! The scheme (filled in below).
