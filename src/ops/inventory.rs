//! What a store holds, told piece by piece: the same of a stopped store and of a running one.
//!
//! ```text
//! stat                                                                   {"end": {"entries": 6, …}}
//! list     {"all": 6} {"key": …, "status": 200, …} …                     {"end": {"next": 1024}}
//! export   {"all": 6} {"key": …, "headers": …} {"bytes": 3}abc {"whole": true} … {"end": {"next": null}}
//! verify   {"done": 3, "all": 8} {"key": …, "error": …} {"pack": 7, "error": …}  {"end": {"sound": …}}
//! ```
//!
//! From a [`Catalog`] and a [`Question`]; who hears it is left to the caller. At most one page of the
//! index, one head and one part of a body are in memory at a time. What ends without its end was cut.

use crate::clock;
use crate::flow::Catalog;
use crate::flow::Finding;
use crate::flow::Held;
use crate::flow::StoreError;
use crate::rules::address::PackId;
use crate::rules::address::Put;
use crate::rules::freshness::Freshness;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::stored::StoredResponse;
use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use std::error::Error;
use std::io;
use std::io::BufRead;
use std::io::Read;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// What can be asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Every response, with head and body.
    Export,
    /// Every response in a line.
    List,
    /// Sizes and counts.
    Stat,
    /// What is damaged.
    Verify,
}

/// What is asked in particular; the names are an interface.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// Which store is meant, by its identity; none for whichever there is.
    pub store: Option<String>,
    /// Where to go on: what `next` said.
    pub from: u32,
    /// Only responses under these keys; none for all.
    pub keys: Vec<String>,
    /// How much a verification reads a second; none for as much as it can.
    pub bytes_per_second: Option<u64>,
}

/// One piece of what is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A JSON object.
    Line(Value),
    /// A part of a body, at most [`BYTES_MAX`] long.
    Bytes(Bytes),
    /// The last piece.
    End(Value),
}

/// Why not everything was told.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    /// A key that none can be.
    #[error("not a key: {0}")]
    BadKey(String),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many keys.
    #[error("at most {KEYS_MAX} keys at once")]
    TooMany,
    /// Who listened has gone.
    #[error("nobody listens any more")]
    Unheard,
}

/// Tells what is asked to `hear`, until that returns `false`. Blocking.
pub fn tell(
    catalog: &Catalog,
    topic: Topic,
    question: &Question,
    hear: &mut dyn FnMut(Said) -> bool,
) -> Result<(), Untold> {
    let mut teller = Teller {
        catalog,
        hear,
        now: clock::now(),
    };
    match topic {
        Topic::Export => teller.export(question),
        Topic::List => teller.list(question),
        Topic::Stat => teller.stat(),
        Topic::Verify => teller.verify(question.bytes_per_second),
    }
}

impl Question {
    /// The keys it names, each with one variant or all of them.
    pub fn selected(&self) -> Result<Vec<(PrimaryKey, Option<VariantKey>)>, Untold> {
        if self.keys.len() > KEYS_MAX {
            return Err(Untold::TooMany);
        }
        let read = |text: &String| read_key(text).ok_or_else(|| Untold::BadKey(text.clone()));
        self.keys.iter().map(read).collect()
    }
}

impl Said {
    /// Writes it as it travels: a line, and the bytes it announces.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Line(line) => out.extend(format!("{line}\n").as_bytes()),
            Self::Bytes(bytes) => {
                out.extend(format!("{}\n", json!({"bytes": bytes.len()})).as_bytes());
                out.extend_from_slice(bytes);
            }
            Self::End(end) => out.extend(format!("{}\n", json!({"end": end})).as_bytes()),
        }
    }

    /// Reads what [`write`](Self::write) wrote. Fails with `UnexpectedEof` where it was cut, and
    /// with `InvalidData` for anything else.
    pub fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        from.by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") && u64::try_from(line.len()).unwrap_or_default() < LINE_BYTES_MAX
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let odd = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason);
        let line: Value = serde_json::from_slice(&line).map_err(|_| odd("not a line of JSON"))?;
        if !line.is_object() {
            return Err(odd("not a JSON object"));
        }
        if let Some(end) = line.get("end") {
            return Ok(Self::End(end.clone()));
        }
        let Some(bytes) = line.get("bytes") else {
            return Ok(Self::Line(line));
        };
        let bytes = bytes.as_u64().and_then(|n| usize::try_from(n).ok());
        let bytes = bytes.filter(|bytes| *bytes <= BYTES_MAX);
        let mut part = vec![0; bytes.ok_or_else(|| odd("too many bytes at once"))?];
        from.read_exact(&mut part)?;
        Ok(Self::Bytes(part.into()))
    }
}

