//! kill -9 while the store fills at full speed, again and again.
//!
//! `LARDER_KILL_CYCLES` says how often (6 by default), `LARDER_KILL_SEED` when.

use std::env;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::client::Ended;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

const FILLERS: usize = 3;
/// An object that was stored this long before a kill must survive it.
const DURABLE: Duration = Duration::from_secs(1);

fn number(name: &str, default: u64) -> u64 {
    let given = env::var(name).ok();
    given.map_or(default, |given| given.parse().expect("a number"))
}

/// The body of `/n`: mostly small, a few of several packs.
fn body(n: u64) -> Vec<u8> {
    let bytes = match n % 200 {
        0 => 5_000_000,
        1..=4 => 300_000,
        other => usize::try_from(500 + other * 30).expect("a small number"),
    };
    noise(n, bytes)
}

/// Asks for one new target after the other until the connection ends; notes when each was stored.
fn fill(scene: &Scene, next: &AtomicU64, stored: &Mutex<Vec<(u64, Instant)>>) {
    let mut client = scene.connect();
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        client.get(&format!("/{n}"));
        let Some(reading) = client.try_begin("GET") else {
            return;
        };
        let answer = reading.finish();
        if answer.ended != Ended::Whole {
            return;
        }
        assert_eq!(answer.body, body(n), "/{n} as it was fetched");
        if answer.cache_status("stored").is_some() {
            stored.lock().unwrap().push((n, Instant::now()));
        }
    }
}

/// Asks again for what was stored; returns how many had to be hits, and which of them were not.
fn missing(scene: &Scene, stored: &[(u64, Instant)], killed: Instant) -> (usize, Vec<u64>) {
    let due = |at: Instant| killed.saturating_duration_since(at) > DURABLE;
    let mut client = scene.connect();
    let mut missing = Vec::new();
    let mut owed = 0;
    for (n, at) in stored {
        let answer = client.get(&format!("/{n}")).answer("GET");
        answer.is(200);
        assert_eq!(answer.body, body(*n), "/{n} after the kill");
        if due(*at) {
            owed += 1;
            if answer.cache_status("hit").is_none() {
                missing.push(*n);
            }
        }
    }
    (owed, missing)
}

/// One fill, kill, start and look; returns how many objects had to be hits.
fn cycle(scene: &mut Scene, next: &AtomicU64, wait: Duration) -> usize {
    let stored = Mutex::new(Vec::new());
    let pid = scene.pid().to_string();
    let killed = thread::scope(|scope| {
        for _ in 0..FILLERS {
            scope.spawn(|| fill(scene, next, &stored));
        }
        thread::sleep(wait); // waits because nothing tells: the moment is to be any
        let killed = Instant::now();
        let sent = Command::new("kill").args(["-9", &pid]).status();
        assert!(sent.expect("a kill").success());
        killed
    });
    scene.kill9_and_start();
    let mut stored = stored.into_inner().unwrap();
    stored.sort_unstable();
    let (owed, missing) = missing(scene, &stored, killed);
    assert_eq!(missing, Vec::<u64>::new(), "{} of {owed}", missing.len());
    owed
}

#[test]
fn what_was_stored_a_second_before_a_kill_is_a_hit_after_it() {
    let cycles = number("LARDER_KILL_CYCLES", 6);
    let mut chance = number("LARDER_KILL_SEED", 4711);
    let mut scene = Scene::usual();
    scene.origin.does("*", |request| {
        let n = request.target.trim_start_matches('/').parse();
        Reply::ok(body(n.unwrap_or_default())).fresh()
    });
    let next = AtomicU64::new(0);
    let mut owed = 0;
    for _ in 0..cycles {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let wait = Duration::from_millis(1050 + (chance >> 33) % 700);
        owed += cycle(&mut scene, &next, wait);
        // Room for the next; and what is purged must not be back after the next kill.
        scene.purge_all();
        let purged = next.load(Ordering::Relaxed) / 2;
        scene.kill9_and_start();
        scene.get(&format!("/{purged}")).by("uri-miss");
        scene.purge_all();
    }
    assert_eq!(scene.stat("store.corrupt"), 0, "a kill corrupts nothing");
    assert!(owed > 0, "nothing was stored for long enough");
    println!("{cycles} kills, {owed} objects stored a second before one: all hits");
}
