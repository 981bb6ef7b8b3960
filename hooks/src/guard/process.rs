//! The guard's own process: stops what it is asked to, and releases it on the first reason to.
//!
//! It runs straight on from top to bottom, one stop and one release, because a guard that could be asked for more would
//! have states in which it promises nothing. Everything it waits for comes through one [`Inbox`].

mod standing;

use std::{
    os::unix::net::UnixStream,
    process::ExitCode,
    time::{Duration, Instant},
};

use self::standing::{Target, late_reason};
use super::{
    inbox::{Inbox, Wake},
    isolation,
    plan::Plan,
    protocol::{Arm, Event, Failure, Held, Kind, Reason, Release, Request, Step, Stop, Stopped, milliseconds},
    target::{Done, Order},
};
use crate::journal::{Is, Journal};

/// How long a caller may take to say what it wants.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a thaw may take before the cgroups are resumed all the same.
const THAW: Duration = Duration::from_secs(1);
/// How long a freeze that is under way may still take before the answer is that it is.
const SETTLE: Duration = Duration::from_millis(100);

/// Serves the caller at the other end of `socket` to the end.
pub(crate) fn serve(socket: UnixStream) -> ExitCode {
    let Ok(mut inbox) = Inbox::new(socket, HANDSHAKE) else { return ExitCode::FAILURE };
    let Wake::Request(Request::Arm(arm)) = inbox.next(None) else { return ExitCode::FAILURE };
    let _place = match isolation::set_apart(&arm) {
        Ok(place) => place,
        Err(error) => {
            inbox.tell(&Event::NotArmed(error.to_string()));
            return ExitCode::FAILURE;
        }
    };
    inbox.expect_heartbeat(arm.heartbeat);
    inbox.tell(&Event::Armed);
    let Wake::Request(Request::Stop(stop)) = inbox.next(None) else { return ExitCode::SUCCESS };
    match begin(&mut inbox, &arm, &stop) {
        Ok((targets, journal)) => {
            Round { inbox, targets, journal, failures: Vec::new(), broken: false }.run(&stop);
        }
        Err(failures) => inbox.tell(&Event::NotStopped(failures)),
    }
    ExitCode::SUCCESS
}

/// Looks up what is to be stopped and writes it into the journal; nothing is stopped yet.
fn begin(inbox: &mut Inbox, arm: &Arm, stop: &Stop) -> Result<(Vec<Target>, Journal), Vec<Failure>> {
    let failed = |name: &str, reason: String| vec![Failure { name: name.to_owned(), reason }];
    let plan = Plan::resolve(stop, arm.caller, &arm.journal)?;
    inbox.tell(&Event::Step(Step::Resolved));
    let journal = plan.intent(arm.caller).and_then(|intent| Journal::begin(&arm.journal, &intent));
    let journal = journal.map_err(|error| failed("journal", error.to_string()))?;
    inbox.tell(&Event::Step(Step::Journalled));
    let planned = plan.targets.len();
    let start = |(number, planned)| Target::start(number, planned, inbox);
    match plan.targets.into_iter().enumerate().map(start).collect() {
        Ok(targets) => Ok((targets, journal)),
        Err(error) => {
            (0..planned).for_each(|number| journal.note(number, Is::Done));
            journal.finish();
            Err(failed("guard", format!("cannot start a thread: {error}")))
        }
    }
}

/// Why a step did not come to its end.
enum Cut {
    Gone(Reason),
    Late,
    Failed(Vec<Failure>),
}

/// One stop, from the intent in the journal to the last release.
struct Round {
    inbox: Inbox,
    targets: Vec<Target>,
    journal: Journal,
    failures: Vec<Failure>,
    broken: bool,
}

impl Round {
    fn run(mut self, stop: &Stop) {
        let (reason, asked) = match self.stop(stop) {
            Ok(deadline) => {
                self.inbox.tell(&Event::Stopped(self.stopped()));
                (self.hold(deadline), true)
            }
            Err(cut) => (self.note_cut(cut, stop), false),
        };
        self.release();
        let release = self.report(reason);
        if asked {
            self.inbox.tell(&Event::Released(release));
        } else {
            self.inbox.tell(&Event::NotStopped(std::mem::take(&mut self.failures)));
        }
        // what is still freezing is thawed by its thread the moment it completes, which this waits for
        while self.targets.iter().any(|target| target.outcome.is_none()) {
            self.heed(None);
        }
        self.journal.finish();
    }

    /// Stops everything, and returns when it must be released.
    fn stop(&mut self, stop: &Stop) -> Result<Instant, Cut> {
        let filesystem = |kind: &Kind| matches!(kind, Kind::Freeze | Kind::Drain);
        self.order(Order::Sync, filesystem);
        self.wait(Instant::now() + stop.sync)?;
        self.inbox.tell(&Event::Step(Step::Synced));
        let deadline = Instant::now() + stop.max;
        self.order(Order::Stop(deadline), |kind| *kind == Kind::Pause);
        self.wait(deadline)?;
        self.inbox.tell(&Event::Step(Step::Paused));
        self.order(Order::Drain, |kind| *kind == Kind::Drain);
        self.wait(deadline)?;
        self.inbox.tell(&Event::Step(Step::Drained));
        self.order(Order::Stop(deadline), |kind| *kind == Kind::Freeze);
        self.wait_or_rescue(deadline, stop.grace)?;
        self.inbox.tell(&Event::Step(Step::Frozen));
        Ok(deadline)
    }

