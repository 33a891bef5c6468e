//! How one process takes over from another: who does what next, and what ends it.
//!
//! ```text
//! giver    Starting ─prepared─► Lending ─lent─► Opening ─ready─► Gone: accepts no more, drains
//!             │                    │               │
//!             └────────────────────┴───────────────┴─ failed, ended, late, told to end ─► GiveUp
//!
//! taker    Preparing ─prepared─► Waiting ─yours─► Opening ─opened─► Holding ─go─► Serving
//!                                   └─ the giver has ended ─► as a start of its own
//! ```
//!
//! Until the giver has said `Go` it can take everything back, and nothing that the taker did has been
//! seen by a client; from then on it never does. Inputs are what was heard, what a step came to and
//! how long it has taken; whoever owns a machine does what it says. How messages travel, and what a step is,
//! is left to `cli/takeover`.

pub mod message;

use self::message::Message;
use self::message::VERSION;
use crate::rules::address::Sequence;
use std::time::Duration;

/// The process that runs, and is asked to hand over.
#[derive(Debug)]
pub struct Giver {
    state: Giving,
    wait: Duration,
    until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Giving {
    Starting,
    Lending,
    Opening,
    Gone,
    GivenUp,
}

/// What happens to a giver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GiverEvent {
    /// The taker said something.
    Heard(Message),
    /// The stores are lent, or why they cannot be.
    Lent(Result<Sequence, String>),
    /// The taker has ended.
    Ended,
    /// Time went by.
    Tick,
    /// This process is told to end.
    Stop,
}

/// What a giver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GiverAction {
    /// Nothing: it waits.
    Wait,
    /// Lends the stores, and says how that went.
    Lend,
    /// Tells the taker.
    Say(Message),
    /// Accepts no more, tells the taker to serve, and drains.
    HandOver,
    /// Heeds a purge and answers it.
    Heed(Message),
    /// Ends the taker, takes the stores back if they were lent, and goes on as before.
    GiveUp {
        /// The stores were lent, or may be.
        take_back: bool,
        /// Why.
        reason: String,
    },
    /// The taker has ended after it took over: there is nobody to tell of purges.
    BeAlone,
}

impl Giver {
    /// Has just started the taker. Each step of the taker's may take so long.
    pub fn new(wait: Duration) -> Self {
        Self {
            state: Giving::Starting,
            wait,
            until: wait,
        }
    }

    /// When, counted from the start, to tell it that time went by; `None` when nothing is waited for.
    pub fn deadline(&self) -> Option<Duration> {
        let waits = matches!(self.state, Giving::Starting | Giving::Opening);
        waits.then_some(self.until)
    }

    /// Takes an event, so long after the start; says what follows.
    pub fn on(&mut self, event: GiverEvent, now: Duration) -> GiverAction {
        match (self.state, event) {
            (Giving::GivenUp, _) => GiverAction::Wait,
            (Giving::Gone, event) => match event {
                GiverEvent::Heard(purge @ Message::Purge { .. }) => GiverAction::Heed(purge),
                GiverEvent::Ended => GiverAction::BeAlone,
                GiverEvent::Heard(_)
                | GiverEvent::Lent(_)
                | GiverEvent::Tick
                | GiverEvent::Stop => GiverAction::Wait,
            },
            (Giving::Starting, GiverEvent::Heard(Message::Prepared)) => {
                self.state = Giving::Lending;
                GiverAction::Lend
            }
            (Giving::Lending, GiverEvent::Lent(Ok(next))) => {
                self.state = Giving::Opening;
                self.until = now.saturating_add(self.wait);
                GiverAction::Say(Message::Yours(next))
            }
            // Nothing is lent then.
            (Giving::Lending, GiverEvent::Lent(Err(reason))) => {
                self.state = Giving::GivenUp;
                let take_back = false;
                GiverAction::GiveUp { take_back, reason }
            }
            (Giving::Opening, GiverEvent::Heard(Message::Ready)) => {
                self.state = Giving::Gone;
                GiverAction::HandOver
            }
            (_, GiverEvent::Tick) if now < self.until || self.state == Giving::Lending => {
                GiverAction::Wait
            }
            (_, event) => self.give_up(match event {
                GiverEvent::Heard(Message::Failed(reason)) => reason,
                GiverEvent::Heard(_) | GiverEvent::Lent(_) => "it is out of step".to_owned(),
                GiverEvent::Ended => "it has ended".to_owned(),
                GiverEvent::Tick => "it takes too long".to_owned(),
                GiverEvent::Stop => "this process was told to end".to_owned(),
            }),
        }
    }

    fn give_up(&mut self, reason: String) -> GiverAction {
        let take_back = matches!(self.state, Giving::Lending | Giving::Opening);
        self.state = Giving::GivenUp;
        GiverAction::GiveUp { take_back, reason }
    }
}

/// The process that was started to take over.
#[derive(Debug)]
pub struct Taker {
    state: Taking,
    wait: Duration,
    until: Duration,
    /// The giver has ended.
    alone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    Greeting,
    Listeners(u32),
    Preparing,
    Waiting,
    Opening,
    Holding,
    Serving,
    Failed,
}

