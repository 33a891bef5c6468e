//! Fetching anew what was purged, before anybody asks for it.
//!
//! ```text
//! URL ─► queue ─(a permit of its upstream)─► is it there again? ─► trip ─► stored
//!          └─ full: skipped
//! ```
//!
//! What waits is bounded, and so is what is fetched at once from each upstream. A trip is shared with
//! whoever asks meanwhile. The request has no fields to select by: of a response that varies, the
//! variant for such a request is fetched.

use super::Engine;
use super::ask::Ask;
use super::shelf::lock;
use super::trip::Errand;
use super::trip::Landing;
use super::trip::TripKey;
use crate::clock;
use crate::rules::directives::RequestDirectives;
use crate::rules::forwarded::Sender;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::part::Fetch;
use crate::rules::request::NormalRequest;
use crate::rules::request::parse_url;
use crate::rules::reuse::Reuse;
use crate::state::index::Lookup;
use http::Request;
use http::header;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

/// How far a refresh has come; counts go up until nothing waits.
#[derive(Debug, Default)]
pub struct Progress {
    /// How many URLs are to be fetched.
    pub wanted: AtomicU64,
    /// Of these: stored, or validated, or found to be there again.
    pub done: AtomicU64,
    /// Of these: fetched, but not for the store.
    pub not_stored: AtomicU64,
    /// Of these: not fetched.
    pub failed: AtomicU64,
    /// Of these: not even tried, since the queue had no room.
    pub skipped: AtomicU64,
}

/// What waits to be fetched.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    waiting: Mutex<VecDeque<Job>>,
    bell: Notify,
}

/// One URL. Dropped before its end, it has failed.
#[derive(Debug)]
struct Job {
    url: String,
    upstream: String,
    progress: Arc<Progress>,
    end: End,
}

/// What came of one URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    NotStored,
    Skipped,
}

