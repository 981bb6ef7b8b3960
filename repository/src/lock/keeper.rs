//! The task that owns a lock file: writes it, refreshes it, and removes it at the end.
//!
//! Everything that asks the store about the lock takes its turn, so a check never meets a refresh half done. That the
//! lock is lost is noted beside, where it can be read without waiting.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Mutex, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    LockKind,
    file::{self, LockFile},
    lost,
};
use crate::{
    Error, Id,
    files::{Files, Folder},
};

pub(super) const SETTLE: Duration = Duration::from_millis(200);
pub(super) const REFRESH: Duration = Duration::from_secs(5 * 60);
const RETRY_REFRESH: Duration = Duration::from_secs(30);
/// restic's: short of the 30 minutes after which others call a lock stale, so that we notice before they do.
pub(super) const TRUSTED: Duration = Duration::from_secs(22 * 60 + 30);
/// How often the clocks are looked at: timers stand still while the machine sleeps.
const POLL: Duration = Duration::from_secs(10);

/// A moment on the clock that never goes back and on the one that others read.
#[derive(Debug, Clone, Copy)]
struct Moment {
    steady: Instant,
    shown: Timestamp,
}

impl Moment {
    fn now() -> Self {
        Self { steady: Instant::now(), shown: Timestamp::now() }
    }

    /// The longer of what both clocks say.
    fn elapsed(self) -> Duration {
        let shown = Duration::try_from(Timestamp::now().duration_since(self.shown)).unwrap_or_default();
        self.steady.elapsed().max(shown)
    }
}

/// Our lock file.
struct Own {
    id: Id,
    refreshed: Moment,
}

/// A lock and what is known of it.
pub(super) struct Held {
    files: Files,
    kind: LockKind,
    own: Mutex<Own>,
    /// Why others may work as if we were not here.
    lost: OnceLock<String>,
}

impl Held {
    /// Fails once the lock is known to be lost.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.lost.get().map_or(Ok(()), |reason| Err(lost(&self.files, reason)))
    }

    /// Confirms that the lock protects us now.
    pub(super) async fn verify(&self) -> Result<(), Error> {
        self.confirm(&mut *self.own.lock().await).await
    }

    async fn confirm(&self, own: &mut Own) -> Result<(), Error> {
        self.check()?;
        if own.refreshed.elapsed() < TRUSTED {
            return self.require(&own.id).await;
        }
        match self.renew(own).await {
            Err(error) if self.check().is_ok() => Err(self.lose(format!("it could not be refreshed in time: {error}"))),
            other => other,
        }
    }

    async fn refresh(&self) -> Result<(), Error> {
        let mut own = self.own.lock().await;
        self.confirm(&mut own).await?;
        if own.refreshed.elapsed() < REFRESH {
            return Ok(());
        }
        let new = write(&self.files, self.kind).await?;
        self.adopt(&mut own, new).await;
        Ok(())
    }

    /// Refreshes a lock that others may call stale: right only if it stays there until the new one counts, because who
    /// goes on in spite of it removes it first.
    async fn renew(&self, own: &mut Own) -> Result<(), Error> {
        self.require(&own.id).await?;
        let new = write(&self.files, self.kind).await?;
        sleep(SETTLE).await;
        if let Err(error) = self.require(&own.id).await {
            remove(&self.files, &new.id).await;
            return Err(error);
        }
        self.adopt(own, new).await;
        Ok(())
    }

    async fn adopt(&self, own: &mut Own, new: Own) {
        let old = std::mem::replace(own, new);
        remove(&self.files, &old.id).await;
    }

    async fn require(&self, id: &Id) -> Result<(), Error> {
        if file::list(&self.files).await?.contains(id) {
            return Ok(());
        }
        Err(self.lose("somebody removed it".into()))
    }

    fn lose(&self, reason: String) -> Error {
        lost(&self.files, self.lost.get_or_init(|| reason))
    }

    async fn refresh_until(&self, ended: &CancellationToken) {
        let mut due = REFRESH;
        while ended.run_until_cancelled(sleep(POLL)).await.is_some() {
            let age = self.own.lock().await.refreshed.elapsed();
            if age < due {
                continue;
            }
            due = match self.refresh().await {
                Ok(()) => REFRESH,
                Err(error) if self.check().is_err() => return tracing::warn!("{error}"),
                Err(error) => {
                    tracing::warn!(%error, "the repository lock could not be refreshed");
                    age + RETRY_REFRESH
                }
            };
        }
    }
}

/// Owns a lock until `ended`: says when it is written, then when nobody can object any more.
pub(super) async fn keep(
    files: Files,
    kind: LockKind,
    ended: CancellationToken,
    written: oneshot::Sender<Result<(), Error>>,
    confirmed: oneshot::Sender<Result<Arc<Held>, Error>>,
) {
    survive_hangups();
    let mut harmless = HashSet::new();
    let (own, settled) = match claim(&files, kind, &mut harmless).await {
        Ok(claimed) => claimed,
        // a caller that is gone needs no error
        Err(error) => return drop(written.send(Err(error))),
    };
    let _ = written.send(Ok(()));
    ended.run_until_cancelled(sleep_until(settled)).await;
    if let Err(error) = file::refuse_conflict(&files, kind, &mut harmless).await {
        remove(&files, &own.id).await;
        return drop(confirmed.send(Err(error)));
    }
    let held = Arc::new(Held { files, kind, own: Mutex::new(own), lost: OnceLock::new() });
    if confirmed.send(Ok(held.clone())).is_ok() {
        held.refresh_until(&ended).await;
    }
    remove(&held.files, &held.own.lock().await.id).await;
}

/// Writes a lock, and says when others had time enough to object.
///
/// The second look finds those who took theirs between our first look and our write. Who comes later sees ours and
/// withdraws, so from here on nobody changes what the lock protects.
async fn claim(files: &Files, kind: LockKind, harmless: &mut HashSet<Id>) -> Result<(Own, Instant), Error> {
    file::refuse_conflict(files, kind, harmless).await?;
    let own = write(files, kind).await?;
    let settled = Instant::now() + SETTLE;
    harmless.insert(own.id);
    if let Err(error) = file::refuse_conflict(files, kind, harmless).await {
        remove(files, &own.id).await;
        return Err(error);
    }
    Ok((own, settled))
}

/// restic sends SIGHUP to a lock's process to learn whether it lives. A handler stays for as long as the process does.
fn survive_hangups() {
    if let Err(error) = signal(SignalKind::hangup()) {
        tracing::warn!(%error, "SIGHUP cannot be handled; restic unlock on this host may end this process");
    }
}

async fn write(files: &Files, kind: LockKind) -> Result<Own, Error> {
    let refreshed = Moment::now();
    let json =
        serde_json::to_vec(&LockFile::ours(kind)).map_err(|error| Error::invalid("a lock", error.to_string()))?;
    let file = files.seal(Folder::Locks, json).await?;
    let id = files.write(file).await?;
    Ok(Own { id, refreshed })
}

/// Best effort: what stays behind is stale in 30 minutes.
async fn remove(files: &Files, id: &Id) {
    if let Err(error) = files.remove(Folder::Locks, id).await {
        tracing::warn!(%error, lock = %id, "a repository lock could not be removed; repo unlock removes it once stale");
    }
}