/// What happens to a taker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakerEvent {
    /// The giver said something.
    Heard(Message),
    /// Config, certificates and listeners are good.
    Prepared,
    /// The stores are open.
    Opened,
    /// The giver has ended.
    Ended,
    /// Time went by.
    Tick,
}

/// What a taker does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakerAction {
    /// Nothing: it waits.
    Wait,
    /// Prepares everything but the stores, and says when it has; all listeners are here.
    Prepare,
    /// Tells the giver.
    Say(Message),
    /// Opens the stores, and says when they are; sequences go on from here, if the giver said so.
    Open(Option<Sequence>),
    /// Heeds a purge and answers it.
    Heed(Message),
    /// Serves.
    Serve,
    /// The giver has ended: there is nobody to tell of purges.
    BeAlone,
    /// Ends, and says why.
    Fail(&'static str),
}

impl Taker {
    /// Has just been started. Each step of the giver's may take so long.
    pub fn new(wait: Duration) -> Self {
        Self {
            state: Taking::Greeting,
            wait,
            until: wait,
            alone: false,
        }
    }

    /// When, counted from the start, to tell it that time went by; `None` when nothing is waited for.
    pub fn deadline(&self) -> Option<Duration> {
        let busy = matches!(
            self.state,
            Taking::Preparing | Taking::Opening | Taking::Serving | Taking::Failed
        );
        (!busy).then_some(self.until)
    }

    /// Takes an event, so long after the start; says what follows.
    pub fn on(&mut self, event: TakerEvent, now: Duration) -> TakerAction {
        let (next, action) = match (self.state, event) {
            (state, TakerEvent::Ended) => return self.giver_ended(state),
            (state, TakerEvent::Tick) if now < self.until => (state, TakerAction::Wait),
            (Taking::Greeting, TakerEvent::Heard(Message::Hello { version, listeners })) => {
                match (version == VERSION, listeners) {
                    (false, _) => (
                        Taking::Failed,
                        TakerAction::Fail("it speaks another version"),
                    ),
                    (true, 0) => (Taking::Preparing, TakerAction::Prepare),
                    (true, some) => (Taking::Listeners(some), TakerAction::Wait),
                }
            }
            (Taking::Listeners(left), TakerEvent::Heard(Message::Listener(_))) => match left {
                0 | 1 => (Taking::Preparing, TakerAction::Prepare),
                more => (Taking::Listeners(more.saturating_sub(1)), TakerAction::Wait),
            },
            (Taking::Preparing, TakerEvent::Prepared) if self.alone => {
                (Taking::Opening, TakerAction::Open(None))
            }
            (Taking::Preparing, TakerEvent::Prepared) => {
                (Taking::Waiting, TakerAction::Say(Message::Prepared))
            }
            (Taking::Waiting, TakerEvent::Heard(Message::Yours(next))) => {
                (Taking::Opening, TakerAction::Open(Some(next)))
            }
            (Taking::Opening, TakerEvent::Opened) if self.alone => {
                (Taking::Serving, TakerAction::Serve)
            }
            (Taking::Opening, TakerEvent::Opened) => {
                (Taking::Holding, TakerAction::Say(Message::Ready))
            }
            (Taking::Holding, TakerEvent::Heard(Message::Go)) => {
                (Taking::Serving, TakerAction::Serve)
            }
            (state, TakerEvent::Heard(purge @ Message::Purge { .. }))
                if matches!(state, Taking::Opening | Taking::Holding | Taking::Serving) =>
            {
                (state, TakerAction::Heed(purge))
            }
            (state @ (Taking::Serving | Taking::Failed), _) => (state, TakerAction::Wait),
            (state, TakerEvent::Tick) if self.deadline().is_none() => (state, TakerAction::Wait),
            (_, TakerEvent::Tick) => (Taking::Failed, TakerAction::Fail("it takes too long")),
            (_, TakerEvent::Heard(_) | TakerEvent::Prepared | TakerEvent::Opened) => {
                (Taking::Failed, TakerAction::Fail("it is out of step"))
            }
        };
        if next != self.state {
            self.until = now.saturating_add(self.wait);
        }
        self.state = next;
        action
    }

    /// Without a giver it goes on by itself: a kill has freed the stores, and whatever of the
    /// listeners did not come is bound.
    fn giver_ended(&mut self, state: Taking) -> TakerAction {
        if std::mem::replace(&mut self.alone, true) {
            return TakerAction::Wait;
        }
        let (next, action) = match state {
            Taking::Greeting | Taking::Listeners(_) => (Taking::Preparing, TakerAction::Prepare),
            Taking::Waiting => (Taking::Opening, TakerAction::Open(None)),
            Taking::Holding => (Taking::Serving, TakerAction::Serve),
            Taking::Serving => (state, TakerAction::BeAlone),
            Taking::Preparing | Taking::Opening | Taking::Failed => (state, TakerAction::Wait),
        };
        self.state = next;
        action
    }
}

#[cfg(test)]
mod tests;
