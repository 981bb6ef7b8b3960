//! Captures one unit: the objects of one type, in one namespace or across the cluster.
//!
//! A unit is all or nothing: when its list breaks off, what was written of it is not placed in the backup, and the
//! problem says so by name. The count it is checked against is asked on its own, before the list.

use std::collections::{BTreeMap, BTreeSet};

use stillpoint_api::{ExclusionRule, GroupResource, ObjectRef, Problem, ProblemKind, ResourceType};
use stillpoint_catalog as catalog;
use stillpoint_objects::{
    self as objects,
    filter::Selection,
    list::{self, Item, Revision},
    references::{self, Target},
    retry::Retry,
};
use stillpoint_repository::{FileContent, FileWriter, Writer};
use tokio::sync::watch;

use crate::{Error, Progress};

/// What every unit of one attempt shares.
pub(crate) struct Context {
    pub(crate) client: kube::Client,
    pub(crate) retry: Retry,
    pub(crate) revision: Revision,
    pub(crate) selection: Selection,
    pub(crate) writer: Writer,
    /// Whether the needs of captured objects are wanted: only where cluster-scoped objects are taken by need.
    pub(crate) collect_needs: bool,
    pub(crate) progress: watch::Sender<Progress>,
}

/// One type, in one namespace or, without one, wherever it is.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) resource: ResourceType,
    pub(crate) namespace: Option<String>,
    pub(crate) choice: Choice,
}

/// Which objects of a unit are taken, before the selection's own rules.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    /// All of them.
    All,
    /// Those that captured objects need.
    Needed(BTreeSet<ObjectRef>),
    /// Cluster role bindings of captured service accounts.
    BindingsOf(BTreeSet<ObjectRef>),
}

/// What came of a unit.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    pub(crate) files: Vec<(Option<String>, FileContent)>,
    pub(crate) existed: Option<u64>,
    pub(crate) captured: u64,
    pub(crate) excluded: BTreeMap<ExclusionRule, u64>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) claims: Vec<(String, String)>,
    /// Cluster-scoped objects that captured ones need, and service accounts that were captured.
    pub(crate) needs: BTreeSet<ObjectRef>,
}

impl Unit {
    fn subject(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} in {namespace}", self.resource.name),
            None => self.resource.name.to_string(),
        }
    }

    fn problem(&self, kind: ProblemKind, message: impl ToString) -> Problem {
        Problem { kind, subject: self.subject(), message: message.to_string() }
    }

    /// Counts the unit's objects at the revision, independently of any list.
    pub(crate) async fn count(&self, context: &Context) -> Result<u64, objects::Error> {
        list::count_at(&context.client, &self.resource, self.namespace.as_deref(), context.revision, &context.retry)
            .await
    }

    /// Captures the unit. What only this type suffers becomes a problem; what ends the attempt is an error.
    pub(crate) async fn capture(&self, context: &Context) -> Result<Captured, Error> {
        let mut captured = Captured::default();
        match self.count(context).await {
            Ok(0) => return Ok(Captured { existed: Some(0), ..captured }),
            Ok(existed) => captured.existed = Some(existed),
            Err(error) if ends_attempt(&error) => return Err(error.into()),
            Err(error) => captured.problems.push(self.problem(ProblemKind::Count, error)),
        }
        let existed = captured.existed;
        match self.list(context, &mut captured).await {
            Ok(()) => {}
            Err(Failure::Attempt(error)) => return Err(error),
            Err(Failure::Unit(problem)) => {
                // one cause is enough: a type that cannot be listed cannot be counted either
                return Ok(Captured { existed, problems: vec![problem], ..Captured::default() });
            }
        }
        let seen = captured.captured + captured.excluded.values().sum::<u64>();
        if let Some(existed) = existed.filter(|existed| *existed != seen) {
            let message = format!("{existed} existed at the revision, the list held {seen}");
            captured.problems.push(self.problem(ProblemKind::Mismatch, message));
        }
        Ok(captured)
    }

    async fn list(&self, context: &Context, captured: &mut Captured) -> Result<(), Failure> {
        let namespace = self.namespace.as_deref();
        let mut pages = list::list_at(&context.client, &self.resource, namespace, context.revision, &context.retry);
        let mut sink = Sink::new(&context.writer, self.resource.namespaced);
        while let Some(page) = pages.next().await.map_err(|error| self.failure(error))? {
            let before = captured.captured;
            for item in page.items() {
                let item = item.map_err(|error| self.failure(error))?;
                self.take(context, &item, captured, &mut sink).await?;
            }
            let objects = captured.captured - before;
            context.progress.send_modify(|progress| progress.objects += objects);
        }
        captured.files = sink.finish().await?;
        Ok(())
    }

    async fn take(
        &self,
        context: &Context,
        item: &Item<'_>,
        captured: &mut Captured,
        sink: &mut Sink<'_>,
    ) -> Result<(), Failure> {
        if let Some(rule) = self.rule(context, item).map_err(|error| self.failure(error))? {
            *captured.excluded.entry(rule).or_default() += 1;
            return Ok(());
        }
        let (namespace, name) = (item.meta.namespace.as_deref(), item.meta.name.as_ref());
        if !sink.append(namespace, name, item.raw.as_bytes()).await? {
            let message = format!("the server's list is not sorted: {name} came out of order");
            return Err(Failure::Unit(self.problem(ProblemKind::List, message)));
        }
        captured.captured += 1;
        if self.resource.name.is("", "persistentvolumeclaims") {
            captured.claims.push((namespace.unwrap_or_default().to_owned(), name.to_owned()));
        }
        if context.collect_needs {
            captured.needs.extend(self.needs(item).map_err(|error| self.failure(error))?);
        }
        Ok(())
    }

    /// Why an object is left out, if it is.
    fn rule(&self, context: &Context, item: &Item<'_>) -> Result<Option<ExclusionRule>, objects::Error> {
        if let Some(rule) = context.selection.object_rule(&self.resource, &item.meta) {
            return Ok(Some(rule));
        }
        let wanted = match &self.choice {
            Choice::All => true,
            Choice::Needed(needs) => needs.contains(&self.reference(item)),
            Choice::BindingsOf(accounts) => {
                let value = item.value()?;
                references::references(&self.resource.name, &value)
                    .iter()
                    .any(|reference| matches!(&reference.to, Target::Object(to) if accounts.contains(to)))
            }
        };
        Ok((!wanted).then_some(ExclusionRule::NotNeeded))
    }

    fn reference(&self, item: &Item<'_>) -> ObjectRef {
        ObjectRef::new(self.resource.name.clone(), item.meta.namespace.as_deref(), item.meta.name.as_ref())
    }

    /// What this object needs from outside namespaces, and itself where bindings may speak of it.
    fn needs(&self, item: &Item<'_>) -> Result<Vec<ObjectRef>, objects::Error> {
        let value = item.value()?;
        let mut needs: Vec<_> = references::references(&self.resource.name, &value)
            .into_iter()
            .filter_map(|reference| match reference.to {
                Target::Object(to) if to.namespace.is_none() => Some(to),
                _ => None,
            })
            .collect();
        if self.resource.name == GroupResource::core("serviceaccounts") {
            needs.push(self.reference(item));
        }
        Ok(needs)
    }

    fn failure(&self, error: objects::Error) -> Failure {
        match error {
            error if ends_attempt(&error) => Failure::Attempt(error.into()),
            error @ objects::Error::OtherStore { .. } => Failure::Unit(self.problem(ProblemKind::OtherStore, error)),
            error => Failure::Unit(self.problem(ProblemKind::List, error)),
        }
    }
}

