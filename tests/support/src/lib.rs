//! What tests ask for the programs and servers that they need.
//!
//! A test that returns early looks like one that passed; asked for here, what was skipped is named
//! by `./test` at its end, and where everything must run a missing thing fails the test.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod require;
