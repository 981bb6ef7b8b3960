//! Takes a volume by one method, and by the next that fits where nothing can be made in the volume.
//!
//! That it can be is tried before the stop, but who writes may fill the volume after that. Then the snapshot fails, the
//! cut is void, and once the writers go on the next method gets ready for the cut that is retaken: no two cuts fail for
//! want of the same room.

use async_trait::async_trait;
use stillpoint_hooks::host::PodStop;

use super::{Capture, Choice, Error, Facts, Inputs, Refused, Stored, Taking, Wish, at_once, choose::instead_of};

pub(super) struct Yielding {
    taking: Taking,
    facts: Facts,
    wish: Wish,
    inputs: Inputs,
    /// None where the one before was given up and no other could be prepared.
    capture: Option<Box<dyn Capture>>,
    /// Why no other could be.
    failed: Option<Error>,
    /// What is to be prepared instead.
    instead: Option<Choice>,
}

impl Yielding {
    /// Prepares the method that was chosen, or the next that can be.
    pub(super) async fn prepare(taking: Taking, facts: Facts, wish: Wish, inputs: Inputs) -> Result<Self, Error> {
        let mut yielding = Self { taking, facts, wish, inputs, capture: None, failed: None, instead: None };
        yielding.get_ready().await?;
        Ok(yielding)
    }

    async fn get_ready(&mut self) -> Result<(), Error> {
        loop {
            let error = match at_once(self.taking.clone(), self.inputs.clone()).await {
                Err(error @ Error::NotTaken { .. }) => error,
                prepared => {
                    self.capture = Some(prepared?);
                    return Ok(());
                }
            };
            match self.next(&error) {
                Ok(choice) => self.change_to(choice),
                Err(why) => return Err(without_other(error, why)),
            }
        }
    }

    fn next(&self, error: &Error) -> Result<Choice, Refused> {
        instead_of(&self.taking.choice, &error.to_string(), &self.facts, &self.wish)
    }

    fn change_to(&mut self, choice: Choice) {
        let Choice { method, reason } = &choice;
        tracing::warn!(volume = %self.taking.volume.name, %method, reason, "another method is taken");
        self.taking.choice = choice;
    }
}

/// An error after which no other method fits.
fn without_other(error: Error, why: Refused) -> Error {
    // what was asked for has no other
    if why.why.is_empty() { error } else { Error::NothingElse { source: Box::new(error), why } }
}

#[async_trait]
impl Capture for Yielding {
    fn stop(&self) -> PodStop {
        self.capture.as_ref().map(|capture| capture.stop()).unwrap_or_default()
    }

    async fn snapshot(&mut self) -> Result<(), Error> {
        let Some(capture) = &mut self.capture else {
            return Err(self.failed.take().unwrap_or_else(|| self.taking.stopped()));
        };
        match capture.snapshot().await {
            Err(error @ Error::NotTaken { .. }) => match self.next(&error) {
                Ok(choice) => {
                    let method = choice.method;
                    self.instead = Some(choice);
                    Err(Error::GivesWay { source: Box::new(error), method })
                }
                Err(why) => Err(without_other(error, why)),
            },
            taken => taken,
        }
    }

    async fn store(self: Box<Self>) -> Result<Stored, Error> {
        match self.capture {
            Some(capture) => capture.store().await,
            None => Err(self.taking.stopped()),
        }
    }

    async fn recover(&mut self) {
        let Some(choice) = self.instead.take() else {
            if let Some(capture) = &mut self.capture {
                capture.recover().await;
            }
            return;
        };
        if let Some(capture) = self.capture.take() {
            capture.abandon().await;
        }
        self.change_to(choice);
        self.failed = self.get_ready().await.err();
    }

    async fn abandon(self: Box<Self>) {
        if let Some(capture) = self.capture {
            capture.abandon().await;
        }
    }
}
