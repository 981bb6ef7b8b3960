//! Which method fits a volume, as a value with its reason.
//!
//! Pure: what has to be looked up is looked up before, so that what an operator is told can be tested without a
//! filesystem of each kind.

use std::fmt;

use stillpoint_api::Method;

/// What is known of a volume before it is captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kind of filesystem that it lies on, as the kernel calls it.
    pub filesystem: String,
    /// Why its filesystem cannot, or must not, be frozen.
    pub cannot_freeze: Option<String>,
    /// Why files on it cannot be cloned.
    pub cannot_clone: Option<String>,
    /// Whether it is a btrfs subvolume.
    pub is_subvolume: bool,
    /// Subvolumes inside it, which a snapshot of it does not hold.
    pub nested: Vec<String>,
    /// Whether the cgroups of its writers are known.
    pub writers_known: bool,
    /// Whether nobody may write to it.
    pub read_only: bool,
    /// Why a pause alone would not stop its writers.
    pub in_flight: Option<String>,
    /// Bytes of its files, where they may have to be read in a pause.
    pub bytes: Option<u64>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// This method and no other.
    pub method: Option<Method>,
    /// Whether its filesystem may be frozen.
    pub freeze: bool,
    /// Bytes that may be read in a pause at most.
    pub max_paused: u64,
}

/// What is read in a pause unless more is asked for: about half a second's reading.
const MAX_PAUSED: u64 = 64 << 20;

impl Default for Wish {
    fn default() -> Self {
        Self { method: None, freeze: true, max_paused: MAX_PAUSED }
    }
}

/// A method, and why it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The method.
    pub method: Method,
    /// Why.
    pub reason: String,
}

