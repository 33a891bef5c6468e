//! The body of an admin response: whole, or told piece by piece while it is heard.
//!
//! A teller runs on a thread that may block. It waits when it is more than a piece ahead of the
//! connection, and ends when nobody listens any more.

use super::inventory;
use super::inventory::Question;
use super::inventory::Said;
use super::inventory::Topic;
use super::inventory::Untold;
use crate::flow::Catalog;
use bytes::Bytes;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::Full;
use serde_json::json;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use tokio::sync::mpsc;

/// The body of an admin response.
#[derive(Debug)]
pub enum Answer {
    /// All of it.
    Whole(Full<Bytes>),
    /// What a teller says.
    Told(mpsc::Receiver<Bytes>),
}

/// The other end of an answer that is told.
#[derive(Debug)]
pub(super) struct Telling {
    heard: mpsc::Sender<Bytes>,
    /// Short lines wait for each other.
    lines: Vec<u8>,
}

impl Telling {
    /// A teller, and what it says.
    pub(super) fn new() -> (Self, Answer) {
        let (heard, told) = mpsc::channel(1);
        let telling = Self {
            heard,
            lines: Vec::new(),
        };
        (telling, Answer::Told(told))
    }

    /// Tells what is asked, to the end or until nobody listens. Blocking.
    pub(super) fn run(mut self, catalog: &Catalog, topic: Topic, question: &Question) {
        // Who verifies has little to say and much to do.
        let wait_for = if topic == Topic::Verify { 0 } else { LINES };
        let told = inventory::tell(catalog, topic, question, &mut |said| {
            self.say(&said, wait_for)
        });
        match told {
            Ok(()) | Err(Untold::Unheard) => {}
            Err(error) => {
                let failed = match &error {
                    Untold::Store(error) => inventory::explain(error),
                    Untold::BadKey(_) | Untold::TooMany | Untold::Unheard => error.to_string(),
                };
                tracing::warn!(error = failed, "the store could not be told to its end");
                self.say(&Said::Line(json!({"failed": failed})), 0);
            }
        }
        self.flush();
    }

    /// Says it, unless it is short and may wait; `false` when nobody listens.
    fn say(&mut self, said: &Said, wait_for: usize) -> bool {
        said.write(&mut self.lines);
        self.lines.len() < wait_for || self.flush()
    }

    fn flush(&mut self) -> bool {
        let lines = std::mem::take(&mut self.lines);
        lines.is_empty() || self.heard.blocking_send(lines.into()).is_ok()
    }
}

impl Answer {
    /// Nothing.
    pub(super) fn empty() -> Self {
        Self::Whole(Full::default())
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::Whole(Full::from(text))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Told(told) => told
                .poll_recv(cx)
                .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Told(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Told(_) => SizeHint::default(),
        }
    }
}

/// Lines are sent together when they have so many bytes.
const LINES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn told(answer: Answer) -> mpsc::Receiver<Bytes> {
        match answer {
            Answer::Told(told) => told,
            Answer::Whole(_) => panic!("it is whole"),
        }
    }

    #[test]
    fn a_teller_is_at_most_a_piece_ahead_and_ends_when_nobody_listens() {
        let (mut telling, answer) = Telling::new();
        let mut told = told(answer);
        let piece = Said::Bytes("abc".into());
        assert!(telling.say(&piece, 0));
        let waiting = thread::spawn(move || (telling.say(&piece, 0), telling));
        assert!(!waiting.is_finished(), "there is room for one");
        assert_eq!(told.blocking_recv().unwrap(), "{\"bytes\":3}\nabc");
        let (heard, mut telling) = waiting.join().unwrap();
        assert!(heard);
        drop(told);
        assert!(!telling.say(&Said::Line(json!({})), 0));
    }

    #[test]
    fn short_lines_travel_together() {
        let (mut telling, answer) = Telling::new();
        let mut told = told(answer);
        for n in 0..2 {
            assert!(telling.say(&Said::Line(json!({"n": n})), LINES));
        }
        assert!(told.try_recv().is_err());
        telling.flush();
        assert_eq!(told.blocking_recv().unwrap(), "{\"n\":0}\n{\"n\":1}\n");
    }
}
