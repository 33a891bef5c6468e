//! One body on its way from the origin: written once, read by many, owned by no client.
//!
//! ```text
//! origin ─► Writer::push ─► chunks in memory ─(a segment's worth)─► Draft ─► disk
//!                              │                                     │
//!            Reader (any time, any offset) ◄── from memory ──────────┴── or from its segments
//! ```
//!
//! A reader holds an offset and waits for the next change; a slow one stalls nobody, because what
//! it has not read yet is on disk. When the response cannot be kept, the chunks stay until the last
//! reader has passed, and the origin is held back instead: memory is bounded either way. A writer
//! dropped before its end fails the fill, and every reader's transfer is cut.

use super::shelf::Draft;
use super::shelf::NotKept;
use super::shelf::Pins;
use super::shelf::Shelf;
use super::shelf::Stored;
use super::shelf::lock;
use crate::rules::address::Digest;
use crate::rules::address::SEGMENT_BYTES_MAX;
use crate::rules::address::Segment;
use crate::rules::address::Sequence;
use crate::rules::stored::StoredResponse;
use bytes::Bytes;
use bytes::BytesMut;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::time::timeout;

/// A body being fetched, as its readers see it.
#[derive(Debug)]
pub struct Fill {
    /// The head; its body's digest and length are not known yet.
    pub response: Arc<StoredResponse>,
    /// The body's length, when the origin declared it.
    pub length: Option<u64>,
    /// Why it is not being kept, if it was known at the start.
    pub not_kept: Option<NotKept>,
    /// Its place among fills and purges.
    pub sequence: Sequence,
    window: Mutex<Window>,
    progress: watch::Sender<Progress>,
    /// Told when a reader has gone on or away.
    read_on: Notify,
    shelf: Arc<Shelf>,
}

/// How far a fill has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This many bytes so far.
    Open(u64),
    /// All of them.
    Complete(u64),
    /// It will never be complete: there are this many bytes and no more.
    Failed(u64),
}

/// The part of the body that can be read. Segments first, chunks behind them, without a gap.
#[derive(Debug, Default)]
struct Window {
    segments: Vec<(u64, Segment)>,
    /// Keeps the segments readable once the draft has ended, whatever became of it.
    pins: Option<Pins>,
    chunks: VecDeque<Chunk>,
    /// Where the first chunk starts.
    chunks_start: u64,
    end: u64,
    /// Offsets of the readers; chunks before all of them may go when nothing is kept.
    readers: HashMap<u64, u64>,
    next_reader: u64,
    /// Chunks are not on their way to disk: they must wait for the readers.
    unkept: bool,
}

#[derive(Debug)]
struct Chunk {
    start: u64,
    bytes: Bytes,
    /// Its share of the memory all fills may use, unless there was none left.
    permit: Option<OwnedSemaphorePermit>,
}

/// The writing end. Dropped without [`finish`](Self::finish), the fill has failed.
#[derive(Debug)]
pub struct Writer {
    fill: Arc<Fill>,
    sequence: Sequence,
    budget: Arc<Semaphore>,
    draft: Option<Draft>,
    /// Bytes in chunks that are not in a segment yet; none when they are not kept.
    loose: usize,
    /// Why it is not being kept, once that is so.
    not_kept: Option<NotKept>,
    ended: bool,
}

/// One reader of a fill.
#[derive(Debug)]
pub struct Reader {
    fill: Arc<Fill>,
    id: u64,
    offset: u64,
    end: u64,
    progress: watch::Receiver<Progress>,
    waiting: Option<Waiting>,
}

enum Waiting {
    Change(Pin<Box<dyn Future<Output = watch::Receiver<Progress>> + Send>>),
    Segment(Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>),
}

/// The fill failed, or what it had written can no longer be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the response could not be completed")]
pub struct Cut;

/// What a look at the window gave.
enum Look {
    Chunk(Bytes),
    Segment(Segment, u64),
    Nothing,
}

