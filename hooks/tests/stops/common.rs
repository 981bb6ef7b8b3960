//! What the tests of stops share.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use stillpoint_hooks::guard::{Config, Guard, Held, Stop};
use tempfile::TempDir;

/// Long enough for a busy machine, short enough for a test that fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A journal of a test's own, and guards that use it.
pub(crate) struct Desk {
    pub(crate) folder: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub(crate) fn config(&self) -> Config {
        config(&self.journal())
    }

    /// Starts a guard and stops.
    pub(crate) async fn stop(&self, stop: &Stop) -> Held {
        Guard::start(&self.config()).await.unwrap().stop(stop).await.unwrap()
    }

    /// Why nothing was stopped.
    pub(crate) async fn refused(&self, stop: &Stop) -> String {
        let guard = Guard::start(&self.config()).await.unwrap();
        let error = guard.stop(stop).await.unwrap_err().to_string();
        assert!(self.is_empty(), "{error}: the journal is not empty");
        error
    }

    /// Whether the journal says that nothing is stopped.
    pub(crate) fn is_empty(&self) -> bool {
        std::fs::read_dir(self.journal()).map_or(true, |mut entries| entries.next().is_none())
    }

    pub(crate) fn wait_until_empty(&self) {
        wait_for("the journal to be empty", || self.is_empty());
    }
}

pub(crate) fn config(journal: &Path) -> Config {
    Config { program: env!("CARGO_BIN_EXE_stillpoint-guard").into(), journal: journal.to_owned(), ..Config::default() }
}

/// A freeze of some filesystems.
pub(crate) fn freeze(paths: &[&Path]) -> Stop {
    Stop {
        freeze: paths.iter().map(|path| path.to_path_buf()).collect(),
        max: Duration::from_secs(10),
        grace: Duration::from_secs(2),
        sync: Duration::from_secs(10),
        ..Stop::default()
    }
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A writer of a file, one line after the other, in a thread that may block.
pub(crate) struct Writer {
    lines: std::sync::Arc<std::sync::atomic::AtomicU64>,
    end: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    path: PathBuf,
}

impl Writer {
    pub(crate) fn start(path: PathBuf) -> Self {
        use std::{io::Write, sync::atomic::Ordering::SeqCst};
        let (lines, end) = (std::sync::Arc::default(), std::sync::Arc::default());
        let (counted, ending, file) = (std::sync::Arc::clone(&lines), std::sync::Arc::clone(&end), path.clone());
        let write = move || {
            let mut file = std::fs::File::create(file).unwrap();
            while !std::sync::atomic::AtomicBool::load(&ending, SeqCst) {
                let number = std::sync::atomic::AtomicU64::load(&counted, SeqCst);
                writeln!(file, "{number}").unwrap();
                std::sync::atomic::AtomicU64::fetch_add(&counted, 1, SeqCst);
            }
        };
        let thread = Some(std::thread::spawn(write));
        let writer = Self { lines, end, thread, path };
        wait_for("the writer to write", || writer.lines() > 10);
        writer
    }

    /// How many lines are written.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Whether it writes.
    pub(crate) fn wait_until_it_goes_on(&self) {
        let before = self.lines();
        wait_for("the writer to go on", || self.lines() > before);
    }

    /// Ends it, and checks that every line is there, in order.
    pub(crate) fn end_and_check(mut self) {
        self.end.store(true, std::sync::atomic::Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        let text = std::fs::read_to_string(&self.path).unwrap();
        let lines = text.lines().enumerate().all(|(number, line)| line == number.to_string());
        assert!(lines && text.lines().count() as u64 == self.lines(), "what the writer wrote is not what is there");
    }
}
