use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use jiff::{SignedDuration, Timestamp};
use object_store::{ObjectMeta, memory::InMemory, path::Path};
use stillpoint_test_support::store::{Behind, Between};
use tokio::time::{advance, sleep};

use super::{
    file::LockFile,
    keeper::{REFRESH, SETTLE, TRUSTED},
    *,
};
use crate::{
    Id, Store,
    crypto::{Cipher, KEY_LENGTH},
    files::Folder,
    process::Process,
};

const SECOND: Duration = Duration::from_secs(1);

fn files_in(store: Store) -> Files {
    Files { store, cipher: Cipher::new(&[1; KEY_LENGTH]) }
}

fn files() -> Files {
    files_in(Store::memory())
}

/// A store that is out of reach while this is set.
#[derive(Debug, Clone, Default)]
struct Outage(Arc<AtomicBool>);

impl Outage {
    fn is_over(&self) -> object_store::Result<()> {
        let down = || object_store::Error::Generic { store: "test", source: "out of reach".into() };
        if self.0.load(Ordering::SeqCst) { Err(down()) } else { Ok(()) }
    }

    fn begin(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn end(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn files(&self) -> Files {
        let store = Behind::new(Arc::new(InMemory::new()), self.clone());
        files_in(Store::new(Arc::new(store), Path::default(), "test://store"))
    }
}

impl Between for Outage {
    async fn through<T: Send>(
        &self,
        operation: impl Future<Output = object_store::Result<T>> + Send,
    ) -> object_store::Result<T> {
        self.is_over()?;
        operation.await
    }

    fn list(
        &self,
        list: BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.is_over().map_or_else(|down| stream::iter([Err(down)]).boxed(), |()| list)
    }
}

async fn locks(files: &Files) -> HashSet<Id> {
    files.list(Folder::Locks).await.unwrap().into_iter().collect()
}

async fn until_none(files: &Files) {
    while !locks(files).await.is_empty() {
        sleep(SETTLE).await;
    }
}

async fn put(files: &Files, lock: &LockFile) -> Id {
    let file = files.seal(Folder::Locks, serde_json::to_vec(lock).unwrap()).await.unwrap();
    files.write(file).await.unwrap()
}

async fn acquire(files: &Files, kind: LockKind) -> Result<Lock, Error> {
    Lock::acquire(files, kind, &Patience::default()).await
}

fn patience(seconds: u64) -> Patience {
    Patience { time: Duration::from_secs(seconds), ..Patience::default() }
}

/// A lock of restic on another host.
fn elsewhere() -> LockFile {
    let ours = LockFile::ours(LockKind::Exclusive);
    LockFile { hostname: "elsewhere".into(), pid: 1, pid_space: None, ..ours }
}

fn expired() -> LockFile {
    LockFile { time: Timestamp::now() - SignedDuration::from_mins(31), ..elsewhere() }
}

/// A lock of a process of this host that has ended.
fn orphaned() -> LockFile {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    LockFile { pid: child.id(), ..LockFile::ours(LockKind::Exclusive) }
}

#[tokio::test(start_paused = true)]
async fn writers_share_and_an_exclusive_lock_excludes_both_ways() {
    let files = files();
    let a = acquire(&files, LockKind::Shared).await.unwrap();
    let b = acquire(&files, LockKind::Shared).await.unwrap();
    let Err(refused) = acquire(&files, LockKind::Exclusive).await else { panic!("not refused") };
    let me = Process::current();
    assert!(refused.to_string().contains(&format!("by {} on {} (pid {})", me.user, me.host, me.pid)), "{refused}");
    a.release().await;
    b.release().await;
    assert!(locks(&files).await.is_empty());

    let alone = acquire(&files, LockKind::Exclusive).await.unwrap();
    assert!(acquire(&files, LockKind::Shared).await.is_err());
    assert!(acquire(&files, LockKind::Exclusive).await.is_err());
    alone.verify().await.unwrap();
    assert_eq!(locks(&files).await.len(), 1, "refused locks leave no file");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lock_is_removed() {
    let files = files();
    drop(acquire(&files, LockKind::Exclusive).await.unwrap());
    until_none(&files).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_while_waiting_leaves_no_lock() {
    let files = files();
    assert!(tokio::time::timeout(SETTLE / 2, acquire(&files, LockKind::Exclusive)).await.is_err());
    until_none(&files).await;
    acquire(&files, LockKind::Exclusive).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn work_done_meanwhile_is_handed_out_after_a_lock_that_was_there_before_it() {
    let files = files();
    let meanwhile = || async { (Instant::now(), locks(&files).await) };
    let (lock, (at, seen)) =
        Lock::acquire_while(&files, LockKind::Shared, &Patience::default(), meanwhile).await.unwrap();
    assert_eq!(seen, locks(&files).await, "it ran under the lock");
    assert!(at.elapsed() >= SETTLE, "it did not wait for others");
    lock.verify().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn work_done_meanwhile_is_thrown_away_if_somebody_objects() {
    let files = files();
    let intrude = || async { put(&files, &elsewhere()).await };
    let refused = Lock::acquire_while(&files, LockKind::Shared, &Patience::default(), intrude).await;
    assert!(matches!(refused, Err(Error::Locked { pid: 1, .. })));
    assert_eq!(locks(&files).await.len(), 1, "only the other's lock stays");
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_released_if_the_work_done_meanwhile_fails() {
    let files = files();
    let fail = || async { Err::<(), _>(Error::damaged("index/ab", "on purpose")) };
    let (lock, failed) = Lock::acquire_while(&files, LockKind::Shared, &Patience::default(), fail).await.unwrap();
    assert_eq!(locks(&files).await.len(), 1);
    assert!(matches!(lock.with(failed).await, Err(Error::Damaged { .. })));
    assert!(locks(&files).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_patient_caller_gets_the_lock_once_it_is_free() {
    let files = files();
    let other = acquire(&files, LockKind::Exclusive).await.unwrap();
    let release = async {
        sleep(7 * SECOND).await;
        other.release().await;
    };
    let tries = AtomicUsize::new(0);
    let meanwhile = || async { tries.fetch_add(1, Ordering::SeqCst) };
    let patience = patience(60);
    let waiting = Lock::acquire_while(&files, LockKind::Shared, &patience, meanwhile);
    let (found, ()) = tokio::join!(waiting, release);
    found.unwrap().0.verify().await.unwrap();
    assert_eq!(tries.into_inner(), 1, "nothing is read for a lock that is refused at once");
}

#[tokio::test(start_paused = true)]
async fn patience_ends_with_the_name_of_the_holder() {
    let files = files();
    let _other = acquire(&files, LockKind::Exclusive).await.unwrap();
    let begun = Instant::now();
    let refused = Lock::acquire(&files, LockKind::Shared, &patience(20)).await;
    assert!(matches!(refused, Err(Error::Locked { exclusive: true, .. })));
    assert!((20 * SECOND..21 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_refreshed_under_a_new_name() {
    let files = files();
    let lock = acquire(&files, LockKind::Shared).await.unwrap();
    let first = locks(&files).await;
    sleep(REFRESH + SECOND).await;
    while locks(&files).await == first || locks(&files).await.len() != 1 {
        sleep(SETTLE).await;
    }
    lock.verify().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_removed_lock_is_lost_for_good() {
    let files = files();
    let lock = acquire(&files, LockKind::Shared).await.unwrap();
    for id in locks(&files).await {
        files.remove(Folder::Locks, &id).await.unwrap();
    }
    for _ in 0..2 {
        assert!(matches!(lock.verify().await, Err(Error::LockLost { .. })));
    }
    sleep(REFRESH * 2).await;
    assert!(matches!(lock.verify().await, Err(Error::LockLost { .. })));
    assert!(locks(&files).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn that_a_lock_was_removed_is_known_by_the_next_refresh() {
    let files = files();
    let lock = acquire(&files, LockKind::Shared).await.unwrap();
    let lease = lock.lease();
    files.remove(Folder::Locks, locks(&files).await.iter().next().unwrap()).await.unwrap();
    lease.check().unwrap();
    let removed = Instant::now();
    while lease.check().is_ok() {
        sleep(SETTLE).await;
    }
    assert!(removed.elapsed() < REFRESH + 30 * SECOND);
    assert!(lease.check().unwrap_err().to_string().contains("somebody removed it"));
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_no_lock_and_a_long_one_does() {
    let outage = Outage::default();
    let files = outage.files();
    let lock = acquire(&files, LockKind::Shared).await.unwrap();
    let first = locks(&files).await;
    outage.begin();
    sleep(REFRESH * 3).await;
    outage.end();
    while locks(&files).await == first {
        sleep(SECOND).await;
    }
    lock.verify().await.unwrap();

    outage.begin();
    let begun = Instant::now();
    while lock.lease().check().is_ok() {
        sleep(SECOND).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(30 * 60), "before others may call it stale");
    outage.end();
    let lost = lock.verify().await.unwrap_err().to_string();
    assert!(lost.contains("could not be refreshed in time") && lost.contains("out of reach"), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_slept_is_renewed_if_it_is_still_there() {
    let files = files();
    let lock = acquire(&files, LockKind::Shared).await.unwrap();
    let first = locks(&files).await;
    advance(TRUSTED * 4).await;
    lock.verify().await.unwrap();
    let second = locks(&files).await;
    assert!(second.len() == 1 && second != first);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_slept_is_lost_if_it_goes_while_it_is_renewed() {
    let files = files();
    let lock = acquire(&files, LockKind::Shared).await.unwrap();
    let first = locks(&files).await;
    advance(TRUSTED * 4).await;
    let somebody = async {
        while locks(&files).await.len() < 2 {
            sleep(SETTLE / 10).await;
        }
        files.remove(Folder::Locks, first.iter().next().unwrap()).await.unwrap();
    };
    let (verified, ()) = tokio::join!(lock.verify(), somebody);
    assert!(matches!(verified, Err(Error::LockLost { .. })));
    assert!(locks(&files).await.is_empty(), "the new lock is withdrawn");
}

#[tokio::test(start_paused = true)]
async fn stale_locks_go_before_they_are_passed_over_and_live_ones_of_other_hosts_stay() {
    let files = files();
    put(&files, &orphaned()).await;
    put(&files, &expired()).await;
    acquire(&files, LockKind::Shared).await.unwrap().release().await;
    assert!(locks(&files).await.is_empty());

    put(&files, &elsewhere()).await;
    assert!(matches!(acquire(&files, LockKind::Shared).await, Err(Error::Locked { pid: 1, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_stale_lock_that_is_in_nobodys_way_stays() {
    let files = files();
    let shared = put(&files, &LockFile { exclusive: false, ..expired() }).await;
    acquire(&files, LockKind::Shared).await.unwrap().release().await;
    assert_eq!(locks(&files).await, HashSet::from([shared]));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_cannot_be_read_is_no_permission() {
    let files = files();
    let id = Id::of(b"garbage");
    files.store.put(&Folder::Locks.path(&id), "garbage".into()).await.unwrap();
    let Err(refused) = acquire(&files, LockKind::Shared).await else { panic!("not refused") };
    assert!(refused.to_string().contains("repo unlock --remove-all"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_still_being_written_is_looked_at_again() {
    let files = files();
    let id = put(&files, &LockFile { exclusive: false, ..elsewhere() }).await;
    let path = Folder::Locks.path(&id);
    let whole = files.store.get(&path, 1 << 20).await.unwrap();
    files.store.put(&path, whole.slice(..whole.len() / 2)).await.unwrap();
    let finish = async {
        sleep(2 * SECOND).await;
        files.store.put(&path, whole.clone()).await.unwrap();
    };
    let (lock, ()) = tokio::join!(acquire(&files, LockKind::Shared), finish);
    lock.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_empty_lock_file_is_no_lock() {
    let files = files();
    files.store.put(&Folder::Locks.path(&Id::of(b"")), "".into()).await.unwrap();
    acquire(&files, LockKind::Exclusive).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_lock_ends_when_it_is_cancelled() {
    let files = files();
    let _other = acquire(&files, LockKind::Exclusive).await.unwrap();
    let (patience, begun) = (patience(3600), Instant::now());
    let cancel = async {
        sleep(7 * SECOND).await;
        patience.cancel.cancel();
    };
    let (refused, ()) = tokio::join!(Lock::acquire(&files, LockKind::Shared, &patience), cancel);
    assert!(matches!(refused, Err(Error::Cancelled)));
    assert!(begun.elapsed() < 8 * SECOND, "{:?}", begun.elapsed());
}
