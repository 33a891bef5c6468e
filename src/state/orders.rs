//! Which names need a certificate, and when to order one.
//!
//! ```text
//! want(names)  ─ new ────────────────► due
//! ask(name)    ─ room and allowance ─► due, once          ─ none ─► Refuse
//! start(now) ─► a due name ─► under way ─┬─ issued ─► due at two thirds of its life, or a bit later
//!                                        └─ failed ─► due after a wait that doubles
//! ```
//!
//! A name that fails waits by itself. When the authority fails, everything waits for it, and one
//! order at a time finds out whether it is back. A certificate that is due the moment it arrives (a
//! clock is wrong) counts as a failure too, so that nothing here can hammer an authority. What is
//! ordered how, and what becomes of certificates, is left to whoever calls.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::SystemTime;

/// Bounds on orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Most names looked after.
    pub names_max: usize,
    /// Most orders under way at a time, at least one.
    pub orders_max: usize,
    /// The wait after a first failure.
    pub wait_min: Duration,
    /// The longest wait.
    pub wait_max: Duration,
    /// Most orders in any hour for names that clients ask for.
    pub asked_per_hour: usize,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last.
    pub not_after: SystemTime,
}

impl Life {
    /// When to renew: at two thirds, and up to a thirtieth later by `chance`, so that what was
    /// issued together is not renewed together.
    pub fn renew_at(self, chance: u64) -> SystemTime {
        let whole = self.not_after.duration_since(self.not_before);
        let whole = whole.unwrap_or_default();
        self.not_before + whole * 2 / 3 + part(whole / 30, chance)
    }
}

/// Whose failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The authority cannot be reached, or does not work: no order would do.
    Authority,
    /// This name's, as far as can be told.
    Name,
}

/// What a client that asks for a name is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ask {
    /// There is a certificate already.
    Held,
    /// It failed before, and it is too early to try again.
    RefuseFailed,
    /// Too many names.
    RefuseFull,
    /// Too many orders within an hour.
    RefuseRate,
    /// An order is under way or about to be.
    Wait,
}

/// A name as people are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The name.
    pub name: String,
    /// A client asked for it; no site has it.
    pub asked: bool,
    /// An order is under way.
    pub under_way: bool,
    /// When the next order is due, if one is.
    pub due: Option<SystemTime>,
    /// Failures of its own in a row.
    pub failures: u32,
    /// Why the last order failed, if it did.
    pub trouble: Option<String>,
}

/// The names and their orders.
#[derive(Debug)]
pub struct Orders {
    params: Params,
    names: BTreeMap<String, Name>,
    under_way: usize,
    /// When orders for names that were asked for were let in, within the last hour.
    let_in: Vec<SystemTime>,
    /// Failures of the authority in a row.
    outages: u32,
    /// No order is started before.
    resume_at: Option<SystemTime>,
}

#[derive(Debug)]
struct Name {
    asked: bool,
    held: bool,
    under_way: bool,
    /// When an order is due; for names without one, not by itself.
    due: Option<SystemTime>,
    /// When it may be asked for again.
    not_before: Option<SystemTime>,
    failures: u32,
    trouble: Option<String>,
}

impl Name {
    fn new(asked: bool, due: Option<SystemTime>) -> Self {
        Self {
            asked,
            held: false,
            under_way: false,
            due,
            not_before: None,
            failures: 0,
            trouble: None,
        }
    }
}

impl Orders {
    /// Looks after nothing yet.
    pub fn new(params: Params) -> Self {
        Self {
            params,
            names: BTreeMap::new(),
            under_way: 0,
            let_in: Vec::new(),
            outages: 0,
            resume_at: None,
        }
    }

    /// Takes new bounds; what is under way goes on.
    pub fn limit(&mut self, params: Params) {
        self.params = params;
    }

