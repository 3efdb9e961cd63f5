//! Shared by the integration tests.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod models;
pub mod slots;
