//! Hooks for programs that many people run, so that nobody has to write them.
//!
//! Each script says in its comment why it is enough. They need `/bin/sh` and the program's own client in the image, as
//! the official images have them, and take credentials from the variables that those images define.

use serde::{Deserialize, Serialize};

use super::model::{Hook, Kind, Source, in_shell};

/// A program that we know how to bring to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// PostgreSQL.
    Postgresql,
    /// MariaDB.
    Mariadb,
    /// MySQL.
    Mysql,
    /// Redis, with RDB files or an append-only file.
    Redis,
    /// An SQLite file.
    Sqlite,
    /// etcd: needs no hook.
    Etcd,
    /// MongoDB.
    Mongodb,
}

/// Why a preset has no hooks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    /// No preset of that name.
    #[error("there is no preset {0:?}; there are {names}", names = Preset::names())]
    Unknown(String),
    /// The preset must be told which file is meant.
    #[error("the preset {0} needs the path of its database in hooks.stillpoint.dev/preset.path")]
    NeedsPath(&'static str),
}

/// Its volumes can be copied at one instant as they are: crash recovery is part of every start. The checkpoint only
/// makes that recovery short.
const POSTGRESQL: &str =
    r#"exec psql -XqAt -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres -c CHECKPOINT"#;

/// The lock lives in one connection, so the client must neither reconnect nor end before it is told to. Its own shell
/// escape waits for the line; that the connection is still the one with the lock shows when it unlocks. A lock that is
/// not had in 20 s is given up: waiting for it blocks every other statement.
const MARIADB: &str = r#"
export MYSQL_PWD="${MARIADB_ROOT_PASSWORD:-${MYSQL_ROOT_PASSWORD:-}}"
exec "$1" --user=root --batch --skip-column-names --unbuffered --skip-reconnect --execute="
SET SESSION lock_wait_timeout = 20;
FLUSH TABLES WITH READ LOCK;
SELECT 'ready';
\! read line
UNLOCK TABLES;"
"#;

/// With an append-only file every write is in it and a torn end is cut off at the start; without one only a snapshot
/// has everything.
const REDIS: &str = r#"
export REDISCLI_AUTH="${REDIS_PASSWORD:-}"
[ -n "$REDISCLI_AUTH" ] || unset REDISCLI_AUTH
ask() { redis-cli -p "${REDIS_PORT:-6379}" "$@" | tr -d '\r'; }
is() { ask INFO persistence | grep -qx "$1"; }
if is aof_enabled:1; then echo "append-only file: nothing to save"; exit 0; fi
while is rdb_bgsave_in_progress:1; do sleep 0.1; done
answer=$(ask BGSAVE)
case $answer in *started*) ;; *) echo "BGSAVE: $answer" >&2; exit 1 ;; esac
while is rdb_bgsave_in_progress:1; do sleep 0.1; done
is rdb_last_bgsave_status:ok && echo saved
"#;

/// Moves the write-ahead log into the database file. A copy of both at one instant is consistent as it is; this makes
/// the file alone complete as of the checkpoint. The first column of the answer is 1 when a reader was in the way.
const SQLITE: &str = r#"
answer=$(sqlite3 -batch -cmd '.timeout 5000' "$1" 'PRAGMA wal_checkpoint(TRUNCATE);') || exit
case $answer in
0\|*) echo "$answer" ;;
*) echo "a reader or writer is in the way of the checkpoint: $answer" >&2; exit 1 ;;
esac
"#;

/// fsyncLock is the server's, not the connection's: the last command gives it back even if the middle is interrupted.
const MONGODB: &str = r#"
client=$(command -v mongosh || command -v mongo) || { echo "neither mongosh nor mongo is in the image" >&2; exit 127; }
ask() {
  "$client" --quiet ${MONGO_INITDB_ROOT_USERNAME:+--username "$MONGO_INITDB_ROOT_USERNAME" --password "$MONGO_INITDB_ROOT_PASSWORD" --authenticationDatabase admin} \
    admin --eval "$1"
}
trap 'ask "db.fsyncUnlock()" >/dev/null' EXIT
ask 'if (db.fsyncLock().ok !== 1) { quit(1) }' >/dev/null || exit
echo ready
read -r line
"#;

impl Preset {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Postgresql, Self::Mariadb, Self::Mysql, Self::Redis, Self::Sqlite, Self::Etcd, Self::Mongodb];

    /// As the annotation spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mariadb => "mariadb",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Sqlite => "sqlite",
            Self::Etcd => "etcd",
            Self::Mongodb => "mongodb",
        }
    }

    /// The preset of that name.
    ///
    /// # Errors
    /// [`PresetError::Unknown`] with the names that there are.
    pub fn find(name: &str) -> Result<Self, PresetError> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| PresetError::Unknown(name.to_owned()))
    }

    /// Its hooks; none where the program needs none.
    ///
    /// # Errors
    /// When it needs a path and has none.
    pub fn hooks(self, path: Option<&str>) -> Result<Vec<Hook>, PresetError> {
        let hook = |kind, command| vec![Hook::new(self.name(), kind, Source::Preset(self), command)];
        Ok(match self {
            Self::Postgresql => hook(Kind::Pre, in_shell(POSTGRESQL, &[])),
            Self::Mariadb => hook(Kind::Hold, in_shell(MARIADB, &["mariadb"])),
            Self::Mysql => hook(Kind::Hold, in_shell(MARIADB, &["mysql"])),
            Self::Redis => hook(Kind::Pre, in_shell(REDIS, &[])),
            Self::Sqlite => {
                let path = path.ok_or(PresetError::NeedsPath(self.name()))?;
                hook(Kind::Pre, in_shell(SQLITE, &[path]))
            }
            // every write is synced to its log before it is answered, and a log is replayed at every start
            Self::Etcd => Vec::new(),
            Self::Mongodb => hook(Kind::Hold, in_shell(MONGODB, &[])),
        })
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}
