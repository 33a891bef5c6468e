//! How well the index chooses what goes: hit ratios on traces of real sites.
//!
//! `cargo bench --bench eviction -- DIR` replays the traces of a folder (xz-compressed, see its
//! README) with room for 1, 5, 10 and 20 % of their footprint, and prints the ratios of objects and
//! of bytes; then what a scan of ten times the room costs a hot set. A second argument names a file
//! of lines that `benches/eviction.py` wrote, for the same table with other algorithms.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at the first fault"
)]

use http::HeaderMap;
use larder::rules::address::Digest;
use larder::rules::address::Location;
use larder::rules::address::PackId;
use larder::rules::address::Parts;
use larder::rules::address::Put;
use larder::rules::address::SEGMENT_BYTES_MAX;
use larder::rules::address::Segment;
use larder::rules::address::Sequence;
use larder::rules::key::PrimaryKey;
use larder::rules::key::VariantKey;
use larder::rules::tag::Signature;
use larder::state::eviction::Favour;
use larder::state::eviction::Params;
use larder::state::index::Index;
use larder::state::index::Lookup;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const PERCENTS: [u64; 4] = [1, 5, 10, 20];

/// Target and bytes of each request.
type Trace = Vec<(u64, u64)>;

/// Rows of the table: trace, then algorithm to ratios of objects and bytes.
type Table = BTreeMap<String, BTreeMap<String, Vec<(f64, f64)>>>;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let dir = words
        .first()
        .map_or("../shared/traces", |word| word.as_str());
    let mut table = words
        .get(1)
        .map_or_else(Table::new, |path| others(Path::new(path)));
    for (name, trace) in traces(Path::new(dir)) {
        for (who, favour) in [
            ("Larder, bytes", Favour::Bytes),
            ("Larder, objects", Favour::Objects),
        ] {
            let ratios = PERCENTS
                .iter()
                .map(|percent| ratios(favour, &trace, footprint(&trace) * percent / 100));
            let row = table.entry(name.clone()).or_default();
            row.insert(who.to_owned(), ratios.collect());
        }
    }
    print(&table);
    for favour in [Favour::Bytes, Favour::Objects] {
        scan(favour);
    }
}

/// One index with room for so many bytes.
struct Cache {
    index: Index,
    room: u64,
    sequence: u64,
}

impl Cache {
    fn new(favour: Favour, room: u64) -> Self {
        let mut index = Index::new();
        index.choose_by(Params {
            favour,
            second_request_over: room / 10,
        });
        Self {
            index,
            room,
            sequence: 0,
        }
    }

    /// Asks for a target, stores it when it is missing, and makes room; was it there?
    fn ask(&mut self, target: u64, bytes: u64) -> bool {
        let digest = Digest::of(&target.to_le_bytes());
        let key = PrimaryKey(*digest.0.first_chunk().unwrap());
        if matches!(
            self.index.lookup([key], &HeaderMap::new()),
            Lookup::Found(_)
        ) {
            return true;
        }
        if bytes > self.room || !self.index.admit(key, bytes) {
            return false;
        }
        self.sequence += 1;
        let part = |bytes| Location {
            pack: PackId(1),
            offset: 0,
            bytes,
        };
        let most = u64::try_from(SEGMENT_BYTES_MAX).unwrap();
        let mut segments = Vec::new();
        let mut left = bytes;
        while left > 0 {
            let location = part(u32::try_from(left.min(most)).unwrap());
            left -= left.min(most);
            segments.push(Segment { digest, location });
        }
        let put = Put {
            sequence: Sequence(self.sequence),
            key,
            variant: VariantKey::ONLY,
            vary: Vec::new(),
            head: part(0),
            body: digest.name(),
            parts: Parts::of(digest, segments),
            signature: Signature::default(),
            useless_at: u64::MAX,
        };
        self.index.insert(&put).unwrap();
        let (_gone, more) = self.index.evict(self.room, u32::MAX);
        assert!(!more);
        false
    }
}

fn ratios(favour: Favour, trace: &Trace, room: u64) -> (f64, f64) {
    let mut cache = Cache::new(favour, room.max(1));
    let (mut hits, mut hit_bytes, mut all_bytes) = (0, 0, 0);
    for (target, bytes) in trace {
        all_bytes += bytes;
        if cache.ask(*target, *bytes) {
            hits += 1;
            hit_bytes += bytes;
        }
    }
    (share(hits, trace.len() as u64), share(hit_bytes, all_bytes))
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all as f64
}

fn footprint(trace: &Trace) -> u64 {
    let mut first = HashMap::new();
    for (target, bytes) in trace {
        first.entry(target).or_insert(*bytes);
    }
    first.values().sum()
}