    /// Waits for the freezes; what may hold them up is paused when they take longer than the grace.
    fn wait_or_rescue(&mut self, deadline: Instant, grace: Duration) -> Result<(), Cut> {
        let rescue = |kind: &Kind| *kind == Kind::Rescue;
        match self.wait(deadline.min(Instant::now() + grace)) {
            Err(Cut::Late) if self.targets.iter().any(|target| rescue(&target.kind)) => {
                self.inbox.tell(&Event::Step(Step::Rescuing));
                self.order(Order::Stop(deadline), rescue);
                self.wait(deadline)
            }
            Err(Cut::Late) => self.wait(deadline),
            ended => ended,
        }
    }

    /// Holds until the first reason to release.
    fn hold(&mut self, deadline: Instant) -> Reason {
        loop {
            match self.heed(Some(deadline)) {
                Some(Wake::Request(Request::Release)) => return Reason::Asked,
                Some(Wake::Gone(reason)) => return reason,
                Some(Wake::Time) => return Reason::Deadline,
                _ if self.broken => return Reason::ReleasedByAnother,
                _ => {}
            }
        }
    }

    /// Thaws, then resumes; what is still freezing is not waited for.
    fn release(&mut self) {
        self.release_kind(|kind| matches!(kind, Kind::Freeze | Kind::Drain));
        self.inbox.tell(&Event::Step(Step::Thawed));
        self.release_kind(|kind| matches!(kind, Kind::Pause | Kind::Rescue));
        self.inbox.tell(&Event::Step(Step::Resumed));
    }

    fn release_kind(&mut self, which: fn(&Kind) -> bool) {
        for target in self.targets.iter().filter(|target| which(&target.kind)) {
            target.worker.order(Order::Release);
        }
        // one that has not answered its last order is inside a freeze, perhaps for long
        let open = |target: &Target| which(&target.kind) && target.outcome.is_none();
        let began = Instant::now();
        self.heed_while(began + SETTLE, |target| open(target));
        self.heed_while(began + THAW, |target| open(target) && !target.waiting);
    }

    fn heed_while(&mut self, deadline: Instant, open: impl Fn(&Target) -> bool) {
        while self.targets.iter().any(&open) {
            if matches!(self.heed(Some(deadline)), Some(Wake::Time)) {
                return;
            }
        }
    }

    fn order(&mut self, order: Order, which: impl Fn(&Kind) -> bool) {
        for target in self.targets.iter_mut().filter(|target| which(&target.kind)) {
            target.waiting = true;
            target.worker.order(order);
        }
    }

    /// Waits until every order has been answered.
    fn wait(&mut self, until: Instant) -> Result<(), Cut> {
        while self.targets.iter().any(|target| target.waiting) {
            match self.heed(Some(until)) {
                Some(Wake::Gone(reason)) => return Err(Cut::Gone(reason)),
                Some(Wake::Request(Request::Release)) => return Err(Cut::Gone(Reason::Asked)),
                Some(Wake::Time) => return Err(Cut::Late),
                _ => {}
            }
        }
        if self.failures.is_empty() { Ok(()) } else { Err(Cut::Failed(std::mem::take(&mut self.failures))) }
    }

    /// Takes note of the next thing that happens, and returns what is not about a target.
    fn heed(&mut self, until: Option<Instant>) -> Option<Wake> {
        let (number, done) = match self.inbox.next(until) {
            Wake::Worker(number, done) => (number, done),
            other => return Some(other),
        };
        let target = &mut self.targets[number];
        match done {
            Done::Broken => self.broken = true,
            Done::Released(outcome) => {
                target.waiting = false;
                target.outcome = Some(outcome);
                self.journal.note(number, Is::Done);
            }
            Done::Answered(answer) => {
                target.waiting = false;
                match answer {
                    Ok(Some(took)) if target.kind != Kind::Drain => {
                        target.standing = Some(took);
                        self.journal.note(number, Is::Ours);
                    }
                    Ok(_) => {}
                    Err(reason) => self.failures.push(Failure { name: target.name.clone(), reason }),
                }
            }
        }
        None
    }

    /// Says in `failures` why not everything was stopped.
    fn note_cut(&mut self, cut: Cut, stop: &Stop) -> Reason {
        match cut {
            Cut::Failed(failures) => self.failures = failures,
            Cut::Gone(reason) => {
                self.failures.push(Failure { name: "guard".to_owned(), reason: reason.to_string() });
                return reason;
            }
            Cut::Late => {
                let late = self.targets.iter().filter(|target| target.waiting);
                let failures =
                    late.map(|target| Failure { name: target.name.clone(), reason: late_reason(target, stop) });
                self.failures.extend(failures.collect::<Vec<_>>());
            }
        }
        Reason::NotStopped
    }

    fn stopped(&self) -> Vec<Stopped> {
        let standing = self.targets.iter().filter_map(|target| Some((target, target.standing?)));
        standing
            .map(|(target, took)| Stopped { name: target.name.clone(), kind: target.kind, stop_ms: milliseconds(took) })
            .collect()
    }

    fn report(&self, reason: Reason) -> Release {
        let targets: Vec<_> = self.targets.iter().filter(|target| target.counts()).map(Target::report).collect();
        let outcomes = || self.targets.iter().filter_map(|target| target.outcome.as_ref());
        let first = outcomes().filter_map(|outcome| outcome.began).min();
        let last = outcomes().filter(|outcome| outcome.began.is_some()).map(|outcome| outcome.ended).max();
        let window = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
        let held = targets.iter().all(|target| target.held == Held::Whole || target.kind == Kind::Drain);
        let whole = reason == Reason::Asked && held && !self.broken;
        Release { whole, reason, window_ms: milliseconds(window), targets }
    }
}