    /// Looks after these names from now on, and of those that clients asked for only after what
    /// `allowed` says. Returns the names that there is no room for.
    pub fn want(
        &mut self,
        names: &BTreeSet<String>,
        allowed: impl Fn(&str) -> bool,
        now: SystemTime,
    ) -> Vec<String> {
        self.names
            .retain(|name, state| names.contains(name) || (state.asked && allowed(name)));
        let mut left_out = Vec::new();
        for name in names {
            if let Some(state) = self.names.get_mut(name) {
                state.asked = false;
                if !state.held && state.due.is_none() {
                    state.due = Some(now);
                }
            } else if self.has_room() {
                self.names.insert(name.clone(), Name::new(false, Some(now)));
            } else {
                left_out.push(name.clone());
            }
        }
        self.under_way = self.names.values().filter(|name| name.under_way).count();
        left_out
    }

    /// A certificate was found for a name, from an earlier run. A name that no site has is one that
    /// a client asked for; returns whether there is room for it.
    pub fn found(&mut self, name: &str, life: Life, chance: u64) -> bool {
        if !self.names.contains_key(name) {
            if !self.has_room() {
                return false;
            }
            self.names.insert(name.to_owned(), Name::new(true, None));
        }
        if let Some(state) = self.names.get_mut(name) {
            state.held = true;
            state.due = Some(life.renew_at(chance));
        }
        true
    }

