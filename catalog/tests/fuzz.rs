//! Nothing that is read back of a backup does harm, whatever is in it: its manifest, the evidence beside it, the lines of
//! its objects.
//!
//! The bytes below them are the repository's, and fuzzed there. Samples lie in `samples/`; what was found to do harm joins
//! them.

#![allow(clippy::print_stderr)]

use std::path::Path;

use stillpoint_catalog::fuzzing::PARSERS;
use stillpoint_test_support::fuzz::{self, PeakAlloc};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes of memory for an input of this length, in all that is held at once: what was read, what it was written as, and
/// what that was read as.
fn memory(parser: &str, length: usize) -> usize {
    // evidence is JSON in JSON
    let for_a_byte = if parser == "evidence" { 128 } else { 64 };
    (64 << 10) + for_a_byte * length
}

fn fuzz(parser: &str) {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    // a quarter of the time, beside the repository's many parsers
    let tried = fuzz::one_of(&PARSERS, parser, &samples, &|length| memory(parser, length), fuzz::time() / 12);
    eprintln!("{parser}: {tried:?}");
}

#[test]
fn no_harm_is_done_by_evidence() {
    fuzz("evidence");
}

#[test]
fn no_harm_is_done_by_a_manifest() {
    fuzz("manifest");
}

#[test]
fn no_harm_is_done_by_a_line_of_objects() {
    fuzz("object");
}