impl Fill {
    /// Waits for its end; says whether it is complete.
    pub(super) async fn ended(&self) -> bool {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|now| !matches!(now, Progress::Open(_)));
        ended
            .await
            .is_ok_and(|end| matches!(*end, Progress::Complete(_)))
    }

    /// Starts a fill. `budget` bounds, in bytes, what all fills hold in memory.
    pub fn start(
        shelf: &Arc<Shelf>,
        budget: &Arc<Semaphore>,
        sequence: Sequence,
        response: StoredResponse,
        length: Option<u64>,
        not_kept: Option<NotKept>,
    ) -> (Arc<Self>, Writer) {
        let fill = Arc::new(Self {
            response: Arc::new(response),
            length,
            not_kept,
            sequence,
            window: Mutex::new(Window {
                unkept: not_kept.is_some(),
                ..Window::default()
            }),
            progress: watch::Sender::new(Progress::Open(0)),
            read_on: Notify::new(),
            shelf: Arc::clone(shelf),
        });
        let writer = Writer {
            fill: Arc::clone(&fill),
            sequence,
            budget: Arc::clone(budget),
            draft: None,
            loose: 0,
            not_kept,
            ended: false,
        };
        (fill, writer)
    }

    /// Joins as a reader of `bytes` bytes from `offset` on (all the rest when `None`). `None` when
    /// that part is gone: the fill is not kept and others have read on.
    pub fn reader(self: &Arc<Self>, offset: u64, bytes: Option<u64>) -> Option<Reader> {
        let mut window = lock(&self.window);
        if window.unkept && offset < window.chunks_start {
            return None;
        }
        let id = window.next_reader;
        window.next_reader += 1;
        window.readers.insert(id, offset);
        Some(Reader {
            fill: Arc::clone(self),
            id,
            offset,
            end: bytes.map_or(u64::MAX, |bytes| offset.saturating_add(bytes)),
            progress: self.progress.subscribe(),
            waiting: None,
        })
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// The whole body, when it is complete and still in memory as one piece.
    pub fn whole(&self) -> Option<Bytes> {
        let Progress::Complete(total) = self.progress() else {
            return None;
        };
        let window = lock(&self.window);
        match window.chunks.front() {
            None if total == 0 => Some(Bytes::new()),
            Some(chunk) if chunk.start == 0 && chunk.bytes.len() as u64 == total => {
                Some(chunk.bytes.clone())
            }
            _ => None,
        }
    }

    fn look(&self, offset: u64) -> Look {
        let window = lock(&self.window);
        if offset >= window.chunks_start {
            let after = window.chunks.partition_point(|chunk| chunk.start <= offset);
            let chunk = after.checked_sub(1).and_then(|at| window.chunks.get(at));
            let rest = chunk.and_then(|chunk| {
                let skip = usize::try_from(offset - chunk.start).ok()?;
                (skip < chunk.bytes.len()).then(|| chunk.bytes.slice(skip..))
            });
            return rest.map_or(Look::Nothing, Look::Chunk);
        }
        let after = window
            .segments
            .partition_point(|(start, _)| *start <= offset);
        let segment = after.checked_sub(1).and_then(|at| window.segments.get(at));
        segment.map_or(Look::Nothing, |(start, segment)| {
            Look::Segment(*segment, offset - start)
        })
    }

    fn moved(&self, id: u64, offset: Option<u64>) {
        let mut window = lock(&self.window);
        match offset {
            Some(offset) => window.readers.insert(id, offset),
            None => window.readers.remove(&id),
        };
        if window.unkept {
            window.trim();
            drop(window);
            self.read_on.notify_one();
        }
    }
}

impl Window {
    /// Drops what every reader has passed.
    fn trim(&mut self) {
        let Some(slowest) = self.readers.values().copied().min() else {
            return;
        };
        if slowest >= self.chunks_start {
            self.pins = None;
        }
        while let Some(chunk) = self.chunks.front() {
            let end = chunk.start + chunk.bytes.len() as u64;
            if end > slowest {
                break;
            }
            self.chunks_start = end;
            self.chunks.pop_front();
        }
    }

    fn bytes(&self) -> u64 {
        self.end - self.chunks_start
    }
}

