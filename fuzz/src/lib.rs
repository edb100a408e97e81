//! What must hold for any bytes, whoever sends them.
//!
//! Each function of [`targets`] takes bytes and panics when a promise about them is broken. Two ways
//! lead there: `make fuzz` has libFuzzer search for such bytes, guided by coverage; the tests of this
//! crate replay the kept corpus and some thousand mutations of it, so that the targets can't rot.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a panic is how a target says that a promise is broken"
)]

mod model;
pub mod mutate;
pub mod targets;
