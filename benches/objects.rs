//! What a stored object costs: bytes on disk, bytes in memory, time to store and to open again.
//!
//! `cargo bench --bench objects` stores 100,000 responses of 1 KB with the memory tier off, and
//! prints the figures. `cargo bench --bench objects -- 1000000` takes another number.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at the first fault"
)]

use bytes::Bytes;
use larder::clock;
use larder::flow::shelf::Shelf;
use larder::rules::address::Digest;
use larder::rules::freshness::Timing;
use larder::rules::key::PrimaryKey;
use larder::rules::key::VariantKey;
use larder::rules::stored::StaleWindow;
use larder::rules::stored::StoredResponse;
use larder::store::Params;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn main() {
    let objects = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let objects: u64 = objects.unwrap_or(100_000);
    let dir = tempfile::tempdir().unwrap();
    let params = Params {
        dir: dir.path().join("store"),
        disk_bytes_max: 64 << 30,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let empty = resident();
    let shelf = Shelf::open(&params, 0, 128 << 20).unwrap();
    let start = clock::instant();
    let mut head_bytes = 0;
    runtime.block_on(async {
        for number in 0..objects {
            let body = body_of(number);
            let response = response(number, &body);
            head_bytes += larder::store::head::encode(shelf.next_sequence(), &response).len();
            let sequence = shelf.next_sequence();
            let kept = shelf.keep(sequence, Arc::new(response), body).await;
            assert!(kept.is_ok(), "object {number} was not kept: {kept:?}");
        }
    });
    shelf.close();
    let stored = clock::instant().duration_since(start);
    let full = resident();
    let disk = allocated(&params.dir);
    drop(shelf);
    let start = clock::instant();
    let shelf = Shelf::open(&params, 0, 128 << 20).unwrap();
    let opened = clock::instant().duration_since(start);
    assert_eq!(shelf.entries() as u64, objects);
    let per_object = |bytes: u64| bytes / objects;
    println!("objects               {objects}");
    println!(
        "body + head           {} bytes",
        1024 + head_bytes as u64 / objects
    );
    println!("on disk               {} bytes an object", per_object(disk));
    println!(
        "resident              {} bytes an object",
        per_object(full.saturating_sub(empty))
    );
    println!(
        "stored in             {:.2} s ({:.0} objects/s)",
        stored.as_secs_f64(),
        objects as f64 / stored.as_secs_f64()
    );
    println!("opened again in       {:.3} s", opened.as_secs_f64());
    println!("files                 {}", files(&params.dir));
    shelf.close();
}

fn body_of(number: u64) -> Bytes {
    let mut body = vec![0; 1024];
    blake3::Hasher::new()
        .update(&number.to_le_bytes())
        .finalize_xof()
        .fill(&mut body);
    Bytes::from(body)
}

fn response(number: u64, body: &Bytes) -> StoredResponse {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
    let now = clock::now();
    let fields = [
        ("content-type", "application/octet-stream"),
        ("cache-control", "public, max-age=86400"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("etag", "\"0123456789abcdef\""),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("server", "origin"),
        ("vary", ""),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
        ("x-request-id", "0123456789"),
    ];
    StoredResponse {
        key: PrimaryKey(key),
        variant: VariantKey::ONLY,
        vary: Vec::new(),
        tags: Vec::new(),
        status: http::StatusCode::OK,
        headers: fields
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect(),
        timing: Timing {
            request_time: now,
            response_time: now,
            date_value: now,
            age_value: Duration::ZERO,
        },
        lifetime: Duration::from_secs(86_400),
        stale: StaleWindow::default(),
        validate_always: false,
        must_revalidate: false,
        validators: None,
        body_bytes: 1024,
        body: Digest::of(body),
        part: None,
    }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn allocated(dir: &Path) -> u64 {
    walk(dir)
        .map(|path| fs::metadata(path).unwrap().blocks() * 512)
        .sum()
}

fn files(dir: &Path) -> usize {
    walk(dir).filter(|path| path.is_file()).count()
}

fn walk(dir: &Path) -> Box<dyn Iterator<Item = std::path::PathBuf>> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    Box::new(entries.flat_map(|path| -> Box<dyn Iterator<Item = _>> {
        let below = if path.is_dir() {
            walk(&path)
        } else {
            Box::new(std::iter::empty())
        };
        Box::new(std::iter::once(path).chain(below))
    }))
}
