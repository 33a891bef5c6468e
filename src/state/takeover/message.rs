//! What two processes say to each other while one takes over from the other, and its bytes.
//!
//! One message is one packet: a byte that says which, and its fields, numbers little-endian. The giver
//! speaks first and names the version of all that follows, so a taker that knows more than one can
//! answer in the giver's.

use crate::rules::address::Sequence;
use crate::rules::invalidate::Selector;
use std::net::SocketAddr;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// From the giver, first: the version spoken, and how many listeners follow.
    Hello {
        /// See [`VERSION`].
        version: u32,
        /// How many [`Listener`](Self::Listener)s follow.
        listeners: u32,
    },
    /// From the giver, with a listening socket: the address of the config that it was bound for.
    Listener(SocketAddr),
    /// From the taker: everything is done that can be done without the stores.
    Prepared,
    /// From the giver: the stores are the taker's, and sequences go on from here.
    Yours(Sequence),
    /// From the taker: the stores are open, and it would serve if it were told to.
    Ready,
    /// From the giver: it accepts no more; the taker is to serve. From here there is no way back.
    Go,
    /// From the taker: it cannot take over, and why. It ends next.
    Failed(String),
    /// From either: a purge, which the other must heed.
    Purge {
        /// Names it in the answer.
        number: u64,
        /// What it covers is stale from now on; else it is gone.
        soft: bool,
        /// What it covers.
        selectors: Vec<Selector>,
    },
    /// From either: an answer to a purge.
    Heard {
        /// Which one.
        number: u64,
        /// It holds.
        holds: bool,
    },
}

impl Message {
    /// Its bytes; at most [`BYTES_MAX`] if its selectors take at most [`SELECTORS_BYTES_MAX`]. A reason is
    /// cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Hello { version, listeners } => {
                out.push(HELLO);
                out.extend(version.to_le_bytes());
                out.extend(listeners.to_le_bytes());
            }
            Self::Listener(address) => {
                out.push(LISTENER);
                out.extend(address.to_string().bytes());
            }
            Self::Prepared => out.push(PREPARED),
            Self::Yours(next) => {
                out.push(YOURS);
                out.extend(next.0.to_le_bytes());
            }
            Self::Ready => out.push(READY),
            Self::Go => out.push(GO),
            Self::Failed(reason) => {
                out.push(FAILED);
                out.extend(reason.bytes().take(REASON_BYTES_MAX));
            }
            Self::Purge {
                number,
                soft,
                selectors,
            } => {
                out.push(PURGE);
                out.extend(number.to_le_bytes());
                out.push(u8::from(*soft));
                selectors
                    .iter()
                    .for_each(|selector| selector.write(&mut out));
            }
            Self::Heard { number, holds } => {
                out.push(HEARD);
                out.extend(number.to_le_bytes());
                out.push(u8::from(*holds));
            }
        }
        out
    }

    /// Reads one; `None` for what is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let message = match *kind {
            HELLO => {
                let (version, rest) = rest.split_first_chunk()?;
                Self::Hello {
                    version: u32::from_le_bytes(*version),
                    listeners: u32::from_le_bytes(rest.try_into().ok()?),
                }
            }
            LISTENER => Self::Listener(std::str::from_utf8(rest).ok()?.parse().ok()?),
            PREPARED if rest.is_empty() => Self::Prepared,
            YOURS => Self::Yours(Sequence(u64::from_le_bytes(rest.try_into().ok()?))),
            READY if rest.is_empty() => Self::Ready,
            GO if rest.is_empty() => Self::Go,
            FAILED => Self::Failed(String::from_utf8_lossy(rest).into_owned()),
            PURGE => decode_purge(rest)?,
            HEARD => {
                let (number, rest) = rest.split_first_chunk()?;
                Self::Heard {
                    number: u64::from_le_bytes(*number),
                    holds: match rest {
                        [0] => false,
                        [1] => true,
                        _ => return None,
                    },
                }
            }
            _ => return None,
        };
        Some(message)
    }
}

/// How many bytes some selectors take in a message.
pub fn selectors_bytes(selectors: &[Selector]) -> usize {
    let mut out = Vec::new();
    selectors
        .iter()
        .for_each(|selector| selector.write(&mut out));
    out.len()
}

