//! Asks again where asking again may help.
//!
//! One policy value is passed along instead of being built at each call, so that a caller decides once how patient it
//! is; which outcomes are worth another attempt is the error's own knowledge.

use std::{future::Future, time::Duration};

use backon::{ExponentialBuilder, Retryable};

use crate::Error;

/// A server's wish to wait is honoured up to here.
const LONGEST_WISH: Duration = Duration::from_secs(60);

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
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 7,
            first_delay: Duration::from_millis(200),
            longest_delay: Duration::from_secs(8),
            total_delay: Duration::from_secs(45),
            deadline: Duration::from_secs(60),
        }
    }
}

impl Retry {
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
        attempt
            .retry(self.policy())
            .when(Error::is_transient)
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
