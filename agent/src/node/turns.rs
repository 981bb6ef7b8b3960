//! Whose turn it is on each filesystem of the node.
//!
//! A session takes all its filesystems at once or waits for all of them, first come first served, so that two backups
//! on one node can never wait for each other; across nodes the coordinator takes its turns in the order of names. Then it
//! waits for other processes of the host, by the lock that all of them take.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use stillpoint_hooks::{
    JournalError,
    mounts::Device,
    turn::{self, Turn},
};
use tokio::{sync::watch, time};

use super::wire;

/// Between two looks at what another process has locked: the kernel tells nobody that it was released.
const ASK_AGAIN: Duration = Duration::from_millis(200);

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
    volumes: Vec<String>,
    devices: BTreeSet<Device>,
    /// The work of other processes that it waits for.
    outside: Vec<String>,
}

/// A place in the queue that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Turns,
    number: u64,
}

impl Default for Turns {
    fn default() -> Self {
        Self { queue: Arc::default(), changes: watch::Sender::new(()) }
    }
}

impl Turns {
    /// Joins the queue for the filesystems that these volumes lie on.
    pub(crate) fn join(&self, backup: &str, volumes: Vec<String>, devices: BTreeSet<Device>) -> Place {
        let mut queue = self.queue();
        let number = queue.last().map_or(0, |last| last.number + 1);
        queue.push(Ticket { number, backup: backup.to_owned(), volumes, devices, outside: Vec::new() });
        drop(queue);
        Place { turns: self.clone(), number }
    }

    /// Who is in the queue, and who waits for whom, in the order in which they came.
    pub(crate) fn sessions(&self) -> Vec<wire::Session> {
        let queue = self.queue();
        let session = |ticket: &Ticket| wire::Session {
            backup: ticket.backup.clone(),
            volumes: ticket.volumes.clone(),
            behind: before(&queue, ticket.number).into_iter().chain(ticket.outside.clone()).collect(),
        };
        queue.iter().map(session).collect()
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Ticket>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The backups that are to end before it is this one's turn, once they are not those that were told; cancel safe.
    pub(crate) async fn behind(&self, told: Option<&[String]>) -> Vec<String> {
        let mut changes = self.turns.changes.subscribe();
        loop {
            let behind = before(&self.turns.queue(), self.number);
            if told != Some(&behind[..]) || changes.changed().await.is_err() {
                return behind;
            }
        }
    }

    /// Takes the filesystems from other processes of the host, or says for whom it waits, once it is not those that were
    /// told; cancel safe.
    pub(crate) async fn outside(
        &self,
        journal: &Path,
        told: &[String],
    ) -> Result<Result<Turn, Vec<String>>, JournalError> {
        let own = self.turns.queue().iter().find(|ticket| ticket.number == self.number).cloned();
        // it is in the queue for as long as it lives
        let (devices, work) = own.map(|own| (own.devices, own.backup)).unwrap_or_default();
        let turn = take_turn(journal, &devices, &work, told).await?;
        if let Some(own) = self.turns.queue().iter_mut().find(|ticket| ticket.number == self.number) {
            own.outside = turn.as_ref().err().cloned().unwrap_or_default();
        }
        Ok(turn)
    }
}

/// Takes filesystems among the processes of this host, or says who has some of them, once it is not those that were told;
/// cancel safe.
///
/// # Errors
/// The lock cannot be used.
pub async fn take_turn(
    journal: &Path,
    devices: &BTreeSet<Device>,
    work: &str,
    told: &[String],
) -> Result<Result<Turn, Vec<String>>, JournalError> {
    loop {
        let (folder, devices, work) = (journal.to_owned(), devices.clone(), work.to_owned());
        let taken = tokio::task::spawn_blocking(move || turn::take(&folder, &devices, &work)).await;
        match taken.map_err(|error| JournalError::File { path: journal.to_owned(), source: error.into() })?? {
            Ok(turn) => return Ok(Ok(turn)),
            Err(holders) => {
                let behind: Vec<_> = holders.iter().map(ToString::to_string).collect();
                if behind != told {
                    return Ok(Err(behind));
                }
            }
        }
        time::sleep(ASK_AGAIN).await;
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
        let first = turns.join("a", vec!["shop/data".to_owned()], devices(["8:1", "8:2"]));
        let second = turns.join("b", Vec::new(), devices(["8:2", "8:3"]));
        let third = turns.join("c", Vec::new(), devices(["8:1", "8:3"]));
        let other = turns.join("d", Vec::new(), devices(["8:9"]));
        let none: [&str; 0] = [];
        assert_eq!((first.behind(None).await, other.behind(None).await), (Vec::new(), Vec::new()));
        let behind = (second.behind(None).await, third.behind(None).await);
        assert_eq!(behind, (vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]));
        let sessions = turns.sessions();
        let told: Vec<_> = sessions.iter().map(|session| (session.backup.as_str(), session.behind.len())).collect();
        assert_eq!((&sessions[0].volumes[0][..], told), ("shop/data", vec![("a", 0), ("b", 1), ("c", 2), ("d", 0)]));

        assert!(second.behind(Some(&behind.0)).now_or_never().is_none());
        let (waits, both) = (tokio::spawn(async move { (second.behind(Some(&behind.0)).await, second) }), behind.1);
        drop(first);
        let (turn, second) = waits.await.unwrap();
        assert_eq!(turn, none);
        // it waits for others than before, and who came first goes first
        assert_eq!(third.behind(Some(&both)).await, ["b"]);
        drop(second);
        assert_eq!(third.behind(Some(&["b".to_owned()])).await, none);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_nobody_up() {
        let turns = Turns::default();
        let [first, second, third] = ["a", "b", "c"].map(|name| turns.join(name, Vec::new(), devices(["8:1"])));
        drop(second);
        drop(first);
        assert!(third.behind(None).await.is_empty());
        assert_eq!(turns.sessions().len(), 1);
    }
}
