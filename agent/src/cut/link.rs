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

use crate::node::{
    lease::BEAT,
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
        let mut answers = self.answers.lock().await;
        self.tell(step).await?;
        self.answer(&mut answers, patience).await
    }

    /// Waits for a further answer to what was asked before.
    pub(crate) async fn wait(&self, patience: Duration) -> Result<Answer, LinkError> {
        let mut answers = self.answers.lock().await;
        self.answer(&mut answers, patience).await
    }

    /// Says what needs no answer.
    pub(crate) async fn tell(&self, step: Step) -> Result<(), LinkError> {
        let sent = self.requests.send(CutRequest { step: Some(step) }).await;
        sent.map_err(|_| self.error(self.why_ended()))
    }

    async fn answer(&self, answers: &mut mpsc::Receiver<Answer>, patience: Duration) -> Result<Answer, LinkError> {
        match time::timeout(patience, answers.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.error(self.why_ended())),
            Err(_) => Err(self.error(format!("no answer within {} s", patience.as_secs_f32()))),
        }
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
            Some(Err(status)) => break status.message().to_owned(),
            None => break "its agent ended the session".to_owned(),
        }
    };
    tell.send_modify(|news| news.ended = Some(ended));
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
