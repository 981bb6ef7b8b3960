//! What a hook prints, kept up to a bound.
//!
//! Everything is read, so that no hook waits for us, but only the beginning and the end are kept: they say what was
//! wrong, whatever a hook prints between.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::oneshot,
    task::JoinHandle,
    time,
};

/// How many bytes of the beginning are kept of each output, and how many of the end.
pub const KEPT: usize = 16 * 1024;

/// How long after the end of a hook its outputs may take to end too: whatever it left running may hold them open.
const REST: Duration = Duration::from_secs(1);

/// The longest line that can say that a hold is ready.
const LONGEST_LINE: usize = 4096;

/// An output of a hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Output {
    /// What was kept; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// How many bytes between the beginning and the end were dropped.
    pub dropped: u64,
}

/// The bytes kept so far.
#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let surplus = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..surplus);
        self.dropped += surplus as u64;
    }

    fn output(&self) -> Output {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.dropped == 0 {
            return Output { text: text(&[&self.head[..], &tail].concat()), dropped: 0 };
        }
        let text = format!("{}\n… {} bytes dropped …\n{}", text(&self.head), self.dropped, text(&tail));
        Output { text, dropped: self.dropped }
    }
}

/// Reads an output in the background until it ends or this value is dropped.
#[derive(Debug)]
pub(super) struct Capture {
    kept: Arc<Mutex<Kept>>,
    reading: JoinHandle<()>,
}

impl Capture {
    /// Keeps what `reader` gives.
    pub(super) fn start(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::spawn(reader, None)
    }

    /// Keeps what `reader` gives, and says when a line of it is exactly `line`.
    pub(super) fn until_line(
        reader: impl AsyncRead + Send + Unpin + 'static,
        line: &'static str,
    ) -> (Self, oneshot::Receiver<()>) {
        let (seen, sight) = oneshot::channel();
        (Self::spawn(reader, Some(Lookout { line, current: Vec::new(), seen: Some(seen) })), sight)
    }

    fn spawn(mut reader: impl AsyncRead + Send + Unpin + 'static, mut lookout: Option<Lookout>) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let keeping = Arc::clone(&kept);
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; 8192];
            // an output that breaks has ended: how its hook ended says more
            while let Ok(read @ 1..) = reader.read(&mut buffer).await {
                lock(&keeping).add(&buffer[..read]);
                if let Some(lookout) = &mut lookout {
                    lookout.look(&buffer[..read]);
                }
            }
        });
        Self { kept, reading }
    }

    /// What the hook printed, once it has ended.
    pub(super) async fn finish(mut self) -> Output {
        let _ = time::timeout(REST, &mut self.reading).await;
        lock(&self.kept).output()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for one line among those that go by.
#[derive(Debug)]
struct Lookout {
    line: &'static str,
    current: Vec<u8>,
    seen: Option<oneshot::Sender<()>>,
}

impl Lookout {
    fn look(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                if self.current.trim_ascii_end() == self.line.as_bytes()
                    && let Some(seen) = self.seen.take()
                {
                    // nobody waits any more when the hold was given up
                    let _ = seen.send(());
                }
                self.current.clear();
            } else if self.current.len() < LONGEST_LINE {
                self.current.push(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_fits_is_kept_whole() {
        let text = "x".repeat(2 * KEPT);
        let output = Capture::start(std::io::Cursor::new(text.clone())).finish().await;
        assert_eq!(output, Output { text, dropped: 0 });
    }

    #[tokio::test]
    async fn of_more_the_beginning_and_the_end_are_kept_and_the_rest_counted() {
        let text = format!("begin{}end", "x".repeat(10 * KEPT));
        let output = Capture::start(std::io::Cursor::new(text.clone())).finish().await;
        assert_eq!(output.dropped, (text.len() - 2 * KEPT) as u64);
        assert!(output.text.starts_with("beginx") && output.text.ends_with("xend"));
        assert!(output.text.contains(&format!("… {} bytes dropped …", output.dropped)));
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_do_no_harm() {
        let output = Capture::start(&b"a\xff\0b"[..]).finish().await;
        assert_eq!(output.text, "a\u{fffd}\0b");
    }

    #[tokio::test(start_paused = true)]
    async fn an_output_that_never_ends_is_taken_as_it_is() {
        let (mut write, read) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut write, b"so far").await.unwrap();
        let capture = Capture::start(read);
        assert_eq!(capture.finish().await.text, "so far");
        drop(write);
    }

    #[tokio::test]
    async fn only_the_whole_line_counts() {
        let (capture, seen) = Capture::until_line(&b"not ready\nready to go\nready"[..], "ready");
        capture.finish().await;
        assert!(seen.await.is_err());
        let (capture, seen) = Capture::until_line(&b"locking\nready\r\n"[..], "ready");
        seen.await.unwrap();
        drop(capture);
    }
}
