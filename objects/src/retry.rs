//! Asks again where asking again may help.
//!
//! One policy value is passed along instead of being built at each call, so that a caller decides once how patient it
//! is; which outcomes are worth another attempt is the error's own knowledge.

use std::{future::Future, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use tokio::time::Instant;

use crate::Error;

/// A server's wish to wait is honoured up to here.
const LONGEST_WISH: Duration = Duration::from_secs(60);
/// How long a small answer may take, and when no further one is asked for.
const BRIEF_DEADLINE: Duration = Duration::from_secs(20);
const BRIEF_PATIENCE: Duration = Duration::from_secs(45);

/// How patient to be with a server. Delays double from `first_delay`, with jitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all; 1 asks once.
    pub attempts: usize,
    /// The delay before the second attempt.
    pub first_delay: Duration,
    /// No delay is longer, unless the server asks for it.
    pub longest_delay: Duration,
    /// All delays together are no longer, what servers ask for apart.
    pub total_delay: Duration,
    /// How long one attempt may take, its whole answer included.
    pub deadline: Duration,
    /// No attempt is begun later than this after the first: a server that takes questions and answers none is given up
    /// sooner than all attempts would take.
    pub patience: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 7,
            first_delay: Duration::from_millis(200),
            longest_delay: Duration::from_secs(8),
            total_delay: Duration::from_secs(45),
            deadline: Duration::from_secs(60),
            patience: Duration::from_secs(90),
        }
    }
}

impl Retry {
    /// The same for a question whose answer is small, so that silence tells sooner.
    #[must_use]
    pub fn brief(&self) -> Self {
        let (deadline, patience) = (self.deadline.min(BRIEF_DEADLINE), self.patience.min(BRIEF_PATIENCE));
        Self { deadline, patience, ..self.clone() }
    }

    /// Makes attempts until one succeeds, fails for good, or patience ends; the last error is returned.
    ///
    /// Each attempt is a future of its own, made anew. Dropping the returned future drops the attempt under way.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn run<T, F, A>(&self, attempt: F) -> Result<T, Error>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T, Error>>,
    {
        let begun = Instant::now();
        attempt
            .retry(self.policy())
            .when(|error| error.is_transient() && begun.elapsed() < self.patience)
            // none means that patience has ended, whatever the server wishes
            .adjust(|error, delay| delay.map(|delay| wished(error).unwrap_or(delay)))
            .notify(|error, delay| tracing::debug!(%error, ?delay, "asking again"))
            .await
    }

    /// Makes attempts with a kube call, each within the deadline; `what` names the call in errors.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn call<T, F, A>(&self, what: &str, mut call: F) -> Result<T, Error>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T, kube::Error>>,
    {
        self.run(|| {
            let call = call();
            self.within(what, async { call.await.map_err(|error| Error::from_kube(what, error)) })
        })
        .await
    }

    /// One attempt within the deadline.
    pub(crate) async fn within<T>(
        &self,
        what: &str,
        attempt: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = |_| Error::TimedOut { what: what.to_owned(), after: self.deadline };
        tokio::time::timeout(self.deadline, attempt).await.map_err(late)?
    }

    fn policy(&self) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.longest_delay)
            .with_max_times(self.attempts.saturating_sub(1))
            .with_total_delay(Some(self.total_delay))
    }
}

fn wished(error: &Error) -> Option<Duration> {
    error.retry_after().map(|wish| wish.min(LONGEST_WISH))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use kube::core::Status;

    use super::*;

    fn quick() -> Retry {
        let millisecond = Duration::from_millis(1);
        Retry { attempts: 4, first_delay: millisecond, longest_delay: millisecond, ..Retry::default() }
    }

    fn refusal(code: u16, retry_after_seconds: u32) -> Error {
        let mut status = Status::failure("busy", "").with_code(code);
        let details = serde_json::json!({ "retryAfterSeconds": retry_after_seconds });
        status.details = serde_json::from_value(details).unwrap();
        Error::from_status("ask".into(), status)
    }

    async fn attempts(retry: &Retry, outcome: impl Fn(usize) -> Result<(), Error>) -> (usize, Result<(), Error>) {
        let made = Cell::new(0);
        let result = retry
            .run(|| {
                made.set(made.get() + 1);
                std::future::ready(outcome(made.get()))
            })
            .await;
        (made.get(), result)
    }

    #[tokio::test]
    async fn what_may_pass_is_asked_again_until_it_passes() {
        let outcome = |attempt| if attempt < 3 { Err(refusal(503, 0)) } else { Ok(()) };
        assert!(matches!(attempts(&quick(), outcome).await, (3, Ok(()))));
    }

    #[tokio::test]
    async fn patience_ends_with_the_last_error() {
        let (made, result) = attempts(&quick(), |_| Err(refusal(503, 0))).await;
        assert_eq!(made, 4);
        assert!(result.unwrap_err().to_string().contains("busy"));
        let once = Retry { attempts: 1, ..quick() };
        assert_eq!(attempts(&once, |_| Err(refusal(503, 0))).await.0, 1);
    }

    #[tokio::test]
    async fn a_refusal_for_good_is_not_asked_again() {
        assert_eq!(attempts(&quick(), |_| Err(refusal(403, 0))).await.0, 1);
    }

    #[tokio::test]
    async fn the_server_is_given_the_time_it_asks_for() {
        let started = Instant::now();
        let outcome = |attempt| if attempt < 2 { Err(refusal(429, 1)) } else { Ok(()) };
        assert_eq!(attempts(&quick(), outcome).await.0, 2);
        assert!(started.elapsed() >= Duration::from_secs(1));
        assert_eq!(wished(&refusal(429, 3600)), Some(LONGEST_WISH));
        assert_eq!(wished(&refusal(429, 0)), None);
    }

    #[tokio::test]
    async fn an_attempt_without_an_answer_ends_at_its_deadline_and_is_made_again() {
        let retry = Retry { attempts: 3, deadline: Duration::from_millis(5), ..quick() };
        let made = Cell::new(0);
        let result = retry.call("ask the dead", || {
            made.set(made.get() + 1);
            std::future::pending::<Result<(), kube::Error>>()
        });
        let error = result.await.unwrap_err();
        assert!(matches!(&error, Error::TimedOut { what, .. } if what == "ask the dead"), "{error}");
        assert_eq!(made.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_nothing_is_given_up_before_all_attempts_are_made() {
        // two and three deadlines, and the delays between them with the most jitter
        for (retry, made, within) in [(Retry::default(), 2, 121), (Retry::default().brief(), 3, 62)] {
            let (asked, begun) = (Cell::new(0), Instant::now());
            let result = retry.call("ask the dead", || {
                asked.set(asked.get() + 1);
                std::future::pending::<Result<(), kube::Error>>()
            });
            assert!(matches!(result.await, Err(Error::TimedOut { .. })));
            assert_eq!(asked.get(), made);
            assert!(begun.elapsed() < Duration::from_secs(within), "{:?}", begun.elapsed());
        }
    }
}