/// A hot set, asked for in turns of different lengths, then a scan of ten times the room, then the
/// hot set again.
fn scan(favour: Favour) {
    let size = |target: u64| 1000 + target * 7919 % 64_000;
    for percent in [50, 80] {
        let hot = 0..3000;
        let room = hot.clone().map(size).sum::<u64>() * 100 / percent;
        let mut cache = Cache::new(favour, room);
        for turn in 0..16 {
            for target in hot.clone().filter(|target| turn % (1 + target % 5) == 0) {
                cache.ask(target, size(target));
            }
        }
        let before = hot.clone().filter(|t| cache.ask(*t, size(*t))).count();
        let mut scanned = 0;
        for target in 1_000_000.. {
            cache.ask(target, size(target));
            scanned += size(target);
            if scanned > room * 10 {
                break;
            }
        }
        let after = hot.clone().filter(|t| cache.ask(*t, size(*t))).count();
        println!(
            "{favour:?}: hot set of {percent} % of the room: {:.3} hits before a scan of ten times \
             the room, {:.3} after",
            share(before as u64, 3000),
            share(after as u64, 3000)
        );
    }
}

fn print(table: &Table) {
    println!(
        "objects/bytes at{:12}1 %         5 %        10 %        20 %        mean",
        ""
    );
    let mut means: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for (trace, rows) in table {
        for (who, ratios) in rows {
            line(trace, who, ratios);
            means.entry(who).or_default().extend(ratios);
        }
    }
    for (who, ratios) in means {
        line("mean", who, &[mean(&ratios)]);
    }
}

fn line(trace: &str, who: &str, ratios: &[(f64, f64)]) {
    let cells: Vec<String> = ratios
        .iter()
        .chain((ratios.len() > 1).then_some(&mean(ratios)))
        .map(|(objects, bytes)| format!("{objects:.3}/{bytes:.3}"))
        .collect();
    println!("{trace:13}{who:16}{}", cells.join(" "));
}

fn mean(ratios: &[(f64, f64)]) -> (f64, f64) {
    let sum = ratios
        .iter()
        .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    let count = ratios.len() as f64;
    (sum.0 / count, sum.1 / count)
}

/// Lines of trace, algorithm and ratios, with tabs between.
fn others(path: &Path) -> Table {
    let mut table = Table::new();
    for text in fs::read_to_string(path).unwrap().lines() {
        let mut words = text.split('\t');
        let trace = words.next().unwrap().to_owned();
        let who = words.next().unwrap().to_owned();
        let ratios = words.map(|pair| {
            let (objects, bytes) = pair.split_once('/').unwrap();
            (objects.parse().unwrap(), bytes.parse().unwrap())
        });
        let row = ratios.collect();
        table.entry(trace).or_default().insert(who, row);
    }
    table
}

fn traces(dir: &Path) -> Vec<(String, Trace)> {
    let plain = |file: &str| {
        let output = Command::new("xz").arg("-dc").arg(dir.join(file)).output();
        output.unwrap().stdout
    };
    let text = |file: &str| String::from_utf8_lossy(&plain(file)).into_owned();
    let ids = |file: &str| -> Trace {
        let plain = plain(file);
        let (ids, _) = plain.as_chunks::<4>();
        ids.iter()
            .map(|id| (u64::from(u32::from_be_bytes(*id)), 1))
            .collect()
    };
    vec![
        ("adaptsize".to_owned(), timed(&text("adaptsize.trace.xz"))),
        (
            "semicomplete".to_owned(),
            logged(&text("semicomplete_access.log.xz")),
        ),
        ("web07".to_owned(), ids("web07.trace.xz")),
        ("web12".to_owned(), ids("web12.trace.xz")),
    ]
}

/// Lines of time, target and bytes.
fn timed(text: &str) -> Trace {
    let number = |word: Option<&str>| word.unwrap().parse().unwrap();
    text.lines()
        .map(|line| {
            let mut words = line.split(' ').skip(1);
            (number(words.next()), number(words.next()))
        })
        .collect()
}

/// An access log: GETs that were answered with all, a part, or "not modified". A target is as long
/// as its longest whole answer.
fn logged(text: &str) -> Trace {
    let mut targets = Vec::new();
    let mut longest: HashMap<&str, u64> = HashMap::new();
    for line in text.lines() {
        let mut quoted = line.split('"').skip(1);
        let request = quoted.next().unwrap_or_default();
        let mut answer = quoted.next().unwrap_or_default().split_whitespace();
        let Some(rest) = request.strip_prefix("GET ") else {
            continue;
        };
        let target = rest.split(' ').next().unwrap_or_default();
        let status = answer.next().unwrap_or_default();
        if !["200", "206", "304"].contains(&status) {
            continue;
        }
        targets.push(target);
        if status == "200" {
            let bytes = answer.next().unwrap_or_default().parse().unwrap_or(0);
            let held = longest.entry(target).or_default();
            *held = bytes.max(*held);
        }
    }
    let mut numbers = HashMap::new();
    let mut trace = Trace::new();
    for target in targets {
        if let Some(bytes) = longest.get(target) {
            let next = numbers.len() as u64;
            trace.push((*numbers.entry(target).or_insert(next), (*bytes).max(1)));
        }
    }
    trace
}
