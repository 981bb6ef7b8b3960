//! Shows that fuzzing finds what it is there for.

#![allow(clippy::unwrap_used)]

use std::{
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use stillpoint_test_support::fuzz::{self, Parsed, PeakAlloc, Target};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const SAMPLE: &str = r#"{"name":"a","length":3}"#;

/// What is said of a parser after some seconds, and how many inputs were kept.
fn found(parse: &dyn Fn(&[u8]) -> Parsed) -> (Option<String>, usize) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sample.json"), SAMPLE).unwrap();
    let target = Target { parse, memory: &|_| 1 << 20, samples: folder.path() };
    let run = panic::catch_unwind(AssertUnwindSafe(|| fuzz::run(target, Duration::from_secs(20))));
    let said = run.err().map(|panicked| panicked.downcast_ref::<String>().unwrap().clone());
    (said, std::fs::read_dir(folder.path()).unwrap().count() - 1)
}

#[test]
fn most_inputs_of_a_sound_parser_are_not_understood_and_some_are() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sample.json"), SAMPLE).unwrap();
    let parse = |input: &[u8]| length(input).map(|_| input.to_vec()).ok_or_else(String::new);
    let target = Target { parse: &parse, memory: &|_| 1 << 30, samples: folder.path() };
    let tried = fuzz::run(target, Duration::from_secs(1));
    assert!(tried.understood > 10 && tried.understood < tried.inputs, "{tried:?}");
}

fn length(input: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(input).ok()?.get("length")?.as_u64()
}

#[test]
fn a_parser_that_panics_is_found_and_its_input_kept() {
    let parse = |input: &[u8]| {
        assert!(length(input).is_none_or(|length| length < 1000), "boom");
        Ok(input.to_vec())
    };
    let (said, kept) = found(&parse);
    assert!(said.unwrap().starts_with("it panicked: boom"));
    assert_eq!(kept, 1);
}

#[test]
fn a_parser_that_believes_in_a_size_is_found() {
    let parse = |input: &[u8]| {
        let length = length(input).unwrap_or(0).min(1 << 30);
        Ok(Vec::with_capacity(usize::try_from(length).unwrap()))
    };
    assert!(found(&parse).0.unwrap().contains("bytes of memory"));
}
