//! Reads the objects of a stage from the backup, file after file.
//!
//! A stream, so that at no time more objects are in memory than are being written.

use futures::{Stream, stream};
use stillpoint_catalog::{Backup, CapturedObject, ObjectLines};

use crate::{
    Error,
    plan::{Plan, Step},
};

/// The steps of one stage with their objects, in the order of the plan.
pub(crate) fn feed<'a>(
    backup: &'a Backup,
    plan: &'a Plan,
    steps: &'a [Step],
) -> impl Stream<Item = Result<(&'a Step, CapturedObject), Error>> + 'a {
    stream::try_unfold((steps.iter(), None), move |(mut steps, open)| async move {
        let Some(step) = steps.next() else { return Ok(None) };
        let mut open = match open {
            Some(open) if Open::is(&open, step) => open,
            _ => Open { file: step.file, line: 0, lines: backup.objects(&plan.files[step.file])? },
        };
        let object = open.at(step).await?;
        Ok(Some(((step, object), (steps, Some(open)))))
    })
}

/// A file that is being read, and how far.
struct Open {
    file: usize,
    line: u64,
    lines: ObjectLines,
}

impl Open {
    fn is(&self, step: &Step) -> bool {
        self.file == step.file && self.line <= step.line
    }

    async fn at(&mut self, step: &Step) -> Result<CapturedObject, Error> {
        loop {
            let missing = || stillpoint_catalog::Damage::Missing { path: step.object.to_string() };
            let object = self.lines.next().await?.ok_or_else(|| missing().of(""))?;
            self.line += 1;
            if self.line > step.line {
                return Ok(object);
            }
        }
    }
}
