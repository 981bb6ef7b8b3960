//! Asks before what cannot be undone.
//!
//! The plan has been printed by then; where nobody can be asked, saying so beats guessing.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use crate::{args::UsageError, interrupt, output};

/// The longest that a question waits for its answer: a repository may be locked for everybody meanwhile.
const ANSWER: Duration = Duration::from_secs(5 * 60);

/// Refuses to go on where nobody can be asked; `act` is what `--yes` is given to do.
pub(crate) fn needs_somebody(act: &str) -> Result<(), UsageError> {
    match io::stdin().is_terminal() {
        true => Ok(()),
        false => Err(UsageError(format!("nobody can be asked here: give --yes to {act}"))),
    }
}

/// Asks on the terminal; no answer in time is a no. The thread that waits for a line ends with the process.
pub(crate) async fn confirmed() -> bool {
    output::note("type yes to go on:");
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        let _ = answer.send(read.is_ok() && line.trim() == "yes");
    });
    tokio::select! {
        answer = tokio::time::timeout(ANSWER, answered) => matches!(answer, Ok(Ok(true))),
        _ = interrupt::asked_to_end() => false,
    }
}