impl Writer {
    /// Takes the next bytes in. Waits for memory, for the disk, or for readers, as the case may be.
    ///
    /// Fails when nobody wants the rest: the response is not kept and has no reader.
    pub async fn push(&mut self, mut bytes: Bytes) -> Result<(), Cut> {
        while !bytes.is_empty() {
            let room = SEGMENT_BYTES_MAX - self.loose;
            debug_assert!(room > 0, "a full segment is cut at once");
            let mut part = bytes.split_to(bytes.len().min(room));
            if self.loose > 0 && part.len() < COPY_BYTES {
                // Where many small parts come one by one, each would keep a whole read buffer.
                part = Bytes::copy_from_slice(&part);
            }
            let permit = self.permit(part.len()).await?;
            if self.not_kept.is_none() {
                self.loose += part.len();
            }
            let end = {
                let mut window = lock(&self.fill.window);
                let start = window.end;
                window.end += part.len() as u64;
                window.chunks.push_back(Chunk {
                    start,
                    bytes: part,
                    permit,
                });
                window.end
            };
            // The last bytes of a known length wait for `finish`: who has read them all must find
            // the response stored.
            if self.fill.length != Some(end) {
                self.fill.progress.send_replace(Progress::Open(end));
            }
            if self.loose == SEGMENT_BYTES_MAX && self.fill.length != Some(end) {
                self.cut_segment().await;
            }
        }
        Ok(())
    }

    /// Why the response is not kept, as far as it is known.
    pub fn not_kept(&self) -> Option<NotKept> {
        self.not_kept
    }

    /// Ends the fill: the body is complete. Keeps it, when it can be kept, before the readers are
    /// told.
    pub async fn finish(mut self) -> Result<Stored, NotKept> {
        let total = lock(&self.fill.window).end;
        let kept = self.keep_rest(total).await;
        self.ended = true;
        self.fill.progress.send_replace(Progress::Complete(total));
        kept
    }

    async fn keep_rest(&mut self, total: u64) -> Result<Stored, NotKept> {
        if let Some(reason) = self.not_kept {
            return Err(reason);
        }
        let mut response = StoredResponse::clone(&self.fill.response);
        if self.draft.is_none() && total <= SEGMENT_BYTES_MAX as u64 {
            // A copy: what arrived may be a small part of the buffer it was read into, and would keep
            // all of that in memory.
            let body = Bytes::copy_from_slice(&self.join_chunks());
            response.detach();
            response.body = Digest::of(&body);
            response.body_bytes = total;
            let shelf = Arc::clone(&self.fill.shelf);
            return shelf.keep(self.sequence, Arc::new(response), body).await;
        }
        self.cut_segment().await;
        let kept = match (self.not_kept, &mut self.draft) {
            (None, Some(draft)) => draft.finish(response).await,
            (reason, _) => Err(reason.unwrap_or(NotKept::StoreFailed)),
        };
        self.end_draft();
        kept
    }

