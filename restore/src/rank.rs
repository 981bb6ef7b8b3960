//! Where in the order an object stands: by its kind's level, and after all of its owners and its type's definition.
//!
//! The level alone is not enough, because an operator's custom object may own a Deployment, or the definition of
//! another type: an owner's new uid must be known before a dependent is created.

use std::collections::HashMap;

use stillpoint_objects::order::Level;

/// A stage of a plan: everything of one rank can be created at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) level: Level,
    pub(crate) depth: u32,
}

/// One object to be ranked.
#[derive(Debug)]
pub(crate) struct Ranked {
    pub(crate) uid: String,
    pub(crate) level: Level,
    /// The uids of its owners and of its type's definition.
    pub(crate) after: Vec<String>,
}

/// The rank of every object, in the same order. Owners that are not among the objects do not count, and owners that
/// own each other are broken up where the cycle is met.
pub(crate) fn ranks(objects: &[Ranked]) -> Vec<Rank> {
    let by_uid: HashMap<&str, usize> =
        objects.iter().enumerate().filter(|(_, o)| !o.uid.is_empty()).map(|(i, o)| (o.uid.as_str(), i)).collect();
    let mut ranks = vec![None; objects.len()];
    for start in 0..objects.len() {
        rank_one(objects, &by_uid, &mut ranks, start);
    }
    let plain = |object: &Ranked| Rank { level: object.level, depth: 0 };
    ranks.into_iter().zip(objects).map(|(rank, object)| rank.unwrap_or_else(|| plain(object))).collect()
}

/// Depth first with a stack of its own: a chain of owners comes from storage and may be of any length.
fn rank_one(objects: &[Ranked], by_uid: &HashMap<&str, usize>, ranks: &mut [Option<Rank>], start: usize) {
    let mut stack = vec![(start, 0)];
    let mut on_stack = std::collections::HashSet::from([start]);
    while let Some((index, next)) = stack.pop() {
        if ranks[index].is_some() {
            on_stack.remove(&index);
            continue;
        }
        let owners: Vec<usize> =
            objects[index].after.iter().filter_map(|uid| by_uid.get(uid.as_str()).copied()).collect();
        if let Some(&owner) = owners.get(next) {
            stack.push((index, next + 1));
            if ranks[owner].is_none() && on_stack.insert(owner) {
                stack.push((owner, 0));
            }
            continue;
        }
        let own = Rank { level: objects[index].level, depth: 0 };
        let after = owners.iter().filter_map(|&owner| ranks[owner]);
        let after = after.map(|rank| Rank { level: rank.level, depth: rank.depth + 1 });
        ranks[index] = Some(after.fold(own, Rank::max));
        on_stack.remove(&index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(uid: &str, level: Level, owners: &[&str]) -> Ranked {
        Ranked { uid: uid.into(), level, after: owners.iter().map(|&owner| owner.into()).collect() }
    }

    #[test]
    fn an_owner_comes_before_what_it_owns_whatever_their_kinds() {
        let objects = [
            object("deployment", Level::Workloads, &["custom"]),
            object("set", Level::Workloads, &["deployment"]),
            object("custom", Level::Rest, &[]),
            object("config", Level::Config, &["gone"]),
        ];
        let ranks = ranks(&objects);
        assert_eq!(ranks[2], Rank { level: Level::Rest, depth: 0 });
        assert_eq!(ranks[0], Rank { level: Level::Rest, depth: 1 });
        assert_eq!(ranks[1], Rank { level: Level::Rest, depth: 2 });
        assert_eq!(ranks[3], Rank { level: Level::Config, depth: 0 });
    }

    #[test]
    fn owners_in_a_circle_and_of_themselves_end() {
        let objects = [
            object("a", Level::Config, &["b"]),
            object("b", Level::Config, &["a"]),
            object("c", Level::Config, &["c"]),
        ];
        assert!(ranks(&objects).iter().all(|rank| rank.level == Level::Config && rank.depth <= 1));
    }

    #[test]
    fn a_very_long_chain_of_owners_does_not_exhaust_the_stack() {
        let chain: Vec<_> = (0..50_000).map(|i| object(&i.to_string(), Level::Rest, &[&(i + 1).to_string()])).collect();
        assert_eq!(ranks(&chain)[0].depth, 49_999);
    }
}
