//! Nanoseconds of what every hit does: `cargo bench --bench micro`.
#![expect(missing_docs, reason = "criterion's macros make public items")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first fault")]

use bytes::Bytes;
use criterion::BatchSize;
use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::Version;
use larder::flow::Report;
use larder::flow::Stats;
use larder::ops::metrics::Certificates;
use larder::ops::metrics::Metrics;
use larder::ops::metrics::exposition::Form;
use larder::rules::address::Digest;
use larder::rules::address::Location;
use larder::rules::address::PackId;
use larder::rules::address::Parts;
use larder::rules::address::Put;
use larder::rules::address::Sequence;
use larder::rules::cache_status::Outcome;
use larder::rules::directives::ResponseDirectives;
use larder::rules::key::KeyPolicy;
use larder::rules::key::PrimaryKey;
use larder::rules::key::VariantKey;
use larder::rules::request::NormalRequest;
use larder::rules::request::Params;
use larder::rules::request::Scheme;
use larder::state::curve::Told;
use larder::state::eviction::Queues;
use larder::state::index::Index;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

fn request() -> http::request::Parts {
    let request = Request::get("/blog/2026/a-post?page=2")
        .header("host", "www.example.com")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64)")
        .header("accept", "text/html,*/*;q=0.8")
        .header("accept-encoding", "gzip, br")
        .body(());
    request.unwrap().into_parts().0
}

fn bounds() -> Params {
    Params {
        body_bytes_max: 1 << 20,
        target_bytes_max: 8192,
    }
}

fn key_of(number: u32) -> PrimaryKey {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
    PrimaryKey(key)
}

fn put(number: u32) -> Put {
    let at = |offset| Location {
        pack: PackId(number / 3000),
        offset,
        bytes: 1024,
    };
    let digest = Digest::of(&number.to_le_bytes());
    Put {
        sequence: Sequence(u64::from(number) + 1),
        key: key_of(number),
        variant: VariantKey::ONLY,
        vary: Vec::new(),
        head: at(0),
        body: digest.name(),
        parts: Parts::One(at(1024)),
        useless_at: u64::from(u32::MAX),
    }
}

fn rules(c: &mut Criterion) {
    let parts = request();
    c.bench_function("normalise a request", |b| {
        let normalise = |parts| NormalRequest::new(parts, Scheme::Http, &bounds());
        b.iter_batched(|| parts.clone(), normalise, BatchSize::SmallInput);
    });
    let normal = NormalRequest::new(parts, Scheme::Http, &bounds()).unwrap();
    let policy = KeyPolicy::default();
    c.bench_function("primary key", |b| {
        b.iter(|| PrimaryKey::new("www.example.com", black_box(&normal), &policy));
    });
    let mut headers = HeaderMap::new();
    headers.insert("cache-control", "public, max-age=3600".parse().unwrap());
    c.bench_function("response directives", |b| {
        b.iter(|| ResponseDirectives::read(black_box(&headers)));
    });
    let body = Bytes::from(vec![7; 1024]);
    c.bench_function("digest of 1 KB", |b| {
        b.iter(|| Digest::of(black_box(&body)))
    });
}

fn state(c: &mut Criterion) {
    let mut index = Index::new();
    for number in 0..100_000 {
        index.insert(&put(number)).unwrap();
    }
    let headers = HeaderMap::new();
    let mut number = 0;
    c.bench_function("look up one of 100,000", |b| {
        b.iter(|| {
            number = (number + 7919) % 100_000;
            index.lookup([key_of(number)], &headers)
        });
    });
    let mut next = 100_000;
    c.bench_function("insert and evict", |b| {
        b.iter(|| {
            next += 1;
            index.insert(&put(next)).unwrap();
            let room = index.live_bytes() - 1;
            index.evict(room, u32::MAX)
        });
    });
    let mut queues = Queues::default();
    for id in 0..100_000 {
        queues.insert(id, 1024, u64::from(id));
    }
    c.bench_function("choose a victim", |b| {
        b.iter(|| {
            let id = queues.victim(u64::from).unwrap();
            queues.insert(id, 1024, u64::from(id));
        });
    });
}

/// A hit at one of so many sites.
fn hit(site: usize) -> Report {
    Report {
        client: ([192, 0, 2, 7], 4711).into(),
        at: SystemTime::UNIX_EPOCH,
        head_after: Duration::from_micros(20),
        took: Duration::from_micros(30),
        method: Method::GET,
        uri: Uri::from_static("/a"),
        version: Version::HTTP_11,
        host: None,
        referer: None,
        user_agent: None,
        cipher: None,
        trace: None,
        site: Some(Arc::from(format!("www{site}.example.com"))),
        key: None,
        status: StatusCode::OK,
        body_bytes: 1024,
        complete: true,
        outcome: Outcome {
            hit: true,
            ttl: Some(59),
            ..Outcome::default()
        },
        refusal: None,
        error: None,
        backend: None,
    }
}

/// What counting a request costs the thread that serves it, alone and while others count too; and
/// what a scrape costs.
fn metrics(c: &mut Criterion) {
    let sites: Vec<Report> = (0..100).map(hit).collect();
    let metrics = Arc::new(Metrics::default());
    let mut reports = sites.iter().cycle();
    let mut count = |metrics: &Metrics| metrics.count(black_box(reports.next().unwrap()));
    c.bench_function("count a hit at one of 100 sites", |b| {
        b.iter(|| count(&metrics));
    });
    let over = Arc::new(AtomicBool::new(false));
    let (beside, end) = (Arc::clone(&metrics), Arc::clone(&over));
    let other = thread::spawn(move || {
        let report = hit(0);
        while !end.load(Ordering::Relaxed) {
            beside.count(black_box(&report));
        }
    });
    c.bench_function("count a hit while another thread does", |b| {
        b.iter(|| count(&metrics));
    });
    over.store(true, Ordering::Relaxed);
    other.join().unwrap();
    let (stats, certificates) = (Stats::default(), Certificates::default());
    let curve = Told::default();
    c.bench_function("scrape 100 sites", |b| {
        b.iter(|| metrics.expose(Form::Text, &stats, &certificates, &curve));
    });
}

criterion_group!(benches, rules, state, metrics);
criterion_main!(benches);