/// Says what an error says, and what the system said.
pub fn explain(error: &StoreError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

struct Teller<'t> {
    catalog: &'t Catalog,
    hear: &'t mut dyn FnMut(Said) -> bool,
    now: SystemTime,
}

impl Teller<'_> {
    fn say(&mut self, said: Said) -> Result<(), Untold> {
        match (self.hear)(said) {
            true => Ok(()),
            false => Err(Untold::Unheard),
        }
    }

    fn line(&mut self, line: Value) -> Result<(), Untold> {
        self.say(Said::Line(line))
    }

    fn stat(&mut self) -> Result<(), Untold> {
        let catalog = self.catalog;
        let holdings = catalog.holdings()?;
        let packs = &holdings.packs;
        self.say(Said::End(json!({
            "entries": catalog.entries(),
            "bodies": catalog.bodies(),
            "live_bytes": catalog.live_bytes(),
            "packs": packs.len(),
            "pack_bytes": packs.iter().map(|(_, bytes, _)| bytes).sum::<u64>(),
            "pack_bytes_allocated": packs.iter().map(|(_, _, taken)| taken).sum::<u64>(),
            "packs_missing": holdings.missing.len(),
            "journal_bytes": holdings.journal_bytes,
            "journal_damaged": holdings.damaged,
        })))
    }

    fn list(&mut self, question: &Question) -> Result<(), Untold> {
        self.page(question, &mut |teller, held| match held.head() {
            Ok(None) => Ok(()),
            Ok(Some(response)) => teller.line(described(held.put(), &response, teller.now)),
            Err(error) => teller.damaged(held.put(), error),
        })
    }

    fn export(&mut self, question: &Question) -> Result<(), Untold> {
        self.page(question, &mut |teller, held| {
            let response = match held.head() {
                Ok(None) => return Ok(()),
                Ok(Some(response)) => response,
                Err(error) => return teller.damaged(held.put(), error),
            };
            let fields = response.headers.iter();
            let fields = fields.map(|(name, value)| {
                json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
            });
            let mut said = described(held.put(), &response, teller.now);
            if let Some(said) = said.as_object_mut() {
                said.insert("headers".to_owned(), fields.collect());
            }
            teller.line(said)?;
            for part in held.parts(&response) {
                match part {
                    Ok(bytes) => teller.say(Said::Bytes(bytes))?,
                    Err(error) => return teller.damaged(held.put(), error),
                }
            }
            teller.line(json!({"whole": true}))
        })
    }

    /// Meets the responses of some pages, or those that were asked for, and says where to go on.
    fn page(
        &mut self,
        question: &Question,
        meet: &mut dyn FnMut(&mut Self, &Held<'_>) -> Result<(), Untold>,
    ) -> Result<(), Untold> {
        let catalog = self.catalog;
        if !question.keys.is_empty() {
            return self.named(question, meet);
        }
        self.line(json!({"all": catalog.entries()}))?;
        let (mut from, mut met) = (Some(question.from), 0_usize);
        while let Some(place) = from.filter(|_| met < PAGE) {
            let (puts, next) = catalog.page(place);
            met = met.saturating_add(puts.len());
            from = next;
            for held in puts.iter().filter_map(|put| catalog.hold(put)) {
                meet(self, &held)?;
            }
        }
        self.say(Said::End(json!({"next": from})))
    }

    fn named(
        &mut self,
        question: &Question,
        meet: &mut dyn FnMut(&mut Self, &Held<'_>) -> Result<(), Untold>,
    ) -> Result<(), Untold> {
        let catalog = self.catalog;
        for ((key, variant), name) in question.selected()?.into_iter().zip(&question.keys) {
            let mut puts = catalog.variants(key);
            puts.retain(|put| variant.is_none_or(|variant| put.variant == variant));
            if puts.is_empty() {
                self.line(json!({"absent": name}))?;
            }
            for held in puts.iter().filter_map(|put| catalog.hold(put)) {
                meet(self, &held)?;
            }
        }
        self.say(Said::End(json!({"next": null})))
    }

    /// Names a response that cannot be read. An error that says nothing of its bytes is the end.
    fn damaged(&mut self, put: &Put, error: StoreError) -> Result<(), Untold> {
        if error.may_pass() {
            return Err(error.into());
        }
        let (key, variant) = (hex(&put.key.0), format!("{:016x}", put.variant.0));
        self.line(json!({"key": key, "variant": variant, "error": explain(&error)}))
    }

    /// Responses first, so that those are named that a damaged pack takes with it.
    fn verify(&mut self, bytes_per_second: Option<u64>) -> Result<(), Untold> {
        let holdings = self.catalog.holdings()?;
        let (packs, missing) = (holdings.packs.len(), holdings.missing.len());
        let mut round = Round {
            pace: Pace::new(bytes_per_second, clock::instant()),
            told: clock::instant(),
            done: 0,
            all: packs
                .saturating_add(missing)
                .saturating_add(self.catalog.entries()),
        };
        let (entries, entries_damaged) = self.verify_entries(&mut round)?;
        let named = holdings
            .packs
            .iter()
            .map(|(pack, bytes, _)| (*pack, *bytes));
        let named = named.chain(holdings.missing.iter().map(|pack| (*pack, 0)));
        let (mut packs_damaged, mut packs_missing) = (0_u64, 0_u64);
        for (pack, bytes) in named {
            match self.verify_pack(pack)? {
                Verdict::Sound => {}
                Verdict::Damaged => packs_damaged = packs_damaged.saturating_add(1),
                Verdict::Missing => packs_missing = packs_missing.saturating_add(1),
            }
            round.done = round.done.saturating_add(1);
            self.rest(&mut round, bytes)?;
        }
        let sound = entries_damaged == 0
            && packs_damaged == 0
            && packs_missing == 0
            && holdings.damaged == 0;
        self.say(Said::End(json!({
            "sound": sound,
            "packs": packs,
            "packs_damaged": packs_damaged,
            "packs_missing": packs_missing,
            "entries": entries,
            "entries_damaged": entries_damaged,
            "journal_damaged": holdings.damaged,
        })))
    }

    /// Reads and checks every response; returns how many there were, and how many are damaged.
    fn verify_entries(&mut self, round: &mut Round) -> Result<(u64, u64), Untold> {
        let catalog = self.catalog;
        let (mut met, mut damaged) = (0_u64, 0_u64);
        let mut from = Some(0);
        while let Some(place) = from {
            let (puts, next) = catalog.page(place);
            from = next;
            for held in puts.iter().filter_map(|put| catalog.hold(put)) {
                met = met.saturating_add(1);
                round.done = round.done.saturating_add(1);
                if let Err(error) = self.verify_entry(&held, round)? {
                    damaged = damaged.saturating_add(1);
                    self.damaged(held.put(), error)?;
                }
            }
        }
        Ok((met, damaged))
    }

    fn verify_entry(
        &mut self,
        held: &Held<'_>,
        round: &mut Round,
    ) -> Result<Result<(), StoreError>, Untold> {
        self.rest(round, held.put().head.bytes.into())?;
        let head = match held.head() {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        for part in held.parts(&head) {
            match part {
                Ok(bytes) => self.rest(round, bytes.len().try_into().unwrap_or(u64::MAX))?,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    fn verify_pack(&mut self, pack: PackId) -> Result<Verdict, Untold> {
        let (verdict, reason) = match self.catalog.check(pack) {
            Finding::Intact | Finding::Dropped => return Ok(Verdict::Sound),
            Finding::Damaged => (Verdict::Damaged, "it is not as it was written".to_owned()),
            Finding::Missing => (Verdict::Missing, "it is not there, or not whole".to_owned()),
            Finding::Unread(error) if error.may_pass() => return Err(error.into()),
            Finding::Unread(error) => (Verdict::Damaged, explain(&error)),
        };
        self.line(json!({"pack": pack.0, "error": reason}))?;
        Ok(verdict)
    }

    /// Waits until so many more bytes may be read, and says now and then how far it has come.
    fn rest(&mut self, round: &mut Round, bytes: u64) -> Result<(), Untold> {
        round.pace.spend(bytes, clock::instant());
        loop {
            let now = clock::instant();
            if now.saturating_duration_since(round.told) >= TELL_EVERY {
                round.told = now;
                self.line(json!({"done": round.done, "all": round.all}))?;
            }
            let wait = round.pace.wait(now);
            if wait.is_zero() {
                return Ok(());
            }
            thread::sleep(wait.min(TELL_EVERY));
        }
    }
}

enum Verdict {
    Sound,
    Damaged,
    Missing,
}

/// A verification under way.
struct Round {
    pace: Pace,
    /// When it last said how far it has come.
    told: Instant,
    done: usize,
    all: usize,
}

/// Bounds how much is read a second. What was not read in time is not made up for.
#[derive(Debug)]
struct Pace {
    bytes_per_second: Option<u64>,
    until: Instant,
}

impl Pace {
    fn new(bytes_per_second: Option<u64>, now: Instant) -> Self {
        Self {
            bytes_per_second,
            until: now,
        }
    }

    /// Takes what has been read into account.
    fn spend(&mut self, bytes: u64, now: Instant) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        let nanos = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(rate.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.until.max(now);
        self.until = from.checked_add(cost).unwrap_or(from);
    }

    /// How long to read nothing.
    fn wait(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

fn described(put: &Put, response: &StoredResponse, now: SystemTime) -> Value {
    let (fresh, seconds) = match response.freshness(now) {
        Freshness::Fresh { ttl } => (true, ttl.as_secs()),
        Freshness::Stale { by } => (false, by.as_secs()),
    };
    json!({
        "key": hex(&put.key.0),
        "variant": format!("{:016x}", put.variant.0),
        "sequence": put.sequence.0,
        "url": &*response.names.url,
        "status": response.status.as_u16(),
        "body_bytes": response.body_bytes,
        "fresh": fresh,
        "seconds": seconds,
        "vary": put.vary.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "segments": put.parts.locations().count(),
    })
}

/// Reads `KEY` or `KEY-VARIANT`, as lists and the names of exported files have them.
fn read_key(text: &str) -> Option<(PrimaryKey, Option<VariantKey>)> {
    let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (key, variant) = match text.split_once('-') {
        Some((key, variant)) => (key, Some(variant)),
        None => (text, None),
    };
    if key.len() != 32 || !hexadecimal(key) {
        return None;
    }
    let key = u128::from_str_radix(key, 16).ok()?.to_be_bytes();
    let variant = match variant {
        None => None,
        Some(variant) if variant.len() == 16 && hexadecimal(variant) => {
            Some(VariantKey(u64::from_str_radix(variant, 16).ok()?))
        }
        Some(_) => return None,
    };
    Some((PrimaryKey(key), variant))
}

/// Bytes as lists and the names of exported files have them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The longest part of a body.
pub const BYTES_MAX: usize = crate::rules::address::SEGMENT_BYTES_MAX;
/// Most keys in one question.
pub const KEYS_MAX: usize = 1000;
/// A head fits into a pack of 4 MiB; JSON makes of it at most four times as much.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Responses in one answer, and a page of the index.
const PAGE: usize = 1000;
const TELL_EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> io::Result<Said> {
        Said::read(&mut bytes)
    }

    #[test]
    fn what_is_written_is_read_again_piece_by_piece() {
        let pieces = [
            Said::Line(json!({"all": 2})),
            Said::Line(json!({"key": "ab", "vary": ["accept"], "body_bytes": 3})),
            Said::Bytes("a\nc".into()),
            Said::Bytes(Bytes::new()),
            Said::End(json!({"next": null})),
        ];
        let mut travels = Vec::new();
        for piece in &pieces {
            piece.write(&mut travels);
        }
        let mut rest = travels.as_slice();
        for piece in &pieces {
            assert_eq!(Said::read(&mut rest).unwrap(), *piece);
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_was_cut_is_not_taken_for_whole() {
        let mut whole = Vec::new();
        Said::Bytes("abc".into()).write(&mut whole);
        for end in 0..whole.len() {
            let error = read(&whole[..end]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
    }

    #[test]
    fn what_is_no_piece_is_refused() {
        let more = format!("{{\"bytes\":{}}}\n", BYTES_MAX + 1);
        for odd in ["\n", "7\n", "[]\n", "{]\n", "{\"bytes\":-1}\n", &more] {
            let error = read(odd.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{odd}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_read_no_further_than_the_longest() {
        struct Endless(u64);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(b' ');
                self.0 += u64::try_from(buffer.len()).unwrap();
                Ok(buffer.len())
            }
        }
        let mut endless = io::BufReader::new(Endless(0));
        let error = Said::read(&mut endless).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(endless.get_ref().0 < LINE_BYTES_MAX + (1 << 20));
    }

    #[test]
    fn a_key_is_read_as_lists_print_it() {
        let text = "000102030405060708090a0b0c0d0e0f";
        let key = PrimaryKey([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(hex(&key.0), text);
        assert_eq!(read_key(text), Some((key, None)));
        let with = format!("{text}-00000000000000ff");
        assert_eq!(read_key(&with), Some((key, Some(VariantKey(255)))));
        for bad in [
            "",
            "-",
            "0",
            &text[1..],
            &format!("{text}-"),
            &format!("+{}", &text[1..]),
        ] {
            assert_eq!(read_key(bad), None, "{bad}");
        }
        assert_eq!(read_key(&format!("{text}-+0000000000000ff")), None);
    }

    #[test]
    fn only_so_many_keys_are_looked_for_at_once() {
        let of = |keys: Vec<String>| Question {
            keys,
            ..Question::default()
        };
        let key = || hex(&[7; 16]);
        assert_eq!(
            of(vec![key(); KEYS_MAX]).selected().unwrap().len(),
            KEYS_MAX
        );
        let many = of(vec![key(); KEYS_MAX + 1]).selected();
        assert!(matches!(many, Err(Untold::TooMany)));
        let bad = of(vec![key(), "x".to_owned()]).selected();
        assert_eq!(bad.unwrap_err().to_string(), "not a key: x");
    }

    #[test]
    fn a_pace_waits_for_what_was_read_and_makes_up_for_nothing() {
        let start = clock::instant();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(Some(1_000), start);
        pace.spend(500, start);
        assert_eq!(pace.wait(start), Duration::from_millis(500));
        pace.spend(500, at(100));
        assert_eq!(pace.wait(at(100)), Duration::from_millis(900));
        // A disk that was slow is not read the faster later.
        pace.spend(1_000, at(9_000));
        assert_eq!(pace.wait(at(9_000)), Duration::from_millis(1_000));
        let mut none = Pace::new(None, start);
        none.spend(u64::MAX, start);
        assert_eq!(none.wait(start), Duration::ZERO);
        let mut least = Pace::new(Some(0), start);
        least.spend(u64::MAX, start);
        assert!(least.wait(start) > Duration::from_secs(1));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_makes_the_reader_panic(bytes: Vec<u8>) {
            let _unused = read(&bytes);
        }

        #[test]
        fn no_name_makes_the_reader_of_keys_panic(text: String) {
            let _unused = read_key(&text);
        }
    }
}