/// Why no method fits, or not the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refused {
    /// Each method that was considered, and why it does not fit.
    pub why: Vec<(Method, String)>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it cannot be captured at an instant: ")?;
        for (number, (method, why)) in self.why.iter().enumerate() {
            write!(f, "{}not by {method}, because {why}", if number > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

/// In the order in which they are considered; what reads a changing volume is only ever asked for.
const CONSIDERED: [Method; 4] = [Method::Precopy, Method::Btrfs, Method::Reflink, Method::ReadPaused];

/// Picks the method for a volume: the one that is asked for if it fits, else the first that does.
///
/// # Errors
/// [`Refused`] says of each method why it does not fit.
pub fn choose(facts: &Facts, wish: &Wish) -> Result<Choice, Refused> {
    if let Some(method) = wish.method {
        let fitted = fits(method, facts, &Wish { freeze: true, ..wish.clone() });
        let asked = |why: String| Choice { method, reason: format!("asked for: {why}") };
        return fitted.map(asked).map_err(|why| Refused { why: vec![(method, why)] });
    }
    if facts.read_only {
        return Ok(Choice {
            method: Method::Live,
            reason: "nobody may write to it, so nothing has to be stopped".into(),
        });
    }
    let mut refused = Vec::new();
    for method in CONSIDERED {
        match fits(method, facts, wish) {
            Ok(reason) if method == Method::Btrfs && !facts.writers_known => {
                refused.push((method, format!("{reason}, and that is done only when asked for")));
            }
            Ok(reason) => return Ok(Choice { method, reason }),
            Err(why) => refused.push((method, why)),
        }
    }
    Err(Refused { why: refused })
}

/// What else fits a volume that its method could not take.
///
/// # Errors
/// [`Refused`] says of each further method why it does not fit; of none where the one that failed was asked for.
pub(super) fn instead_of(failed: &Choice, why: &str, facts: &Facts, wish: &Wish) -> Result<Choice, Refused> {
    let mut refused = Vec::new();
    if wish.method.is_some() {
        return Err(Refused { why: refused });
    }
    for method in CONSIDERED.into_iter().skip_while(|method| *method != failed.method).skip(1) {
        let known = if facts.writers_known { fits(method, facts, wish) } else { Err(UNKNOWN.to_owned()) };
        match known {
            Ok(reason) => {
                return Ok(Choice { method, reason: format!("{reason}; not by {}: {why}", failed.method) });
            }
            Err(why) => refused.push((method, why)),
        }
    }
    Err(Refused { why: refused })
}

/// Why a method fits, or why it does not.
fn fits(method: Method, facts: &Facts, wish: &Wish) -> Result<String, String> {
    let Facts { filesystem, .. } = facts;
    match method {
        Method::Precopy => match &facts.cannot_freeze {
            Some(why) => Err(why.clone()),
            None if !wish.freeze => Err("it may not be frozen".into()),
            None => Ok(format!("{filesystem} can be frozen, which stops every writer, known or not")),
        },
        Method::Btrfs => {
            if !facts.is_subvolume {
                return Err(if filesystem == "btrfs" { "it is no subvolume" } else { "it is not on btrfs" }.into());
            }
            if !facts.nested.is_empty() {
                return Err(format!("a snapshot would not hold the subvolumes inside it: {}", facts.nested.join(", ")));
            }
            if facts.writers_known {
                pause(facts).map(|()| "its writers are known and can be paused while a snapshot is made".into())
            } else {
                Ok("its writers are not known, so a snapshot is made while they write".into())
            }
        }
        Method::Reflink => {
            if let Some(why) = &facts.cannot_clone {
                return Err(format!("files on {filesystem} cannot be cloned here: {why}"));
            }
            pause(facts).map(|()| "its writers are known and can be paused while its files are cloned".into())
        }
        Method::ReadPaused => {
            pause(facts)?;
            match facts.bytes {
                Some(bytes) if bytes > wish.max_paused => Err(format!(
                    "its {} MiB would be read while its writers are paused, and at most {} MiB may",
                    bytes >> 20,
                    wish.max_paused >> 20
                )),
                _ => Ok("its writers are known and can be paused while all of it is read".into()),
            }
        }
        Method::Live => Ok("it is read while it changes".into()),
    }
}

const UNKNOWN: &str = "the cgroups of its writers are not known, and so cannot be paused";

/// Whether its writers can be paused, and then stand still.
fn pause(facts: &Facts) -> Result<(), String> {
    if facts.read_only {
        return Ok(());
    }
    if !facts.writers_known {
        return Err(UNKNOWN.into());
    }
    match &facts.in_flight {
        Some(why) => Err(why.clone()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(filesystem: &str) -> Facts {
        Facts { filesystem: filesystem.into(), bytes: Some(1 << 20), ..Facts::default() }
    }

    fn shared() -> Facts {
        let cannot_clone = Some("Operation not supported".into());
        Facts { cannot_freeze: Some("it is the root filesystem".into()), cannot_clone, ..facts("ext4") }
    }

    fn method(facts: &Facts, wish: &Wish) -> Option<Method> {
        choose(facts, wish).ok().map(|choice| choice.method)
    }

    #[test]
    fn what_can_be_frozen_is_copied_before_and_needs_to_know_no_writer() {
        let unknown = facts("ext4");
        assert_eq!(method(&unknown, &Wish::default()), Some(Method::Precopy));
        let no_freeze = Wish { freeze: false, ..Wish::default() };
        let refused = choose(&unknown, &no_freeze).unwrap_err().to_string();
        assert!(refused.contains("not by precopy, because it may not be frozen"), "{refused}");
        assert!(refused.contains("not by read-paused, because the cgroups of its writers are not known"), "{refused}");
    }

    #[test]
    fn what_may_not_be_frozen_is_snapshotted_cloned_or_read_in_a_pause_in_that_order() {
        let wish = Wish { freeze: false, ..Wish::default() };
        let mut facts = Facts { writers_known: true, is_subvolume: true, ..facts("btrfs") };
        assert_eq!(method(&facts, &wish), Some(Method::Btrfs));
        facts.nested = vec!["cache".into()];
        assert_eq!(method(&facts, &wish), Some(Method::Reflink));
        facts.cannot_clone = Some("Operation not supported".into());
        assert_eq!(method(&facts, &wish), Some(Method::ReadPaused));
        facts.bytes = Some(Wish::default().max_paused + 1);
        let refused = choose(&facts, &wish).unwrap_err().to_string();
        assert!(refused.contains("subvolumes inside it: cache") && refused.contains("64 MiB may"), "{refused}");
    }

    #[test]
    fn a_shared_filesystem_is_read_in_a_pause_unless_io_would_go_on_under_it() {
        let mut facts = Facts { writers_known: true, ..shared() };
        assert_eq!(method(&facts, &Wish::default()), Some(Method::ReadPaused));
        facts.in_flight = Some("process 7 uses AIO".into());
        let refused = choose(&facts, &Wish::default()).unwrap_err().to_string();
        assert!(refused.contains("root filesystem") && refused.contains("process 7 uses AIO"), "{refused}");
    }

    #[test]
    fn a_snapshot_while_it_is_written_and_a_live_read_are_only_ever_asked_for() {
        let facts = Facts { is_subvolume: true, filesystem: "btrfs".into(), ..shared() };
        assert_eq!(method(&facts, &Wish::default()), None);
        for asked in [Method::Btrfs, Method::Live] {
            let choice = choose(&facts, &Wish { method: Some(asked), ..Wish::default() }).unwrap();
            assert!(choice.method == asked && choice.reason.starts_with("asked for: "), "{choice:?}");
        }
    }

    #[test]
    fn what_is_asked_for_and_does_not_fit_is_refused_and_nothing_else_taken() {
        let refused = choose(&shared(), &Wish { method: Some(Method::Precopy), ..Wish::default() }).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "it cannot be captured at an instant: not by precopy, because it is the root filesystem"
        );
        // asking for it says that it may be frozen
        let wish = Wish { method: Some(Method::Precopy), freeze: false, ..Wish::default() };
        assert_eq!(method(&facts("ext4"), &wish), Some(Method::Precopy));
    }

    #[test]
    fn what_nobody_writes_to_needs_no_stop() {
        let facts = Facts { read_only: true, ..facts("ext4") };
        assert_eq!(method(&facts, &Wish::default()), Some(Method::Live));
    }

    #[test]
    fn what_fails_before_the_stop_gives_way_to_what_needs_its_writers_known() {
        let mut facts = Facts { writers_known: true, ..facts("xfs") };
        let failed = choose(&facts, &Wish::default()).unwrap();
        let choice = instead_of(&failed, "it changes too fast", &facts, &Wish::default()).unwrap();
        assert_eq!(choice.method, Method::Reflink);
        assert!(choice.reason.ends_with("; not by precopy: it changes too fast"), "{}", choice.reason);
        let asked = Wish { method: Some(Method::Precopy), ..Wish::default() };
        assert_eq!(instead_of(&failed, "it changes too fast", &facts, &asked), Err(Refused { why: Vec::new() }));
        let failed = Choice { method: Method::Reflink, ..failed };
        facts.bytes = Some(100 << 20);
        let refused = instead_of(&failed, "there is no room", &facts, &Wish::default()).unwrap_err().to_string();
        assert!(refused.contains("not by read-paused, because its 100 MiB would be read"), "{refused}");
        facts.writers_known = false;
        assert!(instead_of(&failed, "there is no room", &facts, &Wish::default()).is_err());
    }
}