/// Whether an error concerns the whole attempt rather than one type.
pub(crate) fn ends_attempt(error: &objects::Error) -> bool {
    matches!(
        error,
        objects::Error::Expired { .. } | objects::Error::Unreachable { .. } | objects::Error::Unauthorized { .. }
    )
}

enum Failure {
    /// Only this unit is lost.
    Unit(Problem),
    /// The attempt is.
    Attempt(Error),
}

impl From<stillpoint_repository::Error> for Failure {
    fn from(error: stillpoint_repository::Error) -> Self {
        Self::Attempt(Error::Catalog(catalog::Error::Repository(error)))
    }
}

/// The files of one unit: a new one begins where the namespace changes.
struct Sink<'a> {
    writer: &'a Writer,
    namespaced: bool,
    open: Option<(Option<String>, String, FileWriter)>,
    finished: Vec<(Option<String>, FileContent)>,
    seen: BTreeSet<String>,
}

impl<'a> Sink<'a> {
    fn new(writer: &'a Writer, namespaced: bool) -> Self {
        Self { writer, namespaced, open: None, finished: Vec::new(), seen: BTreeSet::new() }
    }

    /// Appends an object; false where it is out of order.
    async fn append(&mut self, namespace: Option<&str>, name: &str, raw: &[u8]) -> Result<bool, Failure> {
        let namespace = namespace.filter(|_| self.namespaced);
        if self.open.as_ref().is_none_or(|(open, ..)| open.as_deref() != namespace) {
            self.close().await?;
            if !self.seen.insert(namespace.unwrap_or_default().to_owned()) {
                return Ok(false);
            }
            self.open = Some((namespace.map(str::to_owned), String::new(), self.writer.file_writer()));
        }
        let Some((_, last, file)) = &mut self.open else { return Ok(false) };
        if name <= last.as_str() {
            return Ok(false);
        }
        name.clone_into(last);
        file.append(name, raw).await?;
        Ok(true)
    }

    async fn close(&mut self) -> Result<(), Failure> {
        if let Some((namespace, _, file)) = self.open.take() {
            self.finished.push((namespace, file.finish().await?));
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<(Option<String>, FileContent)>, Failure> {
        self.close().await?;
        Ok(self.finished)
    }
}
