//! Ends a command in a container, as far as the container lets us.
//!
//! # Flow
//! A shell of the container looks for the command in its own /proc and signals it: first TERM, then KILL. Only the
//! shell's own words are used, so that no other program need be in the image. Without a shell the command is counted as
//! still running, and said to be.
//!
//! # Guarantees
//! Nothing but the command is signalled. It is known by these marks, all at once: it is in our cgroup, as no other
//! container of the pod is; it was not started by a process of the container; it is not the oldest of those, which is
//! the container's own process; it is not older than the request that started it, and not much younger. Where two
//! processes have them all, none is signalled.

use std::time::Duration;

use tokio::time;

use super::{Command, Ended, ExecError, Exit, KubernetesProcess, Process};

/// How long a look into the container may take.
const LOOK: Duration = Duration::from_secs(5);

/// How long a signalled command may take to be gone.
const GRACE: Duration = Duration::from_secs(2);

/// How much younger than its request a command can be: the way through API server, kubelet and runtime, under load.
const YOUNGER: Duration = Duration::from_secs(3);

/// `$1` the signal, `$2` and `$3` the age in hundredths of a second that the command has at least and at most.
/// Field 22 of /proc/PID/stat is a process's start in clock ticks, of which every Linux that runs containers has 100 a
/// second. Exits with 3 when nothing has the marks, with 4 when more than one has.
const SIGNAL: &str = r#"
slurp() { while read -r line; do echo "$line"; done; }
ours=$(slurp </proc/self/cgroup)
read -r now _ </proc/uptime
now=${now%.*}${now#*.}
oldest=0
found=
for folder in /proc/[0-9]*; do
  pid=${folder#/proc/}
  [ "$pid" != $$ ] && { read -r stat <"$folder/stat"; } 2>/dev/null || continue
  set -- "$1" "$2" "$3" ${stat##*) }
  [ "$4" != Z ] && [ "$5" = 0 ] || continue
  [ "$( { slurp <"$folder/cgroup"; } 2>/dev/null)" = "$ours" ] || continue
  age=$((now - ${23}))
  [ $age -le $oldest ] || { oldest=$age; first=$pid; }
  if [ $age -ge "$2" ] && [ $age -le "$3" ]; then found="$found $pid"; fi
done
set -- "$1"
for pid in $found; do [ "$pid" = "$first" ] || set -- "$@" "$pid"; done
[ $# -ge 2 ] || exit 3
[ $# = 2 ] || exit 4
kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2"
"#;

pub(super) async fn end(process: &mut KubernetesProcess) -> Ended {
    let mut why = String::new();
    for signal in ["TERM", "KILL"] {
        match send(process, signal).await {
            Ok(()) => {}
            Err(Trouble::Gone) => return Ended::Gone("its container is gone".to_owned()),
            Err(Trouble::Other(trouble)) => why = trouble,
        }
        // whatever the shell said: only the connection knows that the command has ended
        match time::timeout(GRACE, process.wait()).await {
            Ok(Ok(exit)) => return Ended::Gone(exit.to_string()),
            Ok(Err(error)) => return Ended::StillRunning(error.to_string()),
            Err(_) => {}
        }
    }
    if why.is_empty() {
        "it was signalled and has not ended".clone_into(&mut why);
    }
    Ended::StillRunning(why)
}

enum Trouble {
    Gone,
    Other(String),
}

async fn send(process: &KubernetesProcess, signal: &str) -> Result<(), Trouble> {
    let other = |text: &str| Err(Trouble::Other(text.to_owned()));
    let hundredths = |age: Duration| (age.as_millis() / 10).to_string();
    let age = process.asked.elapsed();
    // the look itself takes a while, during which the command grows older
    let range = [age.saturating_sub(YOUNGER), age + LOOK].map(hundredths);
    let argv = ["/bin/sh", "-c", SIGNAL, "sh", signal, &range[0], &range[1]].map(ToOwned::to_owned);
    let command = Command { pod: &process.pod, container: &process.container, argv: &argv, input: false };
    let look = async {
        let mut shell = process.executor.exec(command).await?;
        shell.wait().await
    };
    match time::timeout(LOOK, look).await {
        Ok(Ok(Exit::Code(0))) => Ok(()),
        Ok(Ok(Exit::Code(3))) => other("it was not found in its container"),
        Ok(Ok(Exit::Code(4))) => other("another command that started with it cannot be told from it"),
        Ok(Ok(exit)) => Err(Trouble::Other(format!("looking for it ended with {exit}"))),
        Ok(Err(ExecError::Gone(_))) => Err(Trouble::Gone),
        Ok(Err(ExecError::CannotStart(_))) => other("the image has no shell that could end it"),
        Ok(Err(error)) => Err(Trouble::Other(error.to_string())),
        Err(_) => other("the container did not answer"),
    }
}
