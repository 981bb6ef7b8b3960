//! The coordinator's end of one node's stream.
//!
//! One task reads all answers, so that news that nobody asked for (progress, a lost stop) is never stuck behind an
//! answer that somebody waits for, and one says that this side lives.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use tokio::{
    sync::{Mutex, mpsc, watch},
    time,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use crate::node::{
    lease::{BEAT, PROBE, PROBED},
    wire::{self, CutAnswer, CutRequest, cut_answer::Step as Answer, cut_request::Step},
};

/// Why a node did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node}: {why}")]
pub(crate) struct LinkError {
    pub(crate) node: String,
    pub(crate) why: String,
}

/// One node's stream. Clones speak to the same node, one question at a time.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) node: String,
    requests: mpsc::Sender<CutRequest>,
    answers: Arc<Mutex<mpsc::Receiver<Answer>>>,
    news: watch::Receiver<News>,
    _tasks: Arc<[AbortOnDropHandle<()>; 2]>,
}

/// What a node says without being asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct News {
    pub(crate) progress: wire::Progress,
    /// Why its stop ended by itself.
    pub(crate) lost: Option<String>,
    /// Why the stream ended.
    pub(crate) ended: Option<String>,
    /// Whether it ended without a word of the agent's.
    pub(crate) cut_off: bool,
}

impl Link {
    /// Speaks to `node`: requests go to `requests`, and `answers` is what it says.
    pub(crate) fn start(
        node: String,
        requests: mpsc::Sender<CutRequest>,
        answers: impl Stream<Item = Result<CutAnswer, tonic::Status>> + Send + Unpin + 'static,
    ) -> Self {
        let (forward, received) = mpsc::channel(4);
        let (tell, news) = watch::channel(News::default());
        let reader = tokio::spawn(read(answers, forward, tell));
        let beats = tokio::spawn(beat(requests.clone()));
        let tasks = Arc::new([AbortOnDropHandle::new(reader), AbortOnDropHandle::new(beats)]);
        Self { node, requests, answers: Arc::new(Mutex::new(received)), news, _tasks: tasks }
    }

    /// Asks, and waits for the answer for so long at most.
    pub(crate) async fn ask(&self, step: Step, patience: Duration) -> Result<Answer, LinkError> {
        let asked = async {
            let mut answers = self.answers.lock().await;
            let fits = fitting(&step);
            self.tell(step).await?;
            self.answer(&mut answers, fits).await
        };
        self.within(patience, asked).await
    }

    /// Waits for a further answer to Begin.
    pub(crate) async fn wait(&self, patience: Duration) -> Result<Answer, LinkError> {
        self.within(patience, async { self.answer(&mut *self.answers.lock().await, begins).await }).await
    }

    /// Whether nobody is at its other end any more.
    pub(crate) fn has_ended(&self) -> Option<LinkError> {
        self.news.borrow().ended.as_ref().map(|why| self.error(why.clone()))
    }

    /// Whether its agent, or the way to it, went away in the middle: another session may do better.
    pub(crate) fn is_cut_off(&self) -> bool {
        let news = self.news.borrow();
        if news.ended.is_some() { news.cut_off } else { self.requests.is_closed() }
    }

    /// Says what needs no answer.
    pub(crate) async fn tell(&self, step: Step) -> Result<(), LinkError> {
        let sent = self.requests.send(CutRequest { step: Some(step) }).await;
        sent.map_err(|_| self.error(self.why_ended()))
    }

    /// The next answer that fits; one to an earlier question, whose asker gave up waiting, does not.
    async fn answer(
        &self,
        answers: &mut mpsc::Receiver<Answer>,
        fits: fn(&Answer) -> bool,
    ) -> Result<Answer, LinkError> {
        loop {
            match answers.recv().await {
                Some(answer) if !fits(&answer) => tracing::debug!(?answer, "nobody waits for this answer any more"),
                Some(answer) => return Ok(answer),
                None => return Err(self.error(self.why_ended())),
            }
        }
    }

    async fn within<T>(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        let late = |_| self.error(format!("no answer of its agent within {} s", patience.as_secs_f32()));
        time::timeout(patience, answer).await.map_err(late)?
    }

    fn why_ended(&self) -> String {
        self.news.borrow().ended.clone().unwrap_or_else(|| "its agent is gone".to_owned())
    }

    /// What it says without being asked, now and from now on.
    pub(crate) fn news(&self) -> watch::Receiver<News> {
        self.news.clone()
    }

    /// Returns why, once the stop that it holds has ended by itself or the stream did; cancel safe.
    pub(crate) async fn lost(&self) -> String {
        let mut news = self.news.clone();
        let lost = news.wait_for(|news| news.lost.is_some() || news.ended.is_some()).await;
        let why = lost.ok().and_then(|news| news.lost.clone().or_else(|| news.ended.clone()));
        why.unwrap_or_else(|| "its agent is gone".to_owned())
    }

    pub(crate) fn error(&self, why: impl Into<String>) -> LinkError {
        LinkError { node: self.node.clone(), why: why.into() }
    }

