//! Opens the repository's master key with a password, and makes new key files.
//!
//! Only key files are plain JSON: scrypt's parameters must be readable before anything can be opened. They come from
//! the store, so they are bounded before any memory is spent on them.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::Timestamp;
use scrypt::Params;
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    crypto::{Cipher, KEY_LENGTH},
    process::Process,
};

/// A password; it never shows in debug output.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Wraps a password as the user typed it.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// Cost of deriving a key from a password by scrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kdf {
    log_n: u8,
    r: u32,
    p: u32,
}

impl Default for Kdf {
    /// N = 32768, r = 8, p = 4: 32 MiB and a third of a second, about what restic picks.
    fn default() -> Self {
        Self { log_n: 15, r: 8, p: 4 }
    }
}

impl Kdf {
    /// N = 2: no protection against guessing, for tests that open many repositories.
    pub fn fast_for_tests() -> Self {
        Self { log_n: 1, r: 8, p: 1 }
    }

    /// Takes the parameters of a key file if they stay below 1 GiB and a bounded time.
    fn from_key_file(file: &KeyFile) -> Result<Self, String> {
        const MAX_MEMORY: u64 = 1 << 30;
        const MAX_WORK: u64 = 1 << 34;
        if file.kdf != "scrypt" {
            return Err(format!("its key derivation {:?} is unknown", file.kdf));
        }
        let memory = file.n.checked_mul(128 * u64::from(file.r)).filter(|memory| *memory <= MAX_MEMORY);
        let work = memory.and_then(|memory| memory.checked_mul(u64::from(file.p)));
        if !file.n.is_power_of_two() || file.n < 2 || work.is_none_or(|work| work == 0 || work > MAX_WORK) {
            return Err(format!("its scrypt parameters N={} r={} p={} are out of bounds", file.n, file.r, file.p));
        }
        // at most 30 after the bound on memory
        let log_n = u8::try_from(file.n.ilog2()).unwrap_or(u8::MAX);
        Ok(Self { log_n, r: file.r, p: file.p })
    }

    fn derive(self, password: &Password, salt: &[u8]) -> Result<Cipher, String> {
        let params = Params::new(self.log_n, self.r, self.p).map_err(|error| error.to_string())?;
        let mut key = [0; KEY_LENGTH];
        scrypt::scrypt(password.0.as_bytes(), salt, &params, &mut key).map_err(|error| error.to_string())?;
        Ok(Cipher::new(&key))
    }
}

/// A file in `keys/`: the master key sealed by a password's key.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    created: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

/// The key that seals everything else.
#[derive(Clone, Serialize, Deserialize)]
struct MasterKey {
    mac: MacKey,
    encrypt: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct MacKey {
    k: String,
    r: String,
}

impl MasterKey {
    fn encode(key: &[u8; KEY_LENGTH]) -> Self {
        let text = |range: std::ops::Range<usize>| BASE64_STANDARD.encode(&key[range]);
        Self { mac: MacKey { k: text(32..48), r: text(48..64) }, encrypt: text(0..32) }
    }