    /// Whether there is a certificate for a name.
    pub fn holds(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|state| state.held)
    }

    /// A client asks for a name that is allowed.
    pub fn ask(&mut self, name: &str, now: SystemTime) -> Ask {
        let known = self.names.get(name);
        if known.is_some_and(|state| state.held) {
            return Ask::Held;
        }
        if known.is_some_and(|state| state.under_way) {
            return Ask::Wait;
        }
        if self.resume_at.is_some_and(|then| now < then) {
            return Ask::RefuseFailed;
        }
        if let Some(state) = known {
            if state.due.is_some_and(|due| due <= now) {
                return Ask::Wait;
            }
            if !state.asked || state.not_before.is_some_and(|then| now < then) {
                return Ask::RefuseFailed;
            }
        } else if !self.has_room() {
            return Ask::RefuseFull;
        }
        let hour_ago = now.checked_sub(HOUR).unwrap_or(SystemTime::UNIX_EPOCH);
        // A time in the future is from before the clock was set back.
        self.let_in.retain(|then| (hour_ago..=now).contains(then));
        if self.let_in.len() >= self.params.asked_per_hour {
            return Ask::RefuseRate;
        }
        self.let_in.push(now);
        let state = self.names.entry(name.to_owned());
        state.or_insert_with(|| Name::new(true, None)).due = Some(now);
        Ask::Wait
    }

    /// Returns the name that an order should be made for now, the longest due first; call it again
    /// until there is none.
    pub fn start(&mut self, now: SystemTime) -> Option<String> {
        if self.is_busy() || self.resume_at.is_some_and(|then| now < then) {
            return None;
        }
        let waiting = self.names.iter_mut().filter(|(_, state)| !state.under_way);
        let due = waiting.filter_map(|(name, state)| Some((state.due?, name, state)));
        let (_, name, state) = due
            .filter(|(due, _, _)| *due <= now)
            .min_by_key(|(due, _, _)| *due)?;
        state.under_way = true;
        self.under_way += 1;
        Some(name.clone())
    }

    /// Returns when [`start`](Self::start) should be asked again, if nothing else happens before.
    pub fn next(&self) -> Option<SystemTime> {
        if self.is_busy() {
            return None;
        }
        let waiting = self.names.values().filter(|state| !state.under_way);
        let due = waiting.filter_map(|state| state.due).min()?;
        Some(self.resume_at.map_or(due, |resume| due.max(resume)))
    }

    /// An order was fulfilled.
    pub fn issued(&mut self, name: &str, life: Life, chance: u64, now: SystemTime) {
        (self.outages, self.resume_at) = (0, None);
        let wait_after = |failures| wait(&self.params, failures, chance);
        let Some(state) = self.names.get_mut(name) else {
            return;
        };
        if std::mem::take(&mut state.under_way) {
            self.under_way = self.under_way.saturating_sub(1);
        }
        state.held = true;
        let due = life.renew_at(chance);
        if due > now {
            (state.failures, state.trouble) = (0, None);
            state.due = Some(due);
        } else {
            state.failures = state.failures.saturating_add(1);
            state.trouble = Some(OLD_AT_ONCE.to_owned());
            state.due = Some(now + wait_after(state.failures));
        }
    }

    /// An order failed; `not_before` is when the authority said that it may be tried again.
    /// Returns when it will be, for a name that nobody has to ask for.
    pub fn failed(
        &mut self,
        name: &str,
        fault: Fault,
        why: String,
        not_before: Option<SystemTime>,
        chance: u64,
        now: SystemTime,
    ) -> Option<SystemTime> {
        // What an authority asks for counts within the bounds.
        let latest = now + self.params.wait_max;
        let later = |wait: Duration| (now + wait).max(not_before.unwrap_or(now).min(latest));
        if fault == Fault::Authority {
            self.outages = self.outages.saturating_add(1);
            self.resume_at = Some(later(wait(&self.params, self.outages, chance)));
        } else {
            (self.outages, self.resume_at) = (0, None);
        }
        let state = self.names.get_mut(name)?;
        if std::mem::take(&mut state.under_way) {
            self.under_way = self.under_way.saturating_sub(1);
        }
        state.trouble = Some(why);
        let next = match fault {
            // It is tried when the authority is.
            Fault::Authority => now,
            Fault::Name => {
                state.failures = state.failures.saturating_add(1);
                later(wait(&self.params, state.failures, chance))
            }
        };
        state.not_before = Some(next);
        // What only a client wanted waits for the next client.
        state.due = (state.held || !state.asked).then_some(next);
        let due = state.due?;
        Some(self.resume_at.map_or(due, |resume| due.max(resume)))
    }

    /// How often the authority has failed in a row, and when it is tried again.
    pub fn outage(&self) -> (u32, Option<SystemTime>) {
        (self.outages, self.resume_at)
    }

    /// Tells of every name.
    pub fn tell(&self) -> Vec<Told> {
        let told = self.names.iter().map(|(name, state)| Told {
            name: name.clone(),
            asked: state.asked,
            under_way: state.under_way,
            due: state.due,
            failures: state.failures,
            trouble: state.trouble.clone(),
        });
        told.collect()
    }

    /// Whether as many orders are under way as may be. While the authority is not known to work, one
    /// finds out.
    fn is_busy(&self) -> bool {
        let most = match self.outages {
            0 => self.params.orders_max,
            _ => 1,
        };
        self.under_way >= most
    }

    /// Makes room by forgetting a name that a client asked for in vain, if it must.
    fn has_room(&mut self) -> bool {
        if self.names.len() < self.params.names_max {
            return true;
        }
        let in_vain = self
            .names
            .iter()
            .filter(|(_, state)| state.asked && !state.held && !state.under_way)
            .filter(|(_, state)| state.due.is_none())
            .min_by_key(|(_, state)| state.not_before)
            .map(|(name, _)| name.clone());
        in_vain.is_some_and(|name| self.names.remove(&name).is_some())
    }
}

/// The wait after so many failures in a row: doubled each time up to the longest, and between half
/// and all of it by chance.
fn wait(params: &Params, failures: u32, chance: u64) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1).min(31));
    let whole = params
        .wait_min
        .saturating_mul(doubled.unwrap_or(u32::MAX))
        .min(params.wait_max);
    whole / 2 + part(whole / 2, chance)
}

