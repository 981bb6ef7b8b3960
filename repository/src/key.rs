//! Opens the repository's master key with a password, and makes new key files.
//!
//! Only key files are plain JSON: scrypt's parameters must be readable before anything can be opened. They come from
//! the store, so they are bounded before any memory is spent on them.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::Timestamp;
use scrypt::Params;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    Error,
    crypto::{Cipher, KEY_LENGTH},
    process::Process,
};

const SCRYPT: &str = "scrypt";

/// A password; it never shows in debug output and is wiped when dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Wraps a password as the user typed it.
    pub fn new(password: impl Into<String>) -> Self {
        Self(Zeroizing::new(password.into()))
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
        if file.kdf != SCRYPT {
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
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        scrypt::scrypt(password.0.as_bytes(), salt, &params, &mut key[..]).map_err(|error| error.to_string())?;
        Ok(Cipher::new(&key))
    }
}

/// A file in `keys/`: the master key sealed by a password's key.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyFile {
    pub(crate) created: String,
    #[serde(default)]
    pub(crate) username: String,
    #[serde(default)]
    pub(crate) hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

impl KeyFile {
    /// Reads a key file; the error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Kdf::from_key_file(&file)?;
        file.sealed()?;
        Ok(file)
    }

    fn sealed(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let decode = |text: &String| BASE64_STANDARD.decode(text).map_err(|error| error.to_string());
        Ok((decode(&self.salt)?, decode(&self.data)?))
    }
}

/// The key that seals everything else; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct MasterKey(Zeroizing<[u8; KEY_LENGTH]>);

/// Its form inside a key file.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct MasterKeyFile {
    mac: MacKey,
    encrypt: String,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct MacKey {
    k: String,
    r: String,
}

impl MasterKey {
    /// Draws a new one.
    pub(crate) fn random() -> Self {
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        rand::fill(&mut key[..]);
        Self(key)
    }

    /// The cipher of everything that the repository holds.
    pub(crate) fn cipher(&self) -> Cipher {
        Cipher::new(&self.0)
    }

    pub(crate) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let text = |range: std::ops::Range<usize>| BASE64_STANDARD.encode(&self.0[range]);
        let file = MasterKeyFile { mac: MacKey { k: text(32..48), r: text(48..64) }, encrypt: text(0..32) };
        serde_json::to_vec(&file).map(Zeroizing::new)
    }

    /// Reads one; the error says what is wrong with it.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, String> {
        let file: MasterKeyFile = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        for (part, into) in [(&file.encrypt, 0..32), (&file.mac.k, 32..48), (&file.mac.r, 48..64)] {
            let bytes = Zeroizing::new(BASE64_STANDARD.decode(part).map_err(|error| error.to_string())?);
            if bytes.len() != into.len() {
                return Err("a part of the master key has the wrong length".into());
            }
            key[into].copy_from_slice(&bytes);
        }
        Ok(Self(key))
    }
}

/// What trying a password on a key file came to.
pub(crate) enum Unlocked {
    /// The password fits.
    Master(MasterKey),
    /// The key file is sound and made for another password.
    OtherPassword,
    /// The file is no key file.
    Damaged(String),
}

/// Makes a key file that opens `master` with a password. Takes the KDF's time: call it off the runtime's threads.
pub(crate) fn create(master: &MasterKey, password: &Password, kdf: Kdf) -> Result<Vec<u8>, Error> {
    let failed = |reason: String| Error::invalid("the key", reason);
    let salt: [u8; 64] = rand::random();
    let user = kdf.derive(password, &salt).map_err(failed)?;
    let json = master.to_json().map_err(|error| failed(error.to_string()))?;
    let me = Process::current();
    let file = KeyFile {
        created: Timestamp::now().to_string(),
        username: me.user.clone(),
        hostname: me.host.clone(),
        kdf: SCRYPT.into(),
        n: 1 << kdf.log_n,
        r: kdf.r,
        p: kdf.p,
        salt: BASE64_STANDARD.encode(salt),
        data: BASE64_STANDARD.encode(user.seal(&json)?),
    };
    serde_json::to_vec(&file).map_err(|error| failed(error.to_string()))
}

/// Tries the password on a key file. Takes the KDF's time: call it off the runtime's threads.
pub(crate) fn unlock(bytes: &[u8], password: &Password) -> Unlocked {
    let opened = || {
        let file = KeyFile::parse(bytes)?;
        let (salt, sealed) = file.sealed()?;
        Ok(Kdf::from_key_file(&file)?.derive(password, &salt)?.open(&sealed).map(Zeroizing::new))
    };
    match opened() {
        Err(reason) => Unlocked::Damaged(reason),
        Ok(Err(_)) => Unlocked::OtherPassword,
        Ok(Ok(json)) => MasterKey::from_json(&json).map_or_else(Unlocked::Damaged, Unlocked::Master),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (MasterKey, serde_json::Value) {
        let master = MasterKey::random();
        let bytes = create(&master, &Password::new("right"), Kdf::fast_for_tests()).unwrap();
        (master, serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn the_right_password_gives_the_master_key_and_a_wrong_one_does_not() {
        let (master, file) = made();
        let bytes = file.to_string().into_bytes();
        let Unlocked::Master(unlocked) = unlock(&bytes, &Password::new("right")) else { panic!("not unlocked") };
        assert!(unlocked == master);
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
