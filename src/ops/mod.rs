//! What operators see: counters, the access log, and the admin listener.
//!
//! Nothing here measures anything itself. Requests arrive as [`Report`]s, sizes as
//! [`Stats`](crate::flow::Stats), and what only the net room sees as calls on
//! [`Metrics`] that `cli` wires up.

pub mod access_log;
pub mod admin;
pub mod answer;
pub mod inventory;
pub mod metrics;

use crate::flow::Report;
use crate::flow::Sink;
use access_log::AccessLog;
use metrics::Metrics;
use std::sync::Arc;

/// Takes every request's report: counts it, then logs it.
#[derive(Debug)]
pub struct Observer {
    metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
}

impl Observer {
    /// Makes an observer; without an access log it only counts.
    pub fn new(metrics: Arc<Metrics>, access_log: Option<Arc<AccessLog>>) -> Self {
        Self {
            metrics,
            access_log,
        }
    }
}

impl Sink for Observer {
    fn take(&self, report: Report) {
        self.metrics.count(&report);
        if let Some(log) = &self.access_log
            && !log.write(report)
        {
            self.metrics.access_log_dropped.add(1);
        }
    }
}
