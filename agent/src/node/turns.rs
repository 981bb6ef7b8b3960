//! Whose turn it is on each filesystem of the node.
//!
//! A session takes all its filesystems at once or waits for all of them, first come first served, so that two backups
//! on one node can never wait for each other; across nodes the coordinator takes its turns in the order of names.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stillpoint_hooks::mounts::Device;
use tokio::sync::watch;

/// The filesystems of the node, and who holds or waits for them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    queue: Arc<Mutex<Vec<Ticket>>>,
    changes: watch::Sender<()>,
}

/// A place in the queue.
#[derive(Debug, Clone)]
struct Ticket {
    number: u64,
    backup: String,
    devices: BTreeSet<Device>,
}

/// A place in the queue that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Turns,
    number: u64,
}

/// A session that holds filesystems, and the backups that wait for one of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) backup: String,
    pub(crate) devices: Vec<String>,
    pub(crate) waiting: Vec<String>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { queue: Arc::default(), changes: watch::Sender::new(()) }
    }
}

impl Turns {
    /// Joins the queue for these filesystems.
    pub(crate) fn join(&self, backup: &str, devices: BTreeSet<Device>) -> Place {
        let mut queue = self.queue();
        let number = queue.last().map_or(0, |last| last.number + 1);
        queue.push(Ticket { number, backup: backup.to_owned(), devices });
        drop(queue);
        Place { turns: self.clone(), number }
    }

    /// Who holds filesystems now, and who waits for them.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let queue = self.queue();
        let holds = |ticket: &&Ticket| before(&queue, ticket.number).is_empty();
        let holder = |ticket: &Ticket| Holder {
            backup: ticket.backup.clone(),
            devices: ticket.devices.iter().map(ToString::to_string).collect(),
            waiting: queue
                .iter()
                .filter(|other| other.number > ticket.number && !other.devices.is_disjoint(&ticket.devices))
                .map(|other| other.backup.clone())
                .collect(),
        };
        queue.iter().filter(holds).map(holder).collect()
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Ticket>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The backups that are to end before it is this one's turn.
    pub(crate) fn behind(&self) -> Vec<String> {
        before(&self.turns.queue(), self.number)
    }

    /// Waits for its turn; cancel safe.
    pub(crate) async fn turn(&self) {
        let mut changes = self.turns.changes.subscribe();
        while !self.behind().is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turns.queue().retain(|ticket| ticket.number != self.number);
        self.turns.changes.send_replace(());
    }
}

/// The backups before this number that share a filesystem with it.
fn before(queue: &[Ticket], number: u64) -> Vec<String> {
    let Some(own) = queue.iter().find(|ticket| ticket.number == number) else { return Vec::new() };
    let earlier = queue.iter().take_while(|ticket| ticket.number < number);
    earlier.filter(|ticket| !ticket.devices.is_disjoint(&own.devices)).map(|ticket| ticket.backup.clone()).collect()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn devices<const N: usize>(names: [&str; N]) -> BTreeSet<Device> {
        names.into_iter().map(|name| serde_json::from_value(name.into()).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_filesystem_is_one_sessions_and_the_next_waits_for_its_end() {
        let turns = Turns::default();
        let first = turns.join("a", devices(["8:1", "8:2"]));
        first.turn().await;
        let second = turns.join("b", devices(["8:2", "8:3"]));
        let third = turns.join("c", devices(["8:3"]));
        let other = turns.join("d", devices(["8:9"]));
        other.turn().await;
        assert_eq!((second.behind(), third.behind()), (vec!["a".to_owned()], vec!["b".to_owned()]));
        assert!(second.turn().now_or_never().is_none());
        let holders: Vec<_> = turns.holders().into_iter().map(|holder| (holder.backup, holder.waiting)).collect();
        assert_eq!(holders, [("a".to_owned(), vec!["b".to_owned()]), ("d".to_owned(), vec![])]);
        let waits = tokio::spawn(async move {
            second.turn().await;
            second
        });
        drop(first);
        let second = waits.await.unwrap();
        assert!(third.turn().now_or_never().is_none(), "who came first goes first");
        drop(second);
        third.turn().await;
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_nobody_up() {
        let turns = Turns::default();
        let first = turns.join("a", devices(["8:1"]));
        let second = turns.join("b", devices(["8:1"]));
        let third = turns.join("c", devices(["8:1"]));
        drop(second);
        drop(first);
        third.turn().await;
        assert_eq!(turns.holders().len(), 1);
    }
}
