//! One end of the socket pair between two processes.
//!
//! A message is a packet (`SOCK_SEQPACKET`): it arrives whole or not at all, and a listening socket
//! travels with the one that names it (`SCM_RIGHTS`). When a process ends, however it does, the other
//! finds the end of the stream.

use crate::flow::Peer;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::state::takeover::message::BYTES_MAX;
use crate::state::takeover::message::Message;
use crate::state::takeover::message::SELECTORS_BYTES_MAX;
use crate::state::takeover::message::selectors_bytes;
use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::ReturnFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::sockopt;
use rustix::net::sockopt::Timeout;
use std::collections::HashMap;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// What came.
#[derive(Debug)]
pub(super) enum Received {
    /// A message, and a listener if one came with it.
    Message(Message, Option<TcpListener>),
    /// Nothing, for as long as was waited.
    Nothing,
    /// The other process has ended.
    End,
}

/// One end, shared by who listens to it and who speaks.
#[derive(Debug)]
pub(super) struct Wire {
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
}

/// Purges that the other has not answered yet.
#[derive(Debug, Default)]
struct Waiting {
    answers: HashMap<u64, oneshot::Sender<bool>>,
    next: u64,
    ended: bool,
}

impl Wire {
    /// Makes a pair: this process's end, and the other's.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let pair = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (own, other) = pair?;
        Ok((Self::new(own)?, other))
    }

    /// Takes up an end that this process was given; an error when it is none.
    pub(super) fn of(socket: OwnedFd) -> io::Result<Self> {
        match sockopt::socket_type(&socket)? {
            SocketType::SEQPACKET => Self::new(socket),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    fn new(socket: OwnedFd) -> io::Result<Self> {
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(SEND_WAIT))?;
        Ok(Self {
            socket,
            waiting: Mutex::default(),
        })
    }

    /// Says something. Waits within bounds for the other to listen. Blocking.
    pub(super) fn say(&self, message: &Message) -> io::Result<()> {
        self.send(message, None, SendFlags::NOSIGNAL)
    }

    /// Sends a listener along. Blocking.
    pub(super) fn give(&self, message: &Message, listener: &TcpListener) -> io::Result<()> {
        self.send(message, Some(listener), SendFlags::NOSIGNAL)
    }

    fn send(
        &self,
        message: &Message,
        listener: Option<&TcpListener>,
        flags: SendFlags,
    ) -> io::Result<()> {
        let bytes = message.encode();
        let descriptors: Vec<_> = listener.iter().map(|listener| listener.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut beside, flags)?;
        Ok(())
    }

    /// Waits for what the other says, so long or without end. A message that is none is an error.
    /// Blocking.
    pub(super) fn receive(&self, wait: Option<Duration>) -> io::Result<Received> {
        let wait = wait.map(|wait| wait.max(Duration::from_millis(1)));
        sockopt::set_socket_timeout(&self.socket, Timeout::Recv, wait)?;
        let mut bytes = vec![0; BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        );
        let received = match received {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(error) => return Err(error.into()),
        };
        if received.bytes == 0 {
            return Ok(Received::End);
        }
        let mut listener = None;
        for beside in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = beside {
                listener = descriptors.last().map(TcpListener::from);
            }
        }
        bytes.truncate(received.bytes);
        let whole = !received.flags.contains(ReturnFlags::TRUNC);
        match Message::decode(&bytes).filter(|_| whole) {
            Some(message) => Ok(Received::Message(message, listener)),
            None => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// Listens on a thread of its own from now on: answers go to who waits for them, all else, and
    /// `None` at the end, to `each`.
    pub(super) fn listen(
        self: &Arc<Self>,
        mut each: impl FnMut(Option<Message>) + Send + 'static,
    ) -> io::Result<()> {
        let wire = Arc::clone(self);
        let thread = thread::Builder::new().name("larder-beside".to_owned());
        thread.spawn(move || {
            loop {
                match wire.receive(None) {
                    Ok(Received::Message(Message::Heard { number, holds }, _)) => {
                        let answer = wire.waiting().answers.remove(&number);
                        if answer.is_some_and(|answer| answer.send(holds).is_err()) {
                            tracing::debug!(number, "nobody waits for a purge any more");
                        }
                    }
                    Ok(Received::Message(message, _)) => each(Some(message)),
                    Ok(Received::Nothing) => {}
                    Ok(Received::End) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the other process is not understood");
                        break;
                    }
                }
            }
            {
                let mut waiting = wire.waiting();
                waiting.ended = true;
                waiting.answers.clear();
            }
            each(None);
        })?;
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer for Wire {
    fn tell(&self, mark: Mark, selectors: &[Selector]) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting();
            let too_long = selectors_bytes(selectors) > SELECTORS_BYTES_MAX;
            let full = waiting.answers.len() >= WAITING_MAX || too_long;
            if waiting.ended || full {
                return answered;
            }
            waiting.next = waiting.next.saturating_add(1);
            let number = waiting.next;
            waiting.answers.insert(number, answer);
            number
        };
        let purge = Message::Purge {
            number,
            soft: mark.soft,
            selectors: selectors.to_vec(),
        };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if let Err(error) = self.send(&purge, None, flags) {
            tracing::debug!(%error, "the other process could not be told of a purge");
            self.waiting().answers.remove(&number);
        }
        answered
    }
}

