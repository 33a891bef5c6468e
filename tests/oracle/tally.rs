//! Known differences, and how often each of them showed.

use proptest::prelude::Strategy;
use proptest::prelude::TestCaseError;
use proptest::test_runner::Config;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestCaseResult;
use proptest::test_runner::TestRng;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::io::Write;

/// A difference that the RFC decides in our favour, or leaves to us.
pub(crate) struct Known<A: 'static> {
    pub(crate) name: &'static str,
    pub(crate) because: &'static str,
    pub(crate) applies: fn(&A) -> bool,
}

/// How often each known difference of a table showed.
pub(crate) struct Tally<A: 'static> {
    table: &'static [Known<A>],
    agreed: RefCell<u32>,
    met: RefCell<BTreeMap<&'static str, u32>>,
}

impl<A: Debug> Tally<A> {
    pub(crate) fn new(table: &'static [Known<A>]) -> Self {
        Self {
            table,
            agreed: RefCell::default(),
            met: RefCell::default(),
        }
    }

    /// The answers agree, or differ in a known way.
    pub(crate) fn compare(&self, answers: &A, agree: bool) -> TestCaseResult {
        if agree {
            *self.agreed.borrow_mut() += 1;
            return Ok(());
        }
        let known = self.table.iter().filter(|known| (known.applies)(answers));
        let names: Vec<_> = known.map(|known| known.name).collect();
        if names.is_empty() {
            return Err(TestCaseError::fail(format!("{answers:#?}")));
        }
        for name in names {
            *self.met.borrow_mut().entry(name).or_default() += 1;
        }
        Ok(())
    }

    /// Prints the counts; every known difference must have shown.
    #[track_caller]
    pub(crate) fn close(&self, title: &str) {
        // Written past the test harness, which would keep it to itself when the test passes.
        let report = format!("{}\n", self.report(title));
        drop(io::stdout().write_all(report.as_bytes()));
        for known in self.table {
            assert!(self.times(known) > 0, "no longer differs: {}", known.name);
        }
    }

    fn report(&self, title: &str) -> String {
        let mut text = format!("{title}\n{:7} agreed\n", self.agreed.borrow());
        for known in self.table {
            let count = self.times(known);
            text += &format!("{count:7} {} ({})\n", known.name, known.because);
        }
        text
    }

    fn times(&self, known: &Known<A>) -> u32 {
        let met = self.met.borrow();
        met.get(known.name).copied().unwrap_or_default()
    }
}

/// Runs `check` on `cases` messages, the same ones every time: a difference is a change of ours, not
/// of luck.
#[track_caller]
pub(crate) fn compare_all<S: Strategy>(
    cases: u32,
    messages: &S,
    check: impl Fn(S::Value) -> TestCaseResult,
) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(messages, check) {
        panic!("an unknown difference: {error}");
    }
}