    /// Gets a chunk's share of memory. When there is none left, what is loose goes to disk early.
    /// When the others give nothing back either, it goes on without, one chunk at a time: fills
    /// must not stand still because of the origins and clients of others.
    async fn permit(&mut self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Cut> {
        let bytes = u32::try_from(bytes.saturating_add(CHUNK_BYTES)).map_err(|_| Cut)?;
        if self.not_kept.is_some() {
            self.wait_for_readers(UNKEPT_BYTES_MAX).await?;
        }
        if let Ok(permit) = Arc::clone(&self.budget).try_acquire_many_owned(bytes) {
            return Ok(Some(permit));
        }
        self.cut_segment().await;
        let permit = Arc::clone(&self.budget).acquire_many_owned(bytes);
        if let Ok(permit) = timeout(PERMIT_WAIT, permit).await {
            return permit.map(Some).map_err(|_| Cut);
        }
        if self.not_kept.is_some() {
            self.wait_for_readers(1).await?;
        }
        Ok(None)
    }

    /// Waits until the readers have left less than `bytes` unread.
    async fn wait_for_readers(&self, bytes: u64) -> Result<(), Cut> {
        loop {
            let read_on = self.fill.read_on.notified();
            {
                let window = lock(&self.fill.window);
                if window.readers.is_empty() && window.next_reader > 0 {
                    return Err(Cut);
                }
                if window.bytes() < bytes {
                    return Ok(());
                }
            }
            // Readers that do not read are cut by the client side long before this.
            timeout(READ_ON_MAX, read_on).await.map_err(|_| Cut)?;
        }
    }

    /// Writes the loose chunks as a segment. When that fails the fill goes on without being kept.
    async fn cut_segment(&mut self) {
        if self.loose == 0 || self.not_kept.is_some() {
            return;
        }
        let bytes = self.join_chunks();
        let draft = self
            .draft
            .get_or_insert_with(|| self.fill.shelf.draft(self.sequence, self.fill.response.key));
        match draft.segment(bytes).await {
            Ok(segment) => {
                let mut window = lock(&self.fill.window);
                let start = window.chunks_start;
                window.segments.push((start, segment));
                window.chunks_start = window.end;
                window.chunks.clear();
                self.loose = 0;
            }
            Err(reason) => {
                self.not_kept = Some(reason);
                self.loose = 0;
                self.end_draft();
                let mut window = lock(&self.fill.window);
                window.unkept = true;
                window.trim();
            }
        }
    }

    fn end_draft(&mut self) {
        if let Some(draft) = self.draft.take() {
            lock(&self.fill.window).pins = Some(draft.into_pins());
        }
    }

    /// Makes one chunk of the loose ones.
    fn join_chunks(&self) -> Bytes {
        let mut window = lock(&self.fill.window);
        match window.chunks.len() {
            0 => Bytes::new(),
            1 => window
                .chunks
                .front()
                .map_or_else(Bytes::new, |chunk| chunk.bytes.clone()),
            _ => {
                let mut joined = BytesMut::with_capacity(self.loose);
                let mut permit: Option<OwnedSemaphorePermit> = None;
                let start = window.chunks_start;
                for chunk in window.chunks.drain(..) {
                    joined.extend_from_slice(&chunk.bytes);
                    match (&mut permit, chunk.permit) {
                        (Some(permit), Some(more)) => permit.merge(more),
                        (None, more) => permit = more,
                        (Some(_), None) => {}
                    }
                }
                let bytes = joined.freeze();
                window.chunks.push_back(Chunk {
                    start,
                    bytes: bytes.clone(),
                    permit,
                });
                bytes
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.ended {
            self.end_draft();
            let end = lock(&self.fill.window).end;
            self.fill.progress.send_replace(Progress::Failed(end));
        }
    }
}

impl Reader {
    /// Polls for the next bytes; `None` at the end of what was asked for.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            match &mut self.waiting {
                Some(Waiting::Change(change)) => {
                    self.progress = ready!(change.as_mut().poll(context));
                    self.waiting = None;
                }
                Some(Waiting::Segment(read)) => {
                    let bytes = ready!(read.as_mut().poll(context));
                    self.waiting = None;
                    return Poll::Ready(Some(bytes.map_or(Err(Cut), |bytes| Ok(self.pass(bytes)))));
                }
                None => {}
            }
            if self.offset >= self.end {
                return Poll::Ready(None);
            }
            let progress = *self.progress.borrow_and_update();
            let (Progress::Open(end) | Progress::Complete(end) | Progress::Failed(end)) = progress;
            if self.offset < end {
                match self.fill.look(self.offset) {
                    Look::Chunk(bytes) => return Poll::Ready(Some(Ok(self.pass(bytes)))),
                    Look::Segment(segment, skip) => self.read(segment, skip),
                    Look::Nothing => return Poll::Ready(Some(Err(Cut))),
                }
            } else if matches!(progress, Progress::Complete(_)) {
                return Poll::Ready(None);
            } else if matches!(progress, Progress::Failed(_)) {
                return Poll::Ready(Some(Err(Cut)));
            } else {
                let mut progress = self.progress.clone();
                self.waiting = Some(Waiting::Change(Box::pin(async move {
                    // An error means that the writer is gone; then its last word stands.
                    drop(progress.changed().await);
                    progress
                })));
            }
        }
    }

    fn read(&mut self, segment: Segment, skip: u64) {
        let shelf = Arc::clone(&self.fill.shelf);
        self.waiting = Some(Waiting::Segment(Box::pin(async move {
            let bytes = shelf.read_segment(segment, true).await.ok()?;
            let skip = usize::try_from(skip).ok()?;
            (skip < bytes.len()).then(|| bytes.slice(skip..))
        })));
    }