    /// An answer that makes no sense here.
    pub(crate) fn unexpected(&self, answer: &Answer) -> LinkError {
        self.error(format!("it answered what was not asked ({answer:?}): its version is another one"))
    }
}

/// What answers a question.
fn fitting(step: &Step) -> fn(&Answer) -> bool {
    match step {
        Step::Begin(_) => begins,
        Step::Prepare(_) => |answer| matches!(answer, Answer::Prepared(_)),
        Step::Stop(_) => |answer| matches!(answer, Answer::Stopped(_) | Answer::NotStopped(_)),
        Step::Snapshot(_) => |answer| matches!(answer, Answer::Snapshotted(_)),
        Step::Release(_) => |answer| matches!(answer, Answer::Released(_)),
        Step::Store(_) => |answer| matches!(answer, Answer::Stored(_)),
        Step::Keep(_) | Step::Beat(_) => |_| true,
    }
}

/// Whether it answers Begin.
fn begins(answer: &Answer) -> bool {
    matches!(answer, Answer::Waiting(_) | Answer::Turn(_))
}

async fn read(
    mut answers: impl Stream<Item = Result<CutAnswer, tonic::Status>> + Unpin,
    forward: mpsc::Sender<Answer>,
    tell: watch::Sender<News>,
) {
    let ended = loop {
        match answers.next().await {
            Some(Ok(CutAnswer { step: Some(step) })) => match step {
                Answer::Progress(progress) => tell.send_modify(|news| news.progress = progress),
                Answer::Lost(why) => tell.send_modify(|news| news.lost = Some(why)),
                // a new stop is not lost because an earlier one was
                Answer::Stopped(stopped) => {
                    tell.send_modify(|news| news.lost = None);
                    let _ = forward.send(Answer::Stopped(stopped)).await;
                }
                // whoever asked may have given up waiting
                step => drop(forward.send(step).await),
            },
            Some(Ok(CutAnswer { step: None })) => {}
            // with that code an agent itself ends a session
            Some(Err(status)) => break (why(&status), status.code() != Code::FailedPrecondition),
            None => break ("its agent ended the session".to_owned(), true),
        }
    };
    tell.send_modify(|news| (news.ended, news.cut_off) = (Some(ended.0), ended.1));
}

/// Why a stream ended: by its agent's word, or because nobody is heard any more.
pub(super) fn why(status: &tonic::Status) -> String {
    if causes(status).any(|cause| cause.to_string().contains("keep-alive timed out")) {
        let seconds = (PROBE + PROBED).as_secs();
        return format!("nothing was heard of its agent for {seconds} s: the way to it stands still");
    }
    match causes(status).skip(1).last() {
        Some(cause) => format!("the connection to its agent broke: {cause}"),
        // its own words
        None => status.message().to_owned(),
    }
}

/// An error and what caused it, from the outside in.
pub(super) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

async fn beat(requests: mpsc::Sender<CutRequest>) {
    let mut interval = time::interval(BEAT);
    loop {
        interval.tick().await;
        if requests.send(CutRequest { step: Some(Step::Beat(wire::Empty {})) }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn answer(step: Answer) -> Result<CutAnswer, tonic::Status> {
        Ok(CutAnswer { step: Some(step) })
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_waits_for_any_more_is_not_taken_for_the_next_one() {
        let (requests, _kept) = mpsc::channel(8);
        let released = wire::Released { whole: true, ..wire::Released::default() };
        let answers = stream::iter([
            answer(Answer::Snapshotted(wire::Failures::default())),
            answer(Answer::Released(released.clone())),
        ]);
        let link = Link::start("a".into(), requests, Box::pin(answers.chain(stream::pending())));
        let answer = link.ask(Step::Release(wire::Empty {}), Duration::from_secs(1)).await;
        assert_eq!(answer, Ok(Answer::Released(released)));
        let silent = link.ask(Step::Store(wire::Empty {}), Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(silent.to_string(), "node a: no answer of its agent within 1 s");
        assert_eq!(link.has_ended(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_lost_when_the_node_says_so_or_is_gone() {
        let (requests, _kept) = mpsc::channel(8);
        let says = stream::iter([answer(Answer::Lost("the time was up".into()))]).chain(stream::pending());
        let link = Link::start("a".into(), requests.clone(), Box::pin(says));
        assert_eq!(link.lost().await, "the time was up");
        let gone = stream::iter([Err(tonic::Status::unavailable("it was killed"))]);
        let link = Link::start("a".into(), requests, Box::pin(gone));
        assert_eq!(link.lost().await, "it was killed");
        assert_eq!(link.has_ended().unwrap().to_string(), "node a: it was killed");
        assert!(link.is_cut_off());
        let (requests, _kept) = mpsc::channel(8);
        let says = stream::iter([Err(tonic::Status::failed_precondition("the repository cannot be used"))]);
        let link = Link::start("a".into(), requests, Box::pin(says));
        assert_eq!(link.lost().await, "the repository cannot be used");
        assert!(!link.is_cut_off(), "it would say the same again");
    }
}
