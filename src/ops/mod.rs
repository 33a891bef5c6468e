//! What operators see: counters, the access log, and the admin listener.
//!
//! Nothing here measures anything itself. Requests arrive as [`Report`]s, sizes as
//! [`Stats`](crate::flow::Stats), and what only the net room sees as calls on
//! [`Metrics`] that `cli` wires up.

pub mod access_log;
pub mod admin;
pub mod answer;
pub mod browser;
pub mod explain;
pub mod inventory;
pub mod live;
pub mod metrics;
mod openapi;
mod page;
pub mod picture;
mod purges;
pub mod reload;
pub mod traces;

use crate::flow::Report;
use crate::flow::Sink;
use crate::flow::Span;
use crate::flow::Step;
use access_log::AccessLog;
use arc_swap::ArcSwapOption;
use live::Live;
use metrics::Metrics;
use std::sync::Arc;
use traces::Tracer;

/// Takes every request's report: counts it, looks at what it was for, then logs it.
#[derive(Debug)]
pub struct Observer {
    metrics: Arc<Metrics>,
    live: Arc<Live>,
    access_log: ArcSwapOption<AccessLog>,
    tracer: ArcSwapOption<Tracer>,
}

impl Observer {
    /// Makes an observer; without an access log it only counts.
    pub fn new(metrics: Arc<Metrics>, live: Arc<Live>, access_log: Option<AccessLog>) -> Self {
        Self {
            metrics,
            live,
            access_log: ArcSwapOption::from_pointee(access_log),
            tracer: ArcSwapOption::empty(),
        }
    }

    /// Logs elsewhere from now on. What the log of before was told it still writes, in its own time.
    pub fn log_to(&self, access_log: Option<AccessLog>) {
        self.access_log.store(access_log.map(Arc::new));
    }

    /// Sends spans elsewhere from now on, or nowhere. What was told before is still sent.
    pub fn trace_to(&self, tracer: Option<Tracer>) {
        self.tracer.store(tracer.map(Arc::new));
    }

    /// Has the log's destination opened anew: its file may have been moved away.
    pub fn reopen(&self) {
        if let Some(log) = &*self.access_log.load() {
            log.reopen();
        }
    }

    /// Writes what is to be logged, and logs no more. Blocking.
    pub fn close(&self) {
        if let Some(log) = self.access_log.swap(None) {
            log.close();
        }
        if let Some(tracer) = self.tracer.swap(None).and_then(Arc::into_inner) {
            tracer.close();
        }
    }
}

impl Sink for Observer {
    fn take(&self, report: Report) {
        self.metrics.count(&report);
        self.live.take(&report);
        if let Some(trace) = report.trace.filter(|trace| trace.sampled) {
            self.tell(Span {
                trace,
                id: trace.span,
                at: report.at,
                took: report.took,
                step: Step::Request(Box::new(report.clone())),
            });
        }
        if let Some(log) = &*self.access_log.load()
            && !log.write(report)
        {
            self.metrics.access_log_dropped.add(1);
        }
    }

    fn tell(&self, span: Span) {
        if let Some(tracer) = &*self.tracer.load() {
            tracer.tell(span);
        }
    }
}
