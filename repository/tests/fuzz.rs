//! Nothing that is read back from a store does harm, whatever is in it: no parser panics, takes more memory than its
//! input may cost, or understands what it wrote as something else.
//!
//! Samples, written by restic and by us, lie in `samples/`; what was found to do harm joins them. How long this runs is
//! set by STILLPOINT_FUZZ_SECONDS, 60 for all parsers together.

#![allow(clippy::print_stderr)]

use std::path::Path;

use stillpoint_repository::fuzzing::PARSERS;
use stillpoint_test_support::fuzz::{self, PeakAlloc};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What is expanded may have this size; what is in a few bytes of zstd is not known before.
const EXPANDED: usize = 128 << 20;

/// Bytes of memory for an input of this length, in all that is held at once: what was read, what it was written as, and
/// what that was read as.
fn memory(parser: &str, length: usize) -> usize {
    let expanded = if matches!(parser, "file" | "blob") { EXPANDED + (1 << 20) } else { 0 };
    expanded + (64 << 10) + 64 * length
}

fn fuzz(parser: &str) {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let share = fuzz::time() / u32::try_from(PARSERS.len()).unwrap_or(1);
    let tried = fuzz::one_of(&PARSERS, parser, &samples, &|length| memory(parser, length), share);
    eprintln!("{parser}: {tried:?}");
}

macro_rules! each_does_no_harm {
    ($($test:ident: $parser:literal,)*) => {
        mod no_harm_is_done_by_a {
            $(#[test]
            fn $test() {
                super::fuzz($parser);
            })*
        }

        #[test]
        fn every_parser_is_fuzzed() {
            assert_eq!(PARSERS.map(|(name, _)| name), [$($parser),*]);
        }
    };
}

each_does_no_harm! {
    blob: "blob",
    config: "config",
    file_of_any_kind: "file",
    index: "index",
    key_file: "key",
    lock: "lock",
    master_key: "master-key",
    name_in_a_tree: "name",
    pack_header: "pack",
    public_key: "public-key",
    sidecar: "sidecar",
    signature: "signature",
    snapshot: "snapshot",
    tree: "tree",
}
