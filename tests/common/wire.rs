//! A way to a server that stands still or is cut where it is told to, and goes on again.
//!
//! Bytes pass as they are, TLS and all: both ends meet what they would meet of a network that breaks. What is to happen
//! to single requests is `proxy.rs`'s.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// How the way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    Open,
    /// Connections are taken and stay, and no byte passes.
    StandsStill,
    /// Connections end, and new ones at once.
    Cut,
}

/// The way; dropping it cuts it for good.
pub(crate) struct Wire {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    server: String,
    passage: watch::Sender<Passage>,
    /// Bytes that went to the server.
    sent: watch::Sender<u64>,
    trap: Mutex<Option<Trap>>,
}

/// Breaks the way before a request passes.
struct Trap {
    springs: Box<dyn Fn(&str) -> bool + Send>,
    spared: usize,
    then: Passage,
}

impl Wire {
    /// Opens a way to the server at `HOST:PORT`.
    pub(crate) async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passage = watch::Sender::new(Passage::Open);
        let shared = Shared { server: server.to_owned(), passage, sent: watch::Sender::new(0), trap: Mutex::default() };
        let shared = Arc::new(shared);
        let task = tokio::spawn(serve(listener, shared.clone()));
        Self { address, shared, _task: AbortOnDropHandle::new(task) }
    }

    /// Breaks or mends it.
    pub(crate) fn set(&self, passage: Passage) {
        self.shared.passage.send_replace(passage);
    }

    /// Breaks it before a plain HTTP request of this kind passes, of which so many pass before; asked with the first line.
    pub(crate) fn set_before(&self, then: Passage, spared: usize, springs: impl Fn(&str) -> bool + Send + 'static) {
        *self.shared.trap.lock().unwrap() = Some(Trap { springs: Box::new(springs), spared, then });
    }

    /// Returns once it is broken.
    pub(crate) async fn broken(&self) {
        self.shared.passage.subscribe().wait_for(|passage| *passage != Passage::Open).await.unwrap();
    }

    /// Returns once so many bytes have gone to the server.
    pub(crate) async fn has_sent(&self, bytes: u64) {
        self.shared.sent.subscribe().wait_for(|sent| *sent >= bytes).await.unwrap();
    }
}

impl Shared {
    /// Notes bytes for the server, before which it may break.
    fn note(&self, bytes: &[u8]) {
        self.sent.send_modify(|sent| *sent += bytes.len() as u64);
        let mut trap = self.trap.lock().unwrap();
        let line = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default());
        match &mut *trap {
            Some(armed) if (armed.springs)(&line) && armed.spared > 0 => armed.spared -= 1,
            Some(armed) if (armed.springs)(&line) => {
                self.passage.send_replace(armed.then);
                *trap = None;
            }
            _ => {}
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // the connections end with it
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        connections.spawn(async move {
            if *shared.passage.borrow() == Passage::Cut {
                return;
            }
            let Ok(server) = TcpStream::connect(&shared.server).await else { return };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::join!(
                pass(from_client, to_server, &shared.passage, |bytes| shared.note(bytes)),
                pass(from_server, to_client, &shared.passage, |_| ()),
            );
        });
    }
}

/// Passes bytes on in one direction until they end or the way is cut.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, passage: &watch::Sender<Passage>, note: impl Fn(&[u8])) {
    let (mut passage, mut cut) = (passage.subscribe(), passage.subscribe());
    let mut buffer = vec![0; 64 << 10];
    let passing = async {
        loop {
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => {
                    note(&buffer[..read]);
                    let open = passage.wait_for(|passage| *passage != Passage::StandsStill).await;
                    let open = open.is_ok_and(|passage| *passage == Passage::Open);
                    if !open || to.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
            }
        }
        // an end is news like any other
        let _ = passage.wait_for(|passage| *passage != Passage::StandsStill).await;
        let _ = to.shutdown().await;
    };
    tokio::select! {
        () = passing => {}
        _ = cut.wait_for(|passage| *passage == Passage::Cut) => {}
    }
}
