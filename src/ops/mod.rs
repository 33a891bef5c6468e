//! What operators see: counters, the access log, and the admin listener.
//!
//! Nothing here measures anything itself. Requests arrive as [`Report`]s, sizes as
//! [`Stats`](crate::flow::Stats), and what only the net room sees as calls on
//! [`Metrics`] that `cli` wires up.

pub mod access_log;
pub mod admin;
pub mod answer;
pub mod explain;
pub mod inventory;
pub mod metrics;
pub mod reload;

use crate::flow::Report;
use crate::flow::Sink;
use access_log::AccessLog;
use arc_swap::ArcSwapOption;
use metrics::Metrics;
use std::sync::Arc;

/// Takes every request's report: counts it, then logs it.
#[derive(Debug)]
pub struct Observer {
    metrics: Arc<Metrics>,
    access_log: ArcSwapOption<AccessLog>,
}

impl Observer {
    /// Makes an observer; without an access log it only counts.
    pub fn new(metrics: Arc<Metrics>, access_log: Option<AccessLog>) -> Self {
        Self {
            metrics,
            access_log: ArcSwapOption::from_pointee(access_log),
        }
    }

    /// Logs elsewhere from now on. What the log of before was told it still writes, in its own time.
    pub fn log_to(&self, access_log: Option<AccessLog>) {
        self.access_log.store(access_log.map(Arc::new));
    }

    /// Writes what is to be logged, and logs no more. Blocking.
    pub fn close(&self) {
        if let Some(log) = self.access_log.swap(None) {
            log.close();
        }
    }
}

impl Sink for Observer {
    fn take(&self, report: Report) {
        self.metrics.count(&report);
        if let Some(log) = &*self.access_log.load()
            && !log.write(report)
        {
            self.metrics.access_log_dropped.add(1);
        }
    }
}
