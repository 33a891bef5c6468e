//! Which backends may be asked: passive mark-down from what requests met.
//!
//! ```text
//!        failures_max in a row            back-off spent
//!  Up ───────────────────────► Down ───────────────────► Trial: one request may try
//!  ▲                             ▲                          │
//!  └──────────── success ────────┼──────── success ─────────┤
//!                                └── failure: back-off × 2 ─┘
//! ```

use std::time::Duration;
use std::time::SystemTime;

/// When a backend is taken out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Failures in a row that take a backend out.
    pub failures_max: u32,
    /// How long it is left out the first time; doubles with each further failure.
    pub back_off: Duration,
    /// The longest it is left out.
    pub back_off_max: Duration,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            failures_max: 3,
            back_off: Duration::from_secs(1),
            back_off_max: Duration::from_secs(30),
        }
    }
}

/// The health of one upstream's backends.
#[derive(Debug)]
pub struct Health {
    params: Params,
    backends: Vec<Backend>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Backend {
    failures: u32,
    down: Option<Down>,
}

#[derive(Clone, Copy, Debug)]
struct Down {
    until: SystemTime,
    back_off: Duration,
    /// A request is finding out whether it is back.
    trial: bool,
}

impl Health {
    /// All backends start up.
    pub fn new(backends: usize, params: Params) -> Self {
        Self {
            params,
            backends: vec![Backend::default(); backends],
        }
    }

    /// Says of each backend whether it may be asked at `now`. When all are down all may: an
    /// upstream with nothing left to lose is worth a try.
    pub fn usable(&self, now: SystemTime) -> Vec<bool> {
        let usable: Vec<bool> = (0..self.backends.len())
            .map(|n| self.is_usable(n, now))
            .collect();
        if usable.contains(&true) {
            usable
        } else {
            vec![true; self.backends.len()]
        }
    }

    /// Is this backend up, or due for a trial?
    pub fn is_usable(&self, backend: usize, now: SystemTime) -> bool {
        self.backends
            .get(backend)
            .is_some_and(|backend| backend.down.is_none_or(|down| down.until <= now))
    }

    /// A request is about to try a backend; while it does, a backend on trial takes no other.
    pub fn ask(&mut self, backend: usize, now: SystemTime) {
        if let Some(Backend {
            down: Some(down), ..
        }) = self.backends.get_mut(backend)
            && down.until <= now
        {
            down.until = now + down.back_off;
            down.trial = true;
        }
    }

    /// A backend answered.
    pub fn success(&mut self, backend: usize) {
        if let Some(backend) = self.backends.get_mut(backend) {
            *backend = Backend::default();
        }
    }

    /// A backend failed.
    pub fn failure(&mut self, backend: usize, now: SystemTime) {
        let params = self.params;
        let Some(backend) = self.backends.get_mut(backend) else {
            return;
        };
        backend.failures = backend.failures.saturating_add(1);
        if backend.failures < params.failures_max {
            return;
        }
        let back_off = match backend.down {
            None => params.back_off,
            // The last of the requests that took it down; they say nothing new.
            Some(down) if now < down.until && !down.trial => return,
            Some(down) => (down.back_off * 2).min(params.back_off_max),
        };
        backend.down = Some(Down {
            until: now + back_off,
            back_off,
            trial: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn with_backend_0_down() -> Health {
        let mut health = Health::new(2, Params::default());
        for _ in 0..3 {
            health.failure(0, START);
        }
        health
    }

    #[test]
    fn failures_in_a_row_take_a_backend_out() {
        let mut health = Health::new(2, Params::default());
        health.failure(0, START);
        health.failure(0, START);
        assert_eq!(health.usable(START), [true, true]);
        health.failure(0, START);
        assert_eq!(health.usable(START), [false, true]);
    }

    #[test]
    fn a_success_between_failures_keeps_a_backend_in() {
        let mut health = Health::new(1, Params::default());
        for _ in 0..10 {
            health.failure(0, START);
            health.failure(0, START);
            health.success(0);
        }
        assert!(health.is_usable(0, START));
    }

    #[test]
    fn one_request_tries_a_backend_when_its_back_off_is_spent() {
        let mut health = with_backend_0_down();
        let later = START + secs(1);
        assert_eq!(health.usable(later), [true, true]);
        health.ask(0, later);
        assert_eq!(health.usable(later), [false, true]);
        health.success(0);
        assert_eq!(health.usable(later), [true, true]);
    }

    #[test]
    fn the_back_off_doubles_up_to_its_bound() {
        let mut health = with_backend_0_down();
        let mut now = START;
        for _ in 0..12 {
            now += secs(60);
            health.ask(0, now);
            health.failure(0, now);
        }
        assert!(!health.is_usable(0, now + secs(29)));
        assert!(health.is_usable(0, now + secs(30)));
    }

    #[test]
    fn when_all_are_down_all_may_be_asked() {
        let mut health = Health::new(1, Params::default());
        for _ in 0..3 {
            health.failure(0, START);
        }
        assert!(!health.is_usable(0, START));
        assert_eq!(health.usable(START), [true]);
    }
}