    fn cipher(&self) -> Result<Cipher, String> {
        let mut key = Vec::with_capacity(KEY_LENGTH);
        for (part, length) in [(&self.encrypt, 32), (&self.mac.k, 16), (&self.mac.r, 16)] {
            let bytes = BASE64_STANDARD.decode(part).map_err(|error| error.to_string())?;
            if bytes.len() != length {
                return Err("a part of the master key has the wrong length".into());
            }
            key.extend(bytes);
        }
        let key = key.try_into().map_err(|_| "the master key has the wrong length".to_owned())?;
        Ok(Cipher::new(&key))
    }
}

/// What trying a password on a key file came to.
pub(crate) enum Unlocked {
    /// The password fits; this is the master key.
    Master(Cipher),
    /// The key file is sound and made for another password.
    OtherPassword,
    /// The file is no key file.
    Damaged(String),
}

/// Draws a new master key and returns it with its key file. Takes the KDF's time: call it off the runtime's threads.
pub(crate) fn create(password: &Password, kdf: Kdf) -> Result<(Cipher, Vec<u8>), Error> {
    let failed = |reason: String| Error::invalid("the key", reason);
    let mut master = [0; KEY_LENGTH];
    rand::fill(&mut master);
    let salt: [u8; 64] = rand::random();
    let user = kdf.derive(password, &salt).map_err(failed)?;
    let json = serde_json::to_vec(&MasterKey::encode(&master)).map_err(|error| failed(error.to_string()))?;
    let me = Process::current();
    let file = KeyFile {
        created: Timestamp::now().to_string(),
        username: me.user.clone(),
        hostname: me.host.clone(),
        kdf: "scrypt".into(),
        n: 1 << kdf.log_n,
        r: kdf.r,
        p: kdf.p,
        salt: BASE64_STANDARD.encode(salt),
        data: BASE64_STANDARD.encode(user.seal(&json)?),
    };
    let bytes = serde_json::to_vec(&file).map_err(|error| failed(error.to_string()))?;
    Ok((Cipher::new(&master), bytes))
}

/// Tries the password on a key file. Takes the KDF's time: call it off the runtime's threads.
pub(crate) fn unlock(bytes: &[u8], password: &Password) -> Unlocked {
    match sealed_master(bytes, password) {
        Err(reason) => Unlocked::Damaged(reason),
        Ok((user, sealed)) => match user.open(&sealed) {
            Err(_) => Unlocked::OtherPassword,
            Ok(json) => serde_json::from_slice::<MasterKey>(&json)
                .map_err(|error| error.to_string())
                .and_then(|master| master.cipher())
                .map_or_else(Unlocked::Damaged, Unlocked::Master),
        },
    }
}

/// Looks whether a key file is one, without any password.
pub(crate) fn inspect(bytes: &[u8]) -> Result<(), String> {
    let file: KeyFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    for part in [&file.salt, &file.data] {
        BASE64_STANDARD.decode(part).map_err(|error| error.to_string())?;
    }
    Kdf::from_key_file(&file).map(drop)
}

fn sealed_master(bytes: &[u8], password: &Password) -> Result<(Cipher, Vec<u8>), String> {
    let file: KeyFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let salt = BASE64_STANDARD.decode(&file.salt).map_err(|error| error.to_string())?;
    let sealed = BASE64_STANDARD.decode(&file.data).map_err(|error| error.to_string())?;
    let user = Kdf::from_key_file(&file)?.derive(password, &salt)?;
    Ok((user, sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (Cipher, serde_json::Value) {
        let (cipher, bytes) = create(&Password::new("right"), Kdf::fast_for_tests()).unwrap();
        (cipher, serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn the_right_password_gives_the_master_key_and_a_wrong_one_does_not() {
        let (cipher, file) = made();
        let bytes = file.to_string().into_bytes();
        let Unlocked::Master(master) = unlock(&bytes, &Password::new("right")) else { panic!("not unlocked") };
        assert_eq!(master.open(&cipher.seal(b"text").unwrap()).unwrap(), b"text");
        assert!(matches!(unlock(&bytes, &Password::new("wrong")), Unlocked::OtherPassword));
    }

    #[test]
    fn hostile_parameters_are_refused_before_any_work() {
        let (_, file) = made();
        for (field, value) in [("N", 1u64 << 40), ("N", 3), ("N", 0), ("r", 1 << 30), ("p", 1 << 31), ("p", 0)] {
            let mut hostile = file.clone();
            hostile[field] = value.into();
            let unlocked = unlock(hostile.to_string().as_bytes(), &Password::new("right"));
            assert!(matches!(unlocked, Unlocked::Damaged(_)), "{field}={value}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", Password::new("s3cret")).contains("s3cret"));
    }
}
