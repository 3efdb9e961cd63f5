//! Shared by the integration tests.
#![allow(dead_code, clippy::expect_used, clippy::panic, reason = "each test file uses a part; a test that cannot go on may stop")]

pub mod cnn;
pub mod diagonals;
pub mod models;
pub mod onnx;
pub mod resnet20;
pub mod shared;
pub mod slots;
