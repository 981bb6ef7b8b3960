//! Commands as processes of this host, or in the container of one.
//!
//! For applications that run beside us without a cluster, and for a node that sees its containers' processes. Each process leads a group of its own and dies with us; its
//! end takes the rest of its group along, so that nothing it started is left behind.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use stillpoint_sys::Supervised;
use tokio::{
    net::unix::pipe::{Receiver, Sender},
    task::{self, JoinHandle},
};

use super::{Command, Ended, ExecError, Executor, Exit, Process, Reader, Writer};
use crate::enter;

/// How long a process may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// Runs every command on this host, as the user that we are, with our environment.
#[derive(Debug, Clone, Default)]
pub struct Local {
    variables: Vec<(String, String)>,
    inside: Option<Inside>,
}

/// Whose container commands run in, and what enters it.
#[derive(Debug, Clone)]
struct Inside {
    program: PathBuf,
    process: u32,
}

impl Local {
    /// Adds variables to the environment, as the image of a container would.
    #[must_use]
    pub fn with(variables: &[(&str, &str)]) -> Self {
        let owned = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Self { variables: owned.collect(), inside: None }
    }

    /// Runs every command in the container of `process` instead: in its namespaces and below its root, as its user,
    /// with its environment and none of the rights that it has not. `program` is one whose `main` begins with
    /// [`crate::guard::entry`].
    ///
    /// A command that could not be started there ends with exit code 125, and its standard error says why.
    #[must_use]
    pub fn inside(program: impl Into<PathBuf>, process: u32) -> Self {
        Self { variables: Vec::new(), inside: Some(Inside { program: program.into(), process }) }
    }

    fn command(&self, program: &str, argv: &[String]) -> std::process::Command {
        if let Some(Inside { program, process }) = &self.inside {
            return enter::command(program, *process, argv);
        }
        let mut child = std::process::Command::new(program);
        child.args(&argv[1..]).envs(self.variables.iter().map(|(name, value)| (name, value)));
        child
    }
}

struct LocalProcess {
    child: Arc<Supervised>,
    ending: Ending,
    input: Option<Writer>,
    outputs: Option<(Reader, Reader)>,
}

/// How the process ends: a thread waits for it, whoever asks and however often.
enum Ending {
    Awaited(JoinHandle<io::Result<ExitStatus>>),
    Known(Result<Exit, ExecError>),
}

#[async_trait]
impl Executor for Local {
    async fn start(&self, command: Command<'_>) -> Result<Box<dyn Process>, ExecError> {
        let [program, ..] = command.argv else {
            return Err(ExecError::Refused("the command is empty".to_owned()));
        };
        let mut child = self.command(program, command.argv);
        child.stdin(Stdio::null());
        let process = spawn(child, command.input).await;
        process
            .map(|process| Box::new(process) as _)
            .map_err(|error| ExecError::CannotStart(format!("{program}: {error}")))
    }
}

async fn spawn(mut command: std::process::Command, with_input: bool) -> io::Result<LocalProcess> {
    let (stdout, stdout_end) = io::pipe()?;
    let (stderr, stderr_end) = io::pipe()?;
    command.stdout(stdout_end).stderr(stderr_end);
    let mut input = None;
    if with_input {
        let (stdin_end, stdin) = io::pipe()?;
        command.stdin(stdin_end);
        input = Some(Box::new(Sender::from_owned_fd(stdin.into())?) as Writer);
    }
    let child = Arc::new(task::spawn_blocking(move || Supervised::spawn(command)).await.map_err(io::Error::other)??);
    let awaited = Arc::clone(&child);
    let ending = Ending::Awaited(task::spawn_blocking(move || awaited.join()));
    let reader = |pipe: io::PipeReader| Receiver::from_owned_fd(pipe.into()).map(|pipe| Box::new(pipe) as Reader);
    Ok(LocalProcess { child, ending, input, outputs: Some((reader(stdout)?, reader(stderr)?)) })
}

#[async_trait]
impl Process for LocalProcess {
    fn input(&mut self) -> Option<Writer> {
        self.input.take()
    }

    fn outputs(&mut self) -> Option<(Reader, Reader)> {
        self.outputs.take()
    }

    async fn wait(&mut self) -> Result<Exit, ExecError> {
        if let Ending::Awaited(ending) = &mut self.ending {
            let ended = ending.await.map_err(io::Error::other).flatten();
            self.ending = Ending::Known(ended.map(exit).map_err(|error| ExecError::Lost(error.to_string())));
        }
        match &self.ending {
            Ending::Known(exit) => exit.clone(),
            Ending::Awaited(_) => Err(ExecError::Lost("nobody waits for the process".to_owned())),
        }
    }

    async fn end(&mut self) -> Ended {
        let child = Arc::clone(&self.child);
        match task::spawn_blocking(move || child.terminate(GRACE)).await.map_err(io::Error::other).flatten() {
            Ok(status) => Ended::Gone(exit(status).to_string()),
            Err(error) => Ended::StillRunning(format!("process {}: {error}", self.child.pid())),
        }
    }
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        // the thread that waits holds the child too, so that it would live on by itself
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.terminate(Duration::ZERO);
        }
    }
}

fn exit(status: ExitStatus) -> Exit {
    match status.signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.code().unwrap_or_default()),
    }
}
