//! Which types have a state at the revision at all.
//!
//! A type kept in another etcd, or by an aggregated API server, carries revisions of its own: read at ours it would
//! be the state of some other instant. Fresh lists tell: one between two fresh lists of a core type carries a
//! revision between theirs exactly when all three come from one counter.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use stillpoint_api::{GroupResource, ResourceType};
use stillpoint_objects::{
    self as objects,
    list::{self, Revision},
};

use crate::{
    Error,
    unit::{Context, ends_attempt},
};

/// A revision that falls between two others once may do so by chance; hardly twice.
const ROUNDS: usize = 2;
const CONCURRENCY: usize = 8;

/// The types that live in another store, with the revision that gave them away.
pub(crate) async fn strangers(
    context: &Context,
    types: &[ResourceType],
) -> Result<BTreeMap<GroupResource, String>, Error> {
    let mut strangers = BTreeMap::new();
    for _ in 0..ROUNDS {
        let before = list::read_revision(&context.client, &context.retry).await?;
        let fresh: Vec<_> =
            stream::iter(types)
                .map(|resource| async move {
                    (resource, list::fresh_revision(&context.client, resource, &context.retry).await)
                })
                .buffer_unordered(CONCURRENCY)
                .collect()
                .await;
        let after = list::read_revision(&context.client, &context.retry).await?;
        for (resource, revision) in fresh {
            if let Some(reason) = judge(before, revision, after)? {
                strangers.insert(resource.name.clone(), reason);
            }
        }
    }
    Ok(strangers)
}

fn judge(
    before: Revision,
    fresh: Result<Option<Revision>, objects::Error>,
    after: Revision,
) -> Result<Option<String>, Error> {
    match fresh {
        Ok(Some(revision)) if before <= revision && revision <= after => Ok(None),
        Ok(Some(revision)) => {
            Ok(Some(format!("its revision is {revision} while the cluster's is between {before} and {after}")))
        }
        Ok(None) => Ok(Some("its lists carry no revision".to_owned())),
        Err(error) if ends_attempt(&error) => Err(error.into()),
        // a list that fails is named by the unit that needs it
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_outside_the_core_types_is_another_stores() {
        let judge = |revision| judge(Revision(10), Ok(revision), Revision(12)).unwrap();
        assert_eq!(judge(Some(Revision(10))), None);
        assert_eq!(judge(Some(Revision(12))), None);
        assert!(judge(Some(Revision(9))).is_some());
        assert!(judge(Some(Revision(13))).is_some());
        assert!(judge(None).is_some());
    }
}
