//! Faults for tests: makes the steps of a store's file operations fail, fall short or hang.
//!
//! A fault concerns one folder and all below it, so tests do not meet each other's.

use super::files::Step;
use super::lock;
use rustix::io::Errno;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;

/// What happens instead of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails with this.
    Error(Errno),
    /// It waits until the fault ends.
    Hang,
    /// A write stops half-way; any other step fails for want of room.
    Short,
}

/// The faults of one folder. Dropped, they end.
#[derive(Debug)]
pub(crate) struct Faults(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    folder: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rule: Option<Rule>,
    struck: u64,
}

#[derive(Debug)]
struct Rule {
    steps: Vec<Step>,
    /// Only files with this in their path.
    within: &'static str,
    fault: Fault,
    /// Steps that still succeed.
    skip: u64,
    /// Steps that fail then; all for `None`.
    times: Option<u64>,
}

static PLANS: Mutex<Vec<Arc<Plan>>> = Mutex::new(Vec::new());

impl Faults {
    /// No faults yet, for `folder` and all below it.
    pub(crate) fn on(folder: &Path) -> Self {
        let plan = Arc::new(Plan {
            folder: folder.to_path_buf(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        lock(&PLANS).push(Arc::clone(&plan));
        Self(plan)
    }

    /// From now on these steps meet a fault, until it [ends](Self::end).
    pub(crate) fn begin(&self, steps: &[Step], fault: Fault) {
        self.rule(steps, "", fault, 0, None);
    }

    /// As [`begin`](Self::begin), for files with `within` in their path.
    pub(crate) fn begin_within(&self, within: &'static str, steps: &[Step], fault: Fault) {
        self.rule(steps, within, fault, 0, None);
    }

    /// After `skip` of these steps, one meets a fault, and no more.
    pub(crate) fn once(&self, within: &'static str, steps: &[Step], fault: Fault, skip: u64) {
        self.rule(steps, within, fault, skip, Some(1));
    }

    fn rule(
        &self,
        steps: &[Step],
        within: &'static str,
        fault: Fault,
        skip: u64,
        times: Option<u64>,
    ) {
        let mut state = lock(&self.0.state);
        state.struck = 0;
        state.rule = Some(Rule {
            steps: steps.to_vec(),
            within,
            fault,
            skip,
            times,
        });
    }

    /// Ends the fault: what hangs goes on. Says how many steps it struck.
    pub(crate) fn end(&self) -> u64 {
        let mut state = lock(&self.0.state);
        state.rule = None;
        self.0.changed.notify_all();
        state.struck
    }

    /// How many steps the fault has struck so far.
    pub(crate) fn struck(&self) -> u64 {
        lock(&self.0.state).struck
    }

    /// Waits until the fault has struck.
    pub(crate) fn await_strike(&self) {
        let state = lock(&self.0.state);
        let struck = self.0.changed.wait_while(state, |state| state.struck == 0);
        drop(struck.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.end();
        lock(&PLANS).retain(|plan| !Arc::ptr_eq(plan, &self.0));
    }
}

/// The fault that a step at `path` meets, after it has hung where it had to.
fn strike(step: Step, path: &Path) -> Option<Fault> {
    let plan = {
        let plans = lock(&PLANS);
        let plan = plans.iter().find(|plan| path.starts_with(&plan.folder));
        Arc::clone(plan?)
    };
    let mut state = lock(&plan.state);
    let rule = state.rule.as_mut()?;
    if !rule.steps.contains(&step) || !path.to_string_lossy().contains(rule.within) {
        return None;
    }
    if let Some(skip) = rule.skip.checked_sub(1) {
        rule.skip = skip;
        return None;
    }
    if let Some(times) = &mut rule.times {
        *times = times.checked_sub(1)?;
    }
    let fault = rule.fault;
    state.struck += 1;
    plan.changed.notify_all();
    if fault != Fault::Hang {
        return Some(fault);
    }
    let ended = plan.changed.wait_while(state, |state| state.rule.is_some());
    drop(ended.unwrap_or_else(PoisonError::into_inner));
    None
}

/// Called before a step.
pub(super) fn meet(step: Step, path: &Path) -> io::Result<()> {
    match strike(step, path) {
        None => Ok(()),
        Some(Fault::Error(errno)) => Err(errno.into()),
        Some(Fault::Short | Fault::Hang) => Err(Errno::NOSPC.into()),
    }
}

/// How much of a write takes place.
pub(super) fn allowed<'a>(step: Step, path: &Path, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    match strike(step, path) {
        None => Ok(bytes),
        Some(Fault::Error(errno)) => Err(errno.into()),
        Some(Fault::Short | Fault::Hang) => Ok(&bytes[..bytes.len() / 2]),
    }
}
