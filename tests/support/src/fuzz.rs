//! Feeds parsers with noise and with damaged samples until its time is up.
//!
//! Raw bytes rarely get past the first check of a parser, so most inputs are real samples, kept beside the tests, with
//! bytes or JSON values changed. What fails is made small and kept among the samples: from then on it is tried first.
//!
//! A program that fuzzes must count its memory, or nothing is proven about it:
//! ```
//! # use stillpoint_test_support::fuzz::PeakAlloc;
//! #[global_allocator]
//! static MEMORY: PeakAlloc = PeakAlloc;
//! ```

mod damage;

use std::{
    cell::Cell,
    env, fs,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

pub use peak_alloc::PeakAlloc;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

/// What a parser made of its input: what it understood, written again, or why it refused it.
pub type Parsed = Result<Vec<u8>, String>;

/// Reads bytes and panics if what it wrote again is not understood as the same.
pub type Parser = fn(&[u8]) -> Parsed;

/// A parser and what it may cost.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Reads bytes and panics if what it wrote again is not understood as the same.
    pub parse: &'a dyn Fn(&[u8]) -> Parsed,
    /// Bytes of memory that it may take for an input of this many bytes.
    pub memory: &'a dyn Fn(usize) -> usize,
    /// The folder of its samples.
    pub samples: &'a Path,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Inputs that the parser was given.
    pub inputs: u64,
    /// Those of them that it understood.
    pub understood: u64,
}

impl Tried {
    fn and(self, understood: bool) -> Self {
        Self { inputs: self.inputs + 1, understood: self.understood + u64::from(understood) }
    }
}

/// The longest that one input may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(5);

/// Memory is counted for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// The time of all targets together: `STILLPOINT_FUZZ_SECONDS`, otherwise a minute.
pub fn time() -> Duration {
    let seconds = env::var("STILLPOINT_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Tries all samples, then what becomes of them, for `time`.
///
/// # Panics
/// With the smallest input found that makes the parser panic, take too much memory or too long.
pub fn run(target: Target<'_>, time: Duration) -> Tried {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_memory_is_counted();
    let samples = samples(target.samples);
    let mut tried = Tried::default();
    for (name, sample) in &samples {
        match try_one(target, sample) {
            Ok(understood) => tried = tried.and(understood),
            Err(reason) => panic!("the sample {name}: {reason}"),
        }
    }
    let folder = target.samples.display();
    assert!(tried.understood > 0, "{folder}: no sample is understood, so nothing is changed that matters");
    let inputs = damage::inputs(samples.into_iter().map(|(_, sample)| sample).collect());
    let (begun, counted) = (Instant::now(), Cell::new(tried));
    let try_next = |input: Vec<u8>| {
        let understood = try_one(target, &input).map_err(TestCaseError::fail)?;
        counted.set(counted.get().and(understood));
        Ok(())
    };
    while begun.elapsed() < time {
        // a runner counts its cases, and does no more than these however often it is run
        let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
        let found = TestRunner::new(config).run(&inputs, try_next);
        match found {
            Ok(()) => {}
            Err(TestError::Fail(reason, input)) => panic!("{reason}; kept as {}", keep(target.samples, &input)),
            Err(error) => panic!("{error}"),
        }
    }
    counted.get()
}

/// Fuzzes one of several parsers, by its name, which its folder in `samples` has too.
///
/// # Panics
/// As [`run`], and if there is no parser of this name.
pub fn one_of(
    parsers: &[(&str, Parser)],
    name: &str,
    samples: &Path,
    memory: &dyn Fn(usize) -> usize,
    time: Duration,
) -> Tried {
    let found = parsers.iter().find(|(known, _)| *known == name);
    let (_, parse) = found.unwrap_or_else(|| panic!("no parser {name}"));
    run(Target { parse, memory, samples: &samples.join(name) }, time)
}

fn samples(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let list = fs::read_dir(folder).unwrap_or_else(|error| panic!("no samples in {}: {error}", folder.display()));
    let read = |entry: fs::DirEntry| {
        let content = fs::read(entry.path()).unwrap_or_else(|error| panic!("{}: {error}", entry.path().display()));
        (entry.file_name().to_string_lossy().into_owned(), content)
    };
    let mut samples: Vec<_> = list.flatten().map(read).collect();
    samples.sort();
    samples
}

fn keep(folder: &Path, input: &[u8]) -> String {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(input);
    let path = folder.join(format!("found-{hash:016x}"));
    match fs::write(&path, input) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("nothing ({}: {error}): {input:?}", path.display()),
    }
}

/// Whether the parser understood the input; fails if it did harm.
fn try_one(target: Target<'_>, input: &[u8]) -> Result<bool, String> {
    let before = PeakAlloc.current_usage();
    PeakAlloc.reset_peak_usage();
    let begun = Instant::now();
    let parsed = panic::catch_unwind(AssertUnwindSafe(|| (target.parse)(input)));
    let (took, peak) = (begun.elapsed(), PeakAlloc.peak_usage().saturating_sub(before));
    let allowed = (target.memory)(input.len());
    match parsed {
        Err(panicked) => {
            let words = panicked.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panicked.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(format!("it panicked: {}", words.unwrap_or_default()))
        }
        Ok(_) if peak > allowed => {
            Err(format!("it took {peak} bytes of memory for an input of {}, {allowed} are allowed", input.len()))
        }
        // a busy machine lets anything wait once
        Ok(_) if took > PATIENCE && again_slow(target, input) => {
            Err(format!("it took {took:?} for an input of {} bytes", input.len()))
        }
        Ok(parsed) => Ok(parsed.is_ok()),
    }
}

fn again_slow(target: Target<'_>, input: &[u8]) -> bool {
    let is_slow = || {
        let begun = Instant::now();
        let _ = (target.parse)(input);
        begun.elapsed() > PATIENCE
    };
    is_slow() && is_slow()
}

fn assert_memory_is_counted() {
    PeakAlloc.reset_peak_usage();
    let before = PeakAlloc.peak_usage();
    drop(std::hint::black_box(vec![1u8; 1 << 20]));
    assert!(PeakAlloc.peak_usage() > before, "PeakAlloc is not this program's allocator: no bound would be checked");
}