/// A part of `whole` by chance.
fn part(whole: Duration, chance: u64) -> Duration {
    let nanos = whole.as_nanos().saturating_mul(u128::from(chance)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

const OLD_AT_ONCE: &str =
    "the new certificate is to be renewed already: is the clock of this machine right?";

const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BORN: SystemTime = SystemTime::UNIX_EPOCH;
    const NO: &str = "no";

    fn at(seconds: u64) -> SystemTime {
        BORN + Duration::from_secs(seconds)
    }

    fn params() -> Params {
        Params {
            names_max: 3,
            orders_max: 2,
            wait_min: Duration::from_secs(60),
            wait_max: Duration::from_secs(1000),
            asked_per_hour: 2,
        }
    }

    /// Two thirds of it end at 9,000 s.
    fn life() -> Life {
        Life {
            not_before: at(3000),
            not_after: at(12_000),
        }
    }

    fn wanting(names: &[&str]) -> Orders {
        let mut orders = Orders::new(params());
        want(&mut orders, names, at(0));
        orders
    }

    fn want(orders: &mut Orders, names: &[&str], now: SystemTime) -> Vec<String> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        orders.want(&names, |_| true, now)
    }

    fn fail(orders: &mut Orders, name: &str, fault: Fault, now: u64) {
        orders.failed(name, fault, NO.to_owned(), None, u64::MAX, at(now));
    }

    fn told(orders: &Orders, name: &str) -> Told {
        let mut all = orders.tell().into_iter();
        all.find(|told| told.name == name).unwrap()
    }

    #[test]
    fn a_site_s_name_is_ordered_at_once_and_once() {
        let mut orders = wanting(&["a.test"]);
        assert_eq!(orders.start(at(0)).as_deref(), Some("a.test"));
        assert_eq!(orders.start(at(0)), None);
        assert_eq!(orders.next(), None);
    }

    #[test]
    fn no_more_orders_are_under_way_than_the_bound() {
        let mut orders = wanting(&["a.test", "b.test", "c.test"]);
        assert!(orders.start(at(0)).is_some());
        assert!(orders.start(at(0)).is_some());
        assert_eq!(orders.start(at(0)), None);
        orders.issued("a.test", life(), 0, at(3000));
        assert_eq!(orders.start(at(3000)).as_deref(), Some("c.test"));
    }

    #[test]
    fn renewal_is_due_at_two_thirds_of_life_or_a_bit_later() {
        assert_eq!(life().renew_at(0), at(9000));
        let latest = life().renew_at(u64::MAX);
        assert!(latest > at(9299) && latest <= at(9300));
        let mut orders = wanting(&["a.test"]);
        orders.start(at(0));
        orders.issued("a.test", life(), 0, at(3000));
        assert_eq!(orders.next(), Some(at(9000)));
        assert_eq!(orders.start(at(8999)), None);
        assert_eq!(orders.start(at(9000)).as_deref(), Some("a.test"));
    }

    #[test]
    fn what_is_found_is_not_ordered_until_it_is_due() {
        let mut orders = wanting(&["a.test"]);
        assert!(orders.found("a.test", life(), 0));
        assert_eq!(orders.start(at(5000)), None);
        assert_eq!(orders.ask("a.test", at(5000)), Ask::Held);
        assert!(orders.start(at(9000)).is_some());
    }

    #[test]
    fn a_wait_doubles_with_each_failure_up_to_the_longest() {
        let mut orders = wanting(&["a.test"]);
        let mut now = 0;
        for wait in [60, 120, 240, 480, 960, 1000, 1000] {
            assert!(orders.start(at(now)).is_some());
            fail(&mut orders, "a.test", Fault::Name, now);
            let due = orders.next().unwrap();
            assert!(due > at(now + wait - 1) && due <= at(now + wait), "{wait}");
            now += wait;
        }
        assert_eq!(told(&orders, "a.test").failures, 7);
        assert_eq!(told(&orders, "a.test").trouble.as_deref(), Some(NO));
        orders.start(at(now));
        orders.issued(
            "a.test",
            Life {
                not_before: at(now),
                not_after: at(now + 900),
            },
            0,
            at(now),
        );
        assert_eq!(told(&orders, "a.test").failures, 0);
        assert_eq!(told(&orders, "a.test").trouble, None);
    }

    #[test]
    fn a_wait_is_between_half_and_all_by_chance() {
        for (chance, least, most) in [(0, 30, 30), (1 << 63, 45, 45), (u64::MAX, 59, 60)] {
            let wait = wait(&params(), 1, chance);
            assert!((least..=most).contains(&wait.as_secs()), "{wait:?}");
        }
        assert!(wait(&params(), u32::MAX, 0) >= Duration::from_secs(500));
    }

    #[test]
    fn what_the_authority_asks_for_is_waited_for_within_the_bound() {
        let mut orders = wanting(&["a.test"]);
        for (asked, due) in [(700, 700), (9999, 1000)] {
            orders.start(at(0));
            let next = orders.failed(
                "a.test",
                Fault::Name,
                NO.to_owned(),
                Some(at(asked)),
                0,
                at(0),
            );
            assert_eq!(next, Some(at(due)));
            want(&mut orders, &[], at(0));
            want(&mut orders, &["a.test"], at(0));
        }
    }

    #[test]
    fn one_order_at_a_time_finds_out_whether_the_authority_is_back() {
        let mut orders = wanting(&["a.test", "b.test", "c.test"]);
        orders.start(at(0));
        orders.start(at(0));
        fail(&mut orders, "a.test", Fault::Authority, 0);
        fail(&mut orders, "b.test", Fault::Authority, 0);
        let (outages, resume) = orders.outage();
        assert_eq!(outages, 2);
        assert!(resume.unwrap() > at(119));
        assert_eq!(orders.start(at(100)), None);
        assert_eq!(orders.next(), resume);
        let first = orders.start(at(120)).unwrap();
        assert_eq!(orders.start(at(120)), None);
        orders.issued(&first, life(), 0, at(3000));
        assert_eq!(orders.outage(), (0, None));
        assert!(orders.start(at(3000)).is_some());
        assert!(orders.start(at(3000)).is_some());
        assert_eq!(told(&orders, "b.test").failures, 0);
    }

    #[test]
    fn a_certificate_that_is_due_at_once_does_not_make_a_loop() {
        let mut orders = wanting(&["a.test"]);
        orders.start(at(20_000));
        orders.issued("a.test", life(), u64::MAX, at(20_000));
        assert!(told(&orders, "a.test").trouble.unwrap().contains("clock"));
        assert_eq!(orders.start(at(20_059)), None);
        assert!(orders.start(at(20_060)).is_some());
        orders.issued("a.test", life(), u64::MAX, at(20_060));
        assert_eq!(orders.start(at(20_179)), None);
    }

    #[test]
    fn a_client_s_name_is_ordered_and_tried_again_only_when_asked_for() {
        let mut orders = Orders::new(params());
        assert_eq!(orders.ask("x.test", at(0)), Ask::Wait);
        assert_eq!(orders.ask("x.test", at(0)), Ask::Wait);
        assert_eq!(orders.start(at(0)).as_deref(), Some("x.test"));
        assert_eq!(orders.ask("x.test", at(1)), Ask::Wait);
        fail(&mut orders, "x.test", Fault::Name, 1);
        assert_eq!(orders.ask("x.test", at(60)), Ask::RefuseFailed);
        assert_eq!(orders.start(at(600)), None);
        assert_eq!(orders.ask("x.test", at(600)), Ask::Wait);
        assert!(orders.start(at(600)).is_some());
        orders.issued("x.test", life(), 0, at(3000));
        assert_eq!(orders.ask("x.test", at(3000)), Ask::Held);
        assert_eq!(orders.start(at(9000)).as_deref(), Some("x.test"));
    }

    #[test]
    fn names_that_clients_ask_for_have_an_allowance_each_hour() {
        let mut orders = Orders::new(params());
        assert_eq!(orders.ask("x.test", at(0)), Ask::Wait);
        assert_eq!(orders.ask("y.test", at(10)), Ask::Wait);
        assert_eq!(orders.ask("z.test", at(3600)), Ask::RefuseRate);
        assert_eq!(orders.ask("z.test", at(3601)), Ask::Wait);
    }

    #[test]
    fn a_clock_set_back_does_not_use_up_the_allowance() {
        let mut orders = Orders::new(params());
        assert_eq!(orders.ask("x.test", at(9000)), Ask::Wait);
        assert_eq!(orders.ask("y.test", at(9000)), Ask::Wait);
        assert_eq!(orders.ask("z.test", at(100)), Ask::Wait);
    }

    #[test]
    fn nobody_is_kept_waiting_for_an_authority_that_is_out() {
        let mut orders = wanting(&["a.test"]);
        orders.start(at(0));
        fail(&mut orders, "a.test", Fault::Authority, 0);
        assert_eq!(orders.ask("x.test", at(1)), Ask::RefuseFailed);
        assert_eq!(orders.ask("a.test", at(1)), Ask::RefuseFailed);
        assert_eq!(orders.ask("x.test", at(60)), Ask::Wait);
    }

    #[test]
    fn names_have_a_bound_and_failed_ones_make_room() {
        let mut orders = wanting(&["a.test"]);
        let left_out = want(
            &mut orders,
            &["a.test", "b.test", "c.test", "d.test"],
            at(0),
        );
        assert_eq!(left_out, ["d.test"]);
        assert_eq!(orders.ask("x.test", at(0)), Ask::RefuseFull);
        assert!(!orders.found("x.test", life(), 0));
        let mut orders = wanting(&["a.test", "b.test"]);
        assert_eq!(orders.ask("x.test", at(0)), Ask::Wait);
        (0..3).for_each(|_| drop(orders.start(at(0))));
        fail(&mut orders, "a.test", Fault::Name, 0);
        orders.start(at(0));
        fail(&mut orders, "x.test", Fault::Name, 0);
        assert_eq!(orders.ask("y.test", at(0)), Ask::Wait);
        assert_eq!(orders.ask("x.test", at(0)), Ask::RefuseFull);
    }

    #[test]
    fn names_that_are_no_longer_wanted_are_forgotten() {
        let mut orders = wanting(&["a.test", "b.test"]);
        assert_eq!(orders.ask("x.test", at(0)), Ask::Wait);
        orders.start(at(0));
        let none = orders.want(&BTreeSet::from(["b.test".to_owned()]), |_| false, at(0));
        assert!(none.is_empty());
        let names: Vec<String> = orders.tell().into_iter().map(|told| told.name).collect();
        assert_eq!(names, ["b.test"]);
        orders.issued("a.test", life(), 0, at(3000));
        assert!(orders.start(at(3000)).is_some());
        assert_eq!(orders.start(at(3000)), None);
    }

    #[test]
    fn a_client_s_name_that_a_site_gets_is_tried_by_itself() {
        let mut orders = Orders::new(params());
        assert_eq!(orders.ask("x.test", at(0)), Ask::Wait);
        orders.start(at(0));
        fail(&mut orders, "x.test", Fault::Name, 0);
        assert_eq!(orders.next(), None);
        want(&mut orders, &["x.test"], at(5));
        assert!(orders.start(at(5)).is_some());
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bounds_hold(steps in proptest::collection::vec((0_u8..6, 0_u8..6, any::<u64>(), 0_u64..5000), 0..200)) {
            let mut orders = Orders::new(params());
            let mut now = at(0);
            for (step, name, chance, later) in steps {
                let name = format!("n{name}.test");
                now += Duration::from_secs(later);
                match step {
                    0 => drop(want(&mut orders, &["n0.test", &name], now)),
                    1 => drop(orders.ask(&name, now)),
                    2 => drop(orders.start(now)),
                    3 => orders.issued(&name, Life { not_before: now, not_after: now + Duration::from_secs(chance % 10_000) }, chance, now),
                    4 => drop(orders.failed(&name, Fault::Name, NO.to_owned(), None, chance, now)),
                    _ => drop(orders.failed(&name, Fault::Authority, NO.to_owned(), Some(now), chance, now)),
                }
                let told = orders.tell();
                prop_assert!(told.len() <= 3);
                let under_way = told.iter().filter(|told| told.under_way).count();
                prop_assert_eq!(under_way, orders.under_way);
                prop_assert!(under_way <= 2);
                let waits = told.iter().filter(|told| told.failures > 0).filter_map(|told| told.due);
                prop_assert!(waits.into_iter().all(|due| due <= now + Duration::from_secs(1000)));
            }
        }
    }
}