fn decode_purge(bytes: &[u8]) -> Option<Message> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (soft, mut rest) = rest.split_first()?;
    let mut selectors = Vec::new();
    while !rest.is_empty() {
        selectors.push(Selector::read(&mut rest)?);
    }
    Some(Message::Purge {
        number: u64::from_le_bytes(*number),
        soft: match soft {
            0 => false,
            1 => true,
            _ => return None,
        },
        selectors,
    })
}

/// The version spoken here.
pub const VERSION: u32 = 2;
/// The longest packet.
pub const BYTES_MAX: usize = 128 << 10;
/// Most bytes of selectors in one purge; five keys of each of a thousand URLs take fewer.
pub const SELECTORS_BYTES_MAX: usize = 120_000;
const REASON_BYTES_MAX: usize = 4096;

const HELLO: u8 = 1;
const LISTENER: u8 = 2;
const PREPARED: u8 = 3;
const YOURS: u8 = 4;
const READY: u8 = 5;
const GO: u8 = 6;
const FAILED: u8 = 7;
const PURGE: u8 = 8;
const HEARD: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::invalidate::Pattern;
    use crate::rules::key::PrimaryKey;
    use crate::rules::tag::TagKey;
    use proptest::prelude::*;

    fn selectors() -> impl Strategy<Value = Vec<Selector>> {
        let selector = prop_oneof![
            Just(Selector::All),
            any::<([u8; 16], Option<[u8; 16]>)>()
                .prop_map(|(tag, site)| Selector::Tag(site.map(TagKey), TagKey(tag))),
            any::<[u8; 16]>().prop_map(|site| Selector::Site(TagKey(site))),
            "[a-z]{1,9}/[!-~]{0,40}".prop_filter_map("a prefix", |text| Selector::prefix(&text)),
            "[a-z]{1,9}.*".prop_filter_map("a pattern", |text| {
                Some(Selector::Regex(None, Pattern::new(&text).ok()?))
            }),
            any::<[u8; 16]>().prop_map(|key| Selector::Url(PrimaryKey(key))),
        ];
        prop::collection::vec(selector, 0..9)
    }

    fn messages() -> impl Strategy<Value = Message> {
        prop_oneof![
            any::<(u32, u32)>()
                .prop_map(|(version, listeners)| Message::Hello { version, listeners }),
            any::<(std::net::Ipv4Addr, u16)>().prop_map(|at| Message::Listener(at.into())),
            any::<([u16; 8], u16)>().prop_map(|(ip, port)| Message::Listener((ip, port).into())),
            Just(Message::Prepared),
            any::<u64>().prop_map(|next| Message::Yours(Sequence(next))),
            Just(Message::Ready),
            Just(Message::Go),
            ".{0,40}".prop_map(Message::Failed),
            (any::<u64>(), any::<bool>(), selectors()).prop_map(|(number, soft, selectors)| {
                Message::Purge {
                    number,
                    soft,
                    selectors,
                }
            }),
            any::<(u64, bool)>().prop_map(|(number, holds)| Message::Heard { number, holds }),
        ]
    }

    proptest! {
        #[test]
        fn every_message_comes_back_as_it_was(message in messages()) {
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(message) = Message::decode(&bytes) {
                prop_assert!(message.encode().len() <= bytes.len().max(64) * 3);
            }
        }

        #[test]
        fn what_is_cut_short_is_no_purge_of_more(cut in 1_usize..16) {
            let whole = Message::Purge {
                number: 1,
                soft: false,
                selectors: vec![Selector::Url(PrimaryKey([7; 16]))],
            };
            let bytes = whole.encode();
            prop_assert_eq!(Message::decode(&bytes[..bytes.len() - cut]), None);
        }
    }

    #[test]
    fn the_longest_purge_and_the_longest_reason_fit_into_a_packet() {
        let purge = Message::Purge {
            number: u64::MAX,
            soft: true,
            selectors: vec![Selector::Url(PrimaryKey([1; 16])); SELECTORS_BYTES_MAX / 17],
        };
        assert!(purge.encode().len() <= BYTES_MAX);
        let failed = Message::Failed("x".repeat(2 * BYTES_MAX));
        assert!(failed.encode().len() <= BYTES_MAX);
    }
}