impl Progress {
    /// How many are still to come.
    pub fn waiting(&self) -> u64 {
        let ended = [&self.done, &self.not_stored, &self.failed, &self.skipped];
        let ended = ended.map(|count| count.load(Ordering::Relaxed));
        let wanted = self.wanted.load(Ordering::Relaxed);
        wanted.saturating_sub(ended.iter().sum())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let count = match self.end {
            End::Done => &self.progress.done,
            End::Failed => &self.progress.failed,
            End::NotStored => &self.progress.not_stored,
            End::Skipped => &self.progress.skipped,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Refreshes {
    /// Takes in as many as there is room for.
    fn put(&self, jobs: impl Iterator<Item = Job>) {
        let mut waiting = lock(&self.waiting);
        for mut job in jobs {
            if waiting.len() < WAITING_MAX {
                waiting.push_back(job);
            } else {
                job.end = End::Skipped;
            }
        }
        drop(waiting);
        self.bell.notify_waiters();
    }

    /// The first that may be fetched now. Those that never may are dropped.
    fn take<P>(&self, permit: impl Fn(&str) -> Permit<P>) -> Option<(Job, P)> {
        let mut waiting = lock(&self.waiting);
        let mut at = 0;
        while let Some(job) = waiting.get(at) {
            match permit(&job.upstream) {
                Permit::Given(permit) => return waiting.remove(at).map(|job| (job, permit)),
                Permit::Later => at = at.saturating_add(1),
                Permit::Never => drop(waiting.remove(at)),
            }
        }
        None
    }
}

/// May something be fetched from an upstream?
enum Permit<P> {
    Given(P),
    Later,
    Never,
}

impl Engine {
    /// Fetches what waits to be fetched, for ever; one such task on each runtime is enough. Dropped,
    /// it gives up what it was fetching.
    pub async fn refresh_purged(self: Arc<Self>) {
        let mut underway = JoinSet::new();
        loop {
            let rung = self.refreshes.bell.notified();
            tokio::pin!(rung);
            // Rung between the look and the wait, it must be heard.
            rung.as_mut().enable();
            while let Some((mut job, permit)) = self.next_refresh() {
                let engine = Arc::clone(&self);
                underway.spawn(async move {
                    job.end = engine.refetch(&job.url).await;
                    drop(job);
                    drop(permit);
                });
            }
            tokio::select! {
                () = &mut rung => {}
                // A permit has come back.
                Some(_ended) = underway.join_next() => {}
            }
        }
    }

    /// Has these fetched soon; more than there is room for are skipped.
    pub(super) fn refresh_soon(&self, urls: Vec<String>) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let wanted = u64::try_from(urls.len()).unwrap_or(u64::MAX);
        progress.wanted.store(wanted, Ordering::Relaxed);
        let setup = self.setup.load_full();
        let upstream = |url: &str| {
            let (site, _, _, _) = setup.params.read_url(url).ok()?;
            let (name, _) = setup.params.upstreams.get(site.upstream)?;
            Some(name.clone())
        };
        self.refreshes.put(urls.into_iter().map(|url| Job {
            upstream: upstream(&url).unwrap_or_default(),
            url,
            progress: Arc::clone(&progress),
            end: End::Failed,
        }));
        progress
    }

    fn next_refresh(&self) -> Option<(Job, OwnedSemaphorePermit)> {
        let setup = self.setup.load_full();
        self.refreshes.take(|upstream| {
            let Some(origin) = setup.origin_called(upstream) else {
                return Permit::Never;
            };
            match Arc::clone(&origin.refreshes).try_acquire_owned() {
                Ok(permit) => Permit::Given(permit),
                Err(_) => Permit::Later,
            }
        })
    }

    /// Fetches one URL, unless it is there again. Dropped half-way, the trip goes on.
    async fn refetch(self: &Arc<Self>, url: &str) -> End {
        let Some(ask) = self.ask_for(url) else {
            return End::Failed;
        };
        let found = match self.shelf.lookup(ask.keys(), ask.request.headers()) {
            Lookup::Found(found) => self.shelf.load(found).await,
            Lookup::UriMiss | Lookup::VaryMiss => None,
        };
        let client = ask.site().client_cache_control;
        let now = clock::now();
        if let Some(stored) = &found
            && let Reuse::Serve { .. } =
                Reuse::decide(&stored.response, &ask.directives, client, now)
        {
            return End::Done;
        }
        let vary = self.known_vary(&ask);
        let key = TripKey {
            key: ask.shared_key(),
            variant: VariantKey::new(&vary, ask.request.headers()),
            whole: false,
            era: ask.era(),
        };
        let Some(trip) = lock(&self.trips).lead(key, || self.new_trip()) else {
            // Somebody has asked since the purge.
            return End::Done;
        };
        let errand = Errand::new(&ask, found.as_ref(), Fetch::Whole, key);
        self.depart(Arc::clone(&trip), errand);
        match trip.landed().await {
            Landing::Failed(_) | Landing::Underway => End::Failed,
            Landing::Private => End::NotStored,
            Landing::Stored(..) => End::Done,
            Landing::Fill(fill, _) => match (fill.ended().await, fill.not_kept) {
                (true, None) => End::Done,
                (true, Some(_)) => End::NotStored,
                (false, _) => End::Failed,
            },
        }
    }

    /// A request of our own for a URL.
    fn ask_for(&self, url: &str) -> Option<Ask> {
        let setup = self.setup.load_full();
        let (scheme, authority, target) = parse_url(url).ok()?;
        let request = Request::get(target).header(header::HOST, authority);
        let (parts, ()) = request.body(()).ok()?.into_parts();
        let request = NormalRequest::new(parts, scheme, &setup.params.request).ok()?;
        let id = setup.params.routes.site(request.host())?;
        let site = setup.params.sites.get(usize::from(id.0))?;
        let request = request.reduced(&site.key);
        Some(Ask {
            alike: self.alike(site, &request),
            key: PrimaryKey::new(&site.name, &request, &site.key),
            directives: RequestDirectives::read(request.headers()),
            sender: Sender {
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                scheme,
                proxies: Vec::new(),
            },
            trace: None,
            site: id,
            setup: Arc::clone(&setup),
            request,
        })
    }
}

/// How many may wait: what ten purges name.
const WAITING_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(upstream: &str, count: usize, progress: &Arc<Progress>) -> Vec<Job> {
        let wanted = u64::try_from(count).unwrap();
        progress.wanted.fetch_add(wanted, Ordering::Relaxed);
        let job = |n| Job {
            url: format!("http://a.test/{n}"),
            upstream: upstream.to_owned(),
            progress: Arc::clone(progress),
            end: End::Failed,
        };
        (0..count).map(job).collect()
    }

    fn count(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }

    #[test]
    fn who_waits_for_a_busy_upstream_does_not_hold_back_others() {
        let (queue, progress) = (Refreshes::default(), Arc::default());
        queue.put(jobs("busy", 2, &progress).into_iter());
        queue.put(jobs("free", 1, &progress).into_iter());
        queue.put(jobs("gone", 1, &progress).into_iter());
        let permit = |upstream: &str| match upstream {
            "busy" => Permit::Later,
            "free" => Permit::Given(()),
            _ => Permit::Never,
        };
        let (mut job, ()) = queue.take(permit).unwrap();
        assert_eq!(job.upstream, "free");
        job.end = End::Done;
        drop(job);
        assert!(queue.take(permit).is_none());
        assert_eq!(count(&progress.done), 1);
        assert_eq!(count(&progress.failed), 1, "its upstream is gone");
        assert_eq!(progress.waiting(), 2);
    }

    #[test]
    fn what_the_queue_has_no_room_for_is_skipped() {
        let (queue, progress) = (Refreshes::default(), Arc::default());
        queue.put(jobs("a", WAITING_MAX + 3, &progress).into_iter());
        assert_eq!(lock(&queue.waiting).len(), WAITING_MAX);
        assert_eq!(count(&progress.skipped), 3);
        let most = u64::try_from(WAITING_MAX).unwrap();
        assert_eq!(progress.waiting(), most);
    }

    #[test]
    fn what_is_given_up_has_failed() {
        let (queue, progress) = (Refreshes::default(), Arc::default());
        queue.put(jobs("a", 2, &progress).into_iter());
        drop(queue);
        assert_eq!((count(&progress.failed), progress.waiting()), (2, 0));
    }
}
