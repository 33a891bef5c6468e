//! How many connections may be open, over all listeners of a process.
//!
//! A place is taken before a connection is served and given back when it ends. The number of places
//! can change while they are taken: what a smaller number is over goes as places are given back, and
//! no connection is cut for it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

/// Places for connections.
#[derive(Debug)]
pub struct Room {
    places: Arc<Semaphore>,
    /// How many there are to be.
    max: Mutex<usize>,
    /// Taken places that are not to come back.
    over: AtomicUsize,
}

/// One of them; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Makes room for `max` connections.
    pub fn new(max: usize) -> Arc<Self> {
        let max = max.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            places: Arc::new(Semaphore::new(max)),
            max: Mutex::new(max),
            over: AtomicUsize::new(0),
        })
    }

    /// Changes how many connections there is room for.
    pub fn resize(&self, max: usize) {
        let max = max.min(Semaphore::MAX_PERMITS);
        let mut current = self.max.lock().unwrap_or_else(PoisonError::into_inner);
        let more = max.saturating_sub(*current);
        let fewer = current.saturating_sub(max);
        *current = max;
        // What was to go may stay as far as there is more room again.
        let kept = self.take_over(more);
        self.places.add_permits(more.saturating_sub(kept));
        let gone = self.places.forget_permits(fewer);
        self.over
            .fetch_add(fewer.saturating_sub(gone), Ordering::Relaxed);
    }

    /// Waits for a place; `None` when there will never be any. Dropping this half-way takes none.
    pub(super) async fn place(self: &Arc<Self>) -> Option<Place> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => Arc::clone(&self.places).acquire_owned().await.ok()?,
        };
        Some(Place {
            room: Arc::clone(self),
            permit: Some(permit),
        })
    }

    /// Takes up to `most` off what is over, and says how many.
    fn take_over(&self, most: usize) -> usize {
        let less = |over: usize| Some(over.saturating_sub(most));
        let before = self
            .over
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.map_or(0, |over| over.min(most))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.room.take_over(1) == 1
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::pin::pin;
    use std::task::Context;
    use std::task::Poll;
    use std::task::Waker;

    /// Polls once.
    fn now<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ready) => ready,
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_smaller_room_cuts_nobody_and_fills_up_as_connections_end() {
        let room = Room::new(3);
        let mut taken: Vec<Place> = (0..3).map(|_| now(room.place()).unwrap()).collect();
        room.resize(1);
        taken.pop();
        assert!(now(room.place()).is_none());
        taken.pop();
        assert!(now(room.place()).is_none());
        taken.pop();
        let only = now(room.place()).unwrap();
        assert!(now(room.place()).is_none());
        room.resize(2);
        assert!(now(room.place()).is_some());
        drop(only);
    }

    proptest! {
        #[test]
        fn when_all_have_left_there_is_room_for_as_many_as_was_said_last(
            steps in proptest::collection::vec((0..3_u8, 0..12_usize), 0..60),
        ) {
            let room = Room::new(4);
            let mut max = 4;
            let mut taken = Vec::new();
            for (step, number) in steps {
                match step {
                    0 => taken.extend(now(room.place())),
                    1 => drop(taken.pop()),
                    _ => {
                        room.resize(number);
                        max = number;
                    }
                }
            }
            taken.clear();
            prop_assert_eq!(room.places.available_permits(), max);
            prop_assert_eq!(room.over.load(Ordering::Relaxed), 0);
        }
    }
}
