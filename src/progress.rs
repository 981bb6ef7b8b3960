//! Progress for people: a line that redraws itself on a terminal, and nothing otherwise.
//!
//! The work reports values through a watch channel and never knows who looks.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{sync::watch, task::JoinHandle};

const REDRAW: Duration = Duration::from_millis(100);

/// Draws until dropped.
pub(crate) struct Drawn {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

/// A sender of progress values, drawn by `describe` while the second value lives.
pub(crate) fn draw<T>(describe: impl Fn(&T) -> String + Send + 'static) -> (watch::Sender<T>, Drawn)
where
    T: Default + Send + Sync + 'static,
{
    let (sender, mut receiver) = watch::channel(T::default());
    let bar = bar();
    let drawn = bar.clone();
    let task = tokio::spawn(async move {
        loop {
            drawn.set_message(describe(&receiver.borrow_and_update()));
            // some work reports every file: nobody reads faster than this
            tokio::time::sleep(REDRAW).await;
            if receiver.changed().await.is_err() {
                return;
            }
        }
    });
    (sender, Drawn { bar, task })
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(REDRAW);
    bar
}