    /// Goes on by `bytes`, cut to what was asked for.
    fn pass(&mut self, mut bytes: Bytes) -> Bytes {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        bytes.truncate(left);
        self.offset += bytes.len() as u64;
        self.fill.moved(self.id, Some(self.offset));
        bytes
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.moved(self.id, None);
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Change(_) => "Change",
            Self::Segment(_) => "Segment",
        })
    }
}

/// What a chunk takes beside its bytes.
const CHUNK_BYTES: usize = 128;
/// A part smaller than this is copied out of its buffer.
const COPY_BYTES: usize = 8 << 10;
/// How long a fill waits for others to give memory back.
const PERMIT_WAIT: Duration = Duration::from_millis(20);
/// How long a fill that is not kept waits for somebody to read on.
const READ_ON_MAX: Duration = Duration::from_secs(120);
/// What a fill that is not kept holds for its readers.
const UNKEPT_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::invalidate::Selector;
    use crate::rules::key::PrimaryKey;
    use crate::rules::key::VariantKey;
    use crate::rules::stored::StaleWindow;
    use crate::rules::tag::Names;
    use crate::state::index::Lookup;
    use crate::store::Params;
    use http::HeaderMap;
    use http::StatusCode;
    use std::time::SystemTime;

    struct Scene {
        shelf: Arc<Shelf>,
        budget: Arc<Semaphore>,
        _dir: tempfile::TempDir,
    }

    const KEY: PrimaryKey = PrimaryKey([7; 16]);

    impl Scene {
        fn new(budget: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let params = Params {
                dir: dir.path().join("store"),
                disk_bytes_max: 32 << 20,
            };
            Self {
                shelf: Shelf::open(&params, 1 << 20, 8 << 20).unwrap(),
                budget: Arc::new(Semaphore::new(budget)),
                _dir: dir,
            }
        }

        fn fill(&self, length: Option<u64>) -> (Arc<Fill>, Writer) {
            let response = StoredResponse {
                key: KEY,
                variant: VariantKey::ONLY,
                vary: Vec::new(),
                names: Names::default(),
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                timing: crate::rules::freshness::Timing {
                    request_time: SystemTime::UNIX_EPOCH,
                    response_time: SystemTime::UNIX_EPOCH,
                    date_value: SystemTime::UNIX_EPOCH,
                    age_value: Duration::ZERO,
                },
                lifetime: Duration::from_secs(60),
                stale: StaleWindow::default(),
                validate_always: false,
                must_revalidate: false,
                validators: None,
                body_bytes: 0,
                body: Digest([0; 32]),
                part: None,
            };
            let sequence = self.shelf.next_sequence();
            Fill::start(&self.shelf, &self.budget, sequence, response, length, None)
        }
    }

    fn part(number: u64) -> Bytes {
        let seed = blake3::hash(&number.to_le_bytes());
        Bytes::from(seed.as_bytes().repeat(PART / 32))
    }

    async fn read(mut reader: Reader) -> Result<Vec<u8>, Cut> {
        let mut body = Vec::new();
        while let Some(bytes) = std::future::poll_fn(|c| reader.poll_next(c)).await {
            body.extend_from_slice(&bytes?);
        }
        Ok(body)
    }

    fn whole(parts: u64) -> Vec<u8> {
        (0..parts)
            .flat_map(|number| part(number).to_vec())
            .collect()
    }

    #[tokio::test]
    async fn a_small_body_is_stored_before_its_readers_have_all_of_it() {
        let scene = Scene::new(1 << 20);
        let (fill, mut writer) = scene.fill(Some(PART as u64));
        let reading = tokio::spawn(read(fill.reader(0, None).unwrap()));
        writer.push(part(0)).await.unwrap();
        assert!(!reading.is_finished());
        writer.finish().await.unwrap();
        let found = scene.shelf.lookup([KEY], &HeaderMap::new());
        assert!(matches!(found, Lookup::Found(_)));
        assert_eq!(reading.await.unwrap().unwrap(), whole(1));
    }

    #[tokio::test]
    async fn a_late_reader_gets_all_of_a_large_body() {
        let scene = Scene::new(8 << 20);
        let (fill, mut writer) = scene.fill(None);
        for number in 0..40 {
            writer.push(part(number)).await.unwrap();
        }
        let late = tokio::spawn(read(fill.reader(0, None).unwrap()));
        let middle = tokio::spawn(read(fill.reader(1_500_000, Some(1_000_000)).unwrap()));
        writer.push(part(40)).await.unwrap();
        let stored = writer.finish().await.unwrap();
        assert_eq!(late.await.unwrap().unwrap(), whole(41));
        let middle = middle.await.unwrap().unwrap();
        assert_eq!(middle, whole(41)[1_500_000..2_500_000]);
        assert_eq!(stored.response.body_bytes, 41 * PART as u64);
        assert_eq!(stored.response.body, Digest::of(&whole(41)));
    }

    #[tokio::test]
    async fn a_body_too_large_to_keep_still_reaches_its_reader_whole() {
        let scene = Scene::new(8 << 20);
        let (fill, mut writer) = scene.fill(None);
        let reading = tokio::spawn(read(fill.reader(0, None).unwrap()));
        for number in 0..400 {
            writer.push(part(number)).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap_err(), NotKept::BodyTooLarge);
        assert_eq!(reading.await.unwrap().unwrap(), whole(400));
        assert!(fill.reader(0, None).is_none(), "its start is gone");
    }

    #[tokio::test]
    async fn a_slow_reader_is_not_cut_when_the_response_is_purged() {
        let scene = Scene::new(8 << 20);
        let (fill, mut writer) = scene.fill(None);
        let slow = fill.reader(0, None).unwrap();
        for number in 0..40 {
            writer.push(part(number)).await.unwrap();
        }
        drop(writer.finish().await.unwrap());
        drop(fill);
        scene.shelf.store.flush().await.unwrap();
        scene.shelf.purge(&[Selector::Url(KEY)]);
        assert_eq!(scene.shelf.drop_empty_packs(), 0);
        assert_eq!(read(slow).await.unwrap(), whole(40));
        assert!(scene.shelf.drop_empty_packs() > 0);
    }

    #[tokio::test]
    async fn nobody_is_waited_for_who_has_left_a_body_that_is_not_kept() {
        let scene = Scene::new(8 << 20);
        let (fill, mut writer) = scene.fill(None);
        let mut reader = fill.reader(0, None).unwrap();
        let mut number = 0;
        while !lock(&fill.window).unkept {
            writer.push(part(number)).await.unwrap();
            let next = std::future::poll_fn(|c| reader.poll_next(c)).await;
            assert!(next.unwrap().is_ok());
            number += 1;
        }
        drop(reader);
        assert_eq!(writer.push(part(number)).await, Err(Cut));
    }

    #[tokio::test]
    async fn a_writer_dropped_early_cuts_its_readers_after_what_came() {
        let scene = Scene::new(8 << 20);
        let (fill, mut writer) = scene.fill(Some(1 << 30));
        let mut reader = fill.reader(0, None).unwrap();
        writer.push(part(0)).await.unwrap();
        drop(writer);
        let first = std::future::poll_fn(|c| reader.poll_next(c)).await;
        assert_eq!(first, Some(Ok(part(0))));
        let second = std::future::poll_fn(|c| reader.poll_next(c)).await;
        assert_eq!(second, Some(Err(Cut)));
    }

    #[tokio::test]
    async fn memory_that_others_keep_stops_no_fill() {
        let scene = Scene::new(3 * PART);
        let all = Arc::clone(&scene.budget).acquire_many_owned(3 * 65_536);
        let all = all.await.unwrap();
        let (fill, mut writer) = scene.fill(None);
        let reading = tokio::spawn(read(fill.reader(0, None).unwrap()));
        for number in 0..4 {
            writer.push(part(number)).await.unwrap();
        }
        writer.finish().await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), whole(4));
        drop(all);
    }

    #[tokio::test]
    async fn memory_is_given_back_as_segments_are_written() {
        let scene = Scene::new(SEGMENT_BYTES_MAX + PART);
        let (fill, mut writer) = scene.fill(None);
        for number in 0..60 {
            writer.push(part(number)).await.unwrap();
        }
        drop((fill, writer));
        assert_eq!(scene.budget.available_permits(), SEGMENT_BYTES_MAX + PART);
    }

    const PART: usize = 65_536;
}