/// Another process that is alive listens sooner.
const SEND_WAIT: Duration = Duration::from_secs(10);
/// Purges that wait for an answer at the same time.
const WAITING_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::address::Sequence;
    use crate::rules::tag::TagKey;
    use std::net::TcpStream;
    use std::sync::mpsc;
    use std::time::SystemTime;

    fn mark() -> Mark {
        Mark::hard(Sequence(1), SystemTime::UNIX_EPOCH)
    }

    fn pair() -> (Arc<Wire>, Arc<Wire>) {
        let (own, other) = Wire::pair().unwrap();
        (Arc::new(own), Arc::new(Wire::of(other).unwrap()))
    }

    #[test]
    fn a_listener_arrives_with_the_message_that_names_it() {
        let (own, other) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        own.give(&Message::Listener(address), &listener).unwrap();
        own.say(&Message::Go).unwrap();
        drop(listener);
        let Received::Message(message, Some(listener)) = other.receive(None).unwrap() else {
            panic!("both arrive");
        };
        assert_eq!(message, Message::Listener(address));
        TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
        let Received::Message(Message::Go, None) = other.receive(None).unwrap() else {
            panic!("nothing comes with it");
        };
    }

    #[test]
    fn silence_and_the_end_are_told_apart() {
        let (own, other) = pair();
        let soon = Some(Duration::from_millis(1));
        assert!(matches!(own.receive(soon), Ok(Received::Nothing)));
        drop(other);
        assert!(matches!(own.receive(soon), Ok(Received::End)));
        assert!(own.say(&Message::Ready).is_err());
    }

    #[test]
    fn a_purge_is_answered_by_its_number_and_the_longest_arrives_whole() {
        let (own, other) = pair();
        own.listen(|_| {}).unwrap();
        let many = vec![Selector::Site(TagKey([7; 16])); SELECTORS_BYTES_MAX / 17];
        let (first, second) = (own.tell(mark(), &many), own.tell(mark(), &[Selector::All]));
        let mut numbers = Vec::new();
        for expected in [many.len(), 1] {
            let Received::Message(
                Message::Purge {
                    number, selectors, ..
                },
                _,
            ) = other.receive(None).unwrap()
            else {
                panic!("a purge");
            };
            assert_eq!(selectors.len(), expected);
            numbers.push(number);
        }
        for (number, holds) in [(numbers[1], true), (numbers[0], false)] {
            other.say(&Message::Heard { number, holds }).unwrap();
        }
        assert_eq!(first.blocking_recv(), Ok(false));
        assert_eq!(second.blocking_recv(), Ok(true));
    }

    #[test]
    fn who_waits_for_an_answer_is_told_when_the_other_ends() {
        let (own, other) = pair();
        let (end, ended) = mpsc::channel();
        own.listen(move |message| end.send(message).unwrap())
            .unwrap();
        let told = own.tell(mark(), &[Selector::All]);
        drop(other);
        assert_eq!(ended.recv().unwrap(), None);
        assert!(told.blocking_recv().is_err());
        assert!(own.tell(mark(), &[Selector::All]).blocking_recv().is_err());
    }

    #[test]
    fn purges_that_nobody_answers_are_bounded() {
        let (own, _other) = pair();
        let told: Vec<_> = (0..WAITING_MAX + 9)
            .map(|_| own.tell(mark(), &[]))
            .collect();
        assert!(own.waiting().answers.len() <= WAITING_MAX);
        assert_eq!(told.len(), WAITING_MAX + 9);
    }

    #[test]
    fn what_is_no_such_socket_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Wire::of(listener.into()).is_err());
        assert!(Wire::of(std::fs::File::open("/dev/null").unwrap().into()).is_err());
    }
}
