//! Ten times the store's limit, in mixed sizes: nothing fails, nothing is too much.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::client::Ended;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

const MIB: u64 = 1024 * 1024;
const LIMIT: u64 = 32 * MIB;
/// Larger than anything this store may keep.
const LARGE: u64 = u64::MAX;
const CLIENTS: u64 = 4;
/// How often the store is measured while it is filled.
const SAMPLE: Duration = Duration::from_millis(5);

/// What the origin has: objects of 1 KB to 8 MB, the smaller the more, a few asked for most often;
/// and one of 64 MB.
struct Catalogue {
    noise: Vec<u8>,
    /// Sums of how likely each is asked for: by Zipf.
    popularity: Vec<f64>,
    /// Sums of how likely each size is, by doublings of 1 KB.
    sizes: Vec<f64>,
}

impl Catalogue {
    fn new(objects: usize) -> Self {
        let sums = |of: &mut dyn Iterator<Item = f64>| {
            let add = |sum: &mut f64, more| {
                *sum += more;
                Some(*sum)
            };
            of.scan(0.0, add).collect()
        };
        Self {
            noise: noise(1, 4 << 20),
            popularity: sums(&mut (1..=objects).map(|rank| (rank as f64).powf(-0.9))),
            sizes: sums(&mut (0..14).map(|doublings| (-0.5 * f64::from(doublings)).exp2())),
        }
    }

    fn pick(&self, request: u64) -> u64 {
        drawn(&self.popularity, request) as u64
    }

    fn body(&self, object: u64) -> Vec<u8> {
        let bytes = match object {
            LARGE => 64 << 20,
            // A few bytes off the power of two, so that nothing fits by chance.
            _ => {
                (1024 << drawn(&self.sizes, object ^ 0x00ff_0000))
                    - usize::from(object.to_le_bytes()[0])
            }
        };
        let mut body = object.to_le_bytes().to_vec();
        while body.len() < bytes {
            let more = (bytes - body.len()).min(self.noise.len());
            body.extend_from_slice(&self.noise[..more]);
        }
        body
    }
}

/// A place drawn by chance, as likely as the steps of these sums say.
fn drawn(sums: &[f64], seed: u64) -> usize {
    let bits = u64::from_le_bytes(noise(seed + 1, 64)[56..].try_into().unwrap());
    let point = (bits >> 11) as f64 / (1_u64 << 53) as f64 * sums.last().unwrap();
    sums.partition_point(|sum| *sum <= point)
        .min(sums.len() - 1)
}

/// What `du -s -B1` counts: the blocks of every file and folder, the first one included.
fn allocated(folder: &Path) -> u64 {
    let own = fs::metadata(folder).map_or(0, |meta| meta.blocks() * 512);
    let Ok(entries) = fs::read_dir(folder) else {
        return own;
    };
    let below = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => allocated(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        // What has gone since it was listed takes no room.
        Err(_) => 0,
    });
    own + below.sum::<u64>()
}

/// What was stored, without what was only moved.
fn stored(scene: &Scene) -> u64 {
    scene.stat("store.appended_bytes") - scene.stat("store.moved_bytes")
}

/// Asks for one object after the other, each of which must be whole and right; says how many were
/// hits.
fn ask(scene: &Scene, catalogue: &Catalogue, client: u64, over: &AtomicBool) -> u64 {
    let mut hits = 0;
    let mut connection = scene.connect();
    for request in 0.. {
        if request % 16 == 0 && stored(scene) >= 10 * LIMIT || over.load(Ordering::Relaxed) {
            break;
        }
        let object = match (client, request) {
            (0, 99) => LARGE,
            _ => catalogue.pick(request * CLIENTS + client),
        };
        let answer = connection.get(&format!("/{object}")).answer("GET");
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
        assert!(
            answer.body == catalogue.body(object),
            "a wrong body for /{object}"
        );
        hits += u64::from(answer.cache_status("hit").is_some());
    }
    over.store(true, Ordering::Relaxed);
    hits
}

#[test]
fn ten_times_the_limit_in_mixed_sizes_is_stored_without_a_failure_and_with_few_writes() {
    let setup = Scene::new().cache("disk_bytes_max", &format!("\"{LIMIT}B\""));
    let setup = setup.cache("second_request_percent", "100");
    let scene = setup.cache("memory_bytes_max", "\"0B\"").start();
    let catalogue = Catalogue::new(3_600);
    let origin = Catalogue::new(0);
    scene.origin.does("*", move |request| {
        let object = request.target.trim_start_matches('/').parse().unwrap_or(0);
        Reply::ok(origin.body(object)).cache("max-age=3600")
    });
    let (over, peak, samples) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let store = scene.store();
    let hits: u64 = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(allocated(&store), Ordering::Relaxed);
                samples.fetch_add(1, Ordering::Relaxed);
                thread::sleep(SAMPLE); // waits because a file system tells nobody that it grew
            }
        });
        let (scene, catalogue, over) = (&scene, &catalogue, &over);
        let client = |n| scope.spawn(move || ask(scene, catalogue, n, over));
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let done: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        over.store(true, Ordering::Relaxed);
        done.into_iter().map(|hits| hits.expect("no failure")).sum()
    });
    let (peak, samples) = (peak.into_inner(), samples.into_inner());
    assert!(peak <= LIMIT, "{peak} bytes, in one of {samples} samples");
    assert!(peak > LIMIT / 2, "only {peak} bytes of {LIMIT} were used");
    assert!(samples > 20 && hits > 100, "{samples} samples, {hits} hits");
    let written =
        scene.stat("store.packs_written_bytes") + scene.stat("store.journal_written_bytes");
    let amplification = written as f64 / stored(&scene) as f64;
    assert!(amplification <= 1.5, "{amplification}: {}", scene.stats());
    assert!(scene.stat("store.packs_dropped") > 0, "{}", scene.stats());
    assert_eq!(scene.stat("store.corrupt"), 0);
    scene.get("/0").is(200).sees(catalogue.body(0));
}
