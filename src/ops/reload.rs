//! Having the config read again: who asks, and what is told of it.
//!
//! Whoever asks waits in a short line; one after the other is served. What a reload does is the
//! business of whoever serves the line.

use serde::Deserialize;
use serde::Serialize;
use std::convert::Infallible;
use std::fmt;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvError;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;
use tokio::sync::oneshot;

/// What came of a reload: what has changed, or every reason why nothing has.
pub type Reloaded = Result<Changes, Vec<String>>;

/// What is not as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Changes {
    /// Sites, by the first of their hosts.
    pub sites: Change,
    /// Upstreams, by their names.
    pub upstreams: Change,
    /// Certificates, by their files; changed are those whose files have changed.
    pub certificates: Change,
    /// Keys of what was there before, with their paths.
    pub keys: Vec<String>,
}

/// What has become of the things of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Change {
    /// They are new.
    pub added: Vec<String>,
    /// They are still there, and otherwise than before.
    pub changed: Vec<String>,
    /// They are gone.
    pub removed: Vec<String>,
}

impl Change {
    /// Everything, with a sign in front: `+` new, `~` changed, `-` gone.
    fn signed(&self) -> impl Iterator<Item = String> {
        let sign = |sign: char, names: &[String]| {
            let names = names.iter().map(|name| format!("{sign}{name}"));
            names.collect::<Vec<_>>()
        };
        let all = [
            sign('+', &self.added),
            sign('~', &self.changed),
            sign('-', &self.removed),
        ];
        all.into_iter().flatten()
    }
}

impl fmt::Display for Changes {
    /// Writes a line a kind, for people; none for a kind of which nothing has changed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("sites", self.sites.signed().collect()),
            ("upstreams", self.upstreams.signed().collect()),
            ("certificates", self.certificates.signed().collect()),
            ("keys", self.keys.clone()),
        ];
        let told: Vec<String> = kinds
            .into_iter()
            .filter(|(_, names): &(_, Vec<String>)| !names.is_empty())
            .map(|(kind, names)| format!("{kind}: {}", names.join(", ")))
            .collect();
        match told.is_empty() {
            true => f.write_str("nothing has changed"),
            false => f.write_str(&told.join("\n")),
        }
    }
}

/// What is asked of whoever serves the line.
#[derive(Debug)]
pub enum Order {
    /// Read the config again, and say what came of it.
    Reload(oneshot::Sender<Reloaded>),
    /// Change nothing for as long as this is kept.
    Pause(oneshot::Sender<Pause>),
    /// There will be no more.
    End,
}

/// While this is kept nothing is changed.
#[derive(Debug)]
pub struct Pause(#[expect(dead_code, reason = "to be dropped")] SyncSender<Infallible>);

impl Pause {
    /// A pause, and where its end is waited for.
    pub fn begin() -> (Self, PauseEnd) {
        let (kept, end) = sync_channel(0);
        (Self(kept), PauseEnd(end))
    }
}

/// Where the end of a pause is waited for.
#[derive(Debug)]
pub struct PauseEnd(Receiver<Infallible>);

impl PauseEnd {
    /// Waits until the pause is dropped. Blocking.
    pub fn wait(self) {
        // Nothing is ever sent.
        let Err(RecvError) = self.0.recv();
    }
}

/// The end of the line where one asks.
#[derive(Clone, Debug)]
pub struct Reloads(SyncSender<Order>);

impl Reloads {
    /// A line, and its other end.
    pub fn line() -> (Self, Receiver<Order>) {
        let (orders, line) = sync_channel(ORDERS_MAX);
        (Self(orders), line)
    }

    /// Asks for a reload. None when too many have asked, or nobody serves the line any more. Whoever
    /// does not want to hear of it drops what this returns.
    pub fn ask(&self) -> Option<oneshot::Receiver<Reloaded>> {
        let (tell, told) = oneshot::channel();
        self.0.try_send(Order::Reload(tell)).ok()?;
        Some(told)
    }

    /// Asks for a pause, which begins when what was asked for before is done. None as for
    /// [`ask`](Self::ask). Dropping what this returns ends it.
    pub fn pause(&self) -> Option<oneshot::Receiver<Pause>> {
        let (tell, told) = oneshot::channel();
        self.0.try_send(Order::Pause(tell)).ok()?;
        Some(told)
    }

    /// Says that there will be no more. Waits while the line is full.
    pub fn end(&self) {
        // Nobody is there to be told when this fails.
        drop(self.0.send(Order::End));
    }
}

/// How many may wait.
const ORDERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::TryRecvError;

    #[test]
    fn the_line_is_short_and_whoever_finds_it_full_is_told_so() {
        let (reloads, line) = Reloads::line();
        let waiting: Vec<_> = (0..ORDERS_MAX).map(|_| reloads.ask().unwrap()).collect();
        assert!(reloads.ask().is_none());
        assert!(matches!(line.recv(), Ok(Order::Reload(_))));
        assert!(reloads.ask().is_some());
        drop(line);
        assert!(reloads.ask().is_none());
        drop(waiting);
    }

    #[test]
    fn a_pause_stands_in_line_and_lasts_while_it_is_kept() {
        let (reloads, line) = Reloads::line();
        let told = reloads.pause().unwrap();
        let Ok(Order::Pause(tell)) = line.recv() else {
            panic!("a pause was asked for");
        };
        let (pause, end) = Pause::begin();
        tell.send(pause).unwrap();
        let kept = told.blocking_recv().unwrap();
        assert_eq!(end.0.try_recv(), Err(TryRecvError::Empty));
        drop(kept);
        end.wait();
    }

    #[test]
    fn people_are_told_in_a_line_a_kind() {
        assert_eq!(Changes::default().to_string(), "nothing has changed");
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let changes = Changes {
            sites: Change {
                added: names(&["b.test"]),
                changed: names(&["a.test"]),
                removed: names(&["c.test", "d.test"]),
            },
            keys: names(&["log.level"]),
            ..Changes::default()
        };
        assert_eq!(
            changes.to_string(),
            "sites: +b.test, ~a.test, -c.test, -d.test\nkeys: log.level"
        );
    }
}
