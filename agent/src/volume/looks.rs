//! Looks at what writes on this host, once for all volumes that ask meanwhile.
//!
//! Volumes of one cut ask at nearly the same time, while their writers stand still. An answer must be no older than its
//! question, so whoever asks during a look waits for the next one, with all others who did.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use stillpoint_hooks::strangers::Writers;
use tokio::sync::Mutex;

/// Cheap to clone; clones look together.
#[derive(Debug, Clone, Default)]
pub struct Looks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    begun: AtomicU64,
    /// The number of the last look, and what it found.
    last: Mutex<Option<(u64, Arc<Writers>)>>,
}

impl Looks {
    /// What a look that begins from now on finds; none if it came to no end.
    pub(super) async fn look(&self) -> Option<Arc<Writers>> {
        let asked = self.0.begun.load(Ordering::SeqCst);
        let mut last = self.0.last.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(number, _)| *number > asked) {
            return Some(found.clone());
        }
        let number = self.0.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let found = Arc::new(tokio::task::spawn_blocking(Writers::look).await.ok()?);
        *last = Some((number, found.clone()));
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_ask_during_a_look_share_the_next_one() {
        let looks = Looks::default();
        let asked = futures::future::join_all((0..10).map(|_| looks.look())).await;
        let found: Vec<_> = asked.into_iter().map(Option::unwrap).collect();
        assert!(!Arc::ptr_eq(&found[0], &found[1]), "it began before the others asked");
        assert!(found[1..].iter().all(|other| Arc::ptr_eq(other, &found[1])));
        assert!(!Arc::ptr_eq(&looks.look().await.unwrap(), &found[1]), "it is older than the question");
    }
}
