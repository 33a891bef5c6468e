//! How old is a stored response, and how long may it be used? (RFC 9111 §4.2)
//!
//! Two numbers decide. The *freshness lifetime* is what the origin granted, or what may be guessed
//! where it granted nothing (§4.2.1, §4.2.2). The *current age* is how long ago the origin last
//! vouched for the response, as far as Date, Age and our own clock can tell (§4.2.3).
//!
//! ```text
//! s-maxage > max-age > Expires − Date > heuristic ──► freshness_lifetime ──┐
//!                                                                          ├──► Freshness
//! Date, Age, times of request and response, now ──► Timing::current_age ───┘
//! ```
//!
//! What a stale response may still do is asked in [`reuse`](super::reuse).

use super::directives::DELTA_SECONDS_MAX;
use super::directives::ResponseDirectives;
use super::directives::delta_seconds;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header::AGE;
use http::header::DATE;
use http::header::EXPIRES;
use http::header::LAST_MODIFIED;
use std::time::Duration;
use std::time::SystemTime;

/// Whether a stored response may be served without asking the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Younger than its freshness lifetime; `ttl` is what remains of it.
    Fresh {
        /// The remaining freshness lifetime.
        ttl: Duration,
    },
    /// At or past its freshness lifetime.
    Stale {
        /// How long ago it stopped being fresh.
        by: Duration,
    },
}

impl Freshness {
    /// Compares a freshness lifetime with a current age.
    ///
    /// Equal means stale: §4.2 calls a response fresh while the lifetime is *greater*.
    pub fn new(lifetime: Duration, current_age: Duration) -> Self {
        let ttl = lifetime.saturating_sub(current_age);
        if ttl.is_zero() {
            let by = current_age.saturating_sub(lifetime);
            return Self::Stale { by };
        }
        Self::Fresh { ttl }
    }
}

/// When a stored response travelled, as this cache saw it (RFC 9111 §4.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When the request that fetched it was sent.
    pub request_time: SystemTime,
    /// When its header section arrived.
    pub response_time: SystemTime,
    /// The origin's `Date`, or the time of arrival.
    pub date_value: SystemTime,
    /// The `Age` that caches nearer the origin had already counted.
    pub age_value: Duration,
}

/// What a current age is made of (RFC 9111 §4.2.3); the names are the RFC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// How old the response was on arrival by its Date.
    pub apparent_age: Duration,
    /// How long the exchange took.
    pub response_delay: Duration,
    /// How old it was on arrival by its Age, the exchange counted in.
    pub corrected_age_value: Duration,
    /// The greater of the two.
    pub corrected_initial_age: Duration,
    /// How long it has been here.
    pub resident_time: Duration,
    /// How old it is, at most [`DELTA_SECONDS_MAX`].
    pub current_age: Duration,
}

/// A freshness lifetime, and what grants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// How long, at most [`DELTA_SECONDS_MAX`].
    pub length: Duration,
    /// Where it comes from.
    pub source: LifetimeSource,
}

/// What grants a freshness lifetime, in the order in which they count (RFC 9111 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// The directive for shared caches.
    SMaxage,
    /// The directive for all caches.
    MaxAge,
    /// Expires less Date.
    Expires,
    /// A guess by Last-Modified.
    Heuristic,
}

impl LifetimeSource {
    /// The fixed word that names it.
    pub fn token(self) -> &'static str {
        match self {
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
        }
    }

    /// The section that defines it.
    pub fn section(self) -> &'static str {
        match self {
            Self::SMaxage => "RFC 9111 §5.2.2.10",
            Self::MaxAge => "RFC 9111 §5.2.2.1",
            Self::Expires => "RFC 9111 §5.3",
            Self::Heuristic => "RFC 9111 §4.2.2",
        }
    }
}

impl Timing {
    /// Takes Date and Age from a response that was asked for and arrived at these times.
    pub fn read(headers: &HeaderMap, request_time: SystemTime, response_time: SystemTime) -> Self {
        Self {
            request_time,
            response_time,
            date_value: date_field(headers, &DATE).unwrap_or(response_time),
            age_value: age_value(headers),
        }
    }

    /// Returns the current age at `now`, at most [`DELTA_SECONDS_MAX`].
    ///
    /// It never falls as `now` rises. "if any of its subsequent calculations overflows, the cache
    /// MUST consider the value to be 2147483648" (RFC 9111 §1.2.2): older nothing gets.
    pub fn current_age(&self, now: SystemTime) -> Duration {
        self.ages(now).current_age
    }

    /// Computes the current age at `now`, and tells every step.
    pub fn ages(&self, now: SystemTime) -> Ages {
        let apparent_age = elapsed(self.date_value, self.response_time);
        let response_delay = elapsed(self.request_time, self.response_time);
        let corrected_age_value = self.age_value.saturating_add(response_delay);
        let corrected_initial_age = apparent_age.max(corrected_age_value);
        let resident_time = elapsed(self.response_time, now);
        let current_age = corrected_initial_age.saturating_add(resident_time);
        Ages {
            apparent_age,
            response_delay,
            corrected_age_value,
            corrected_initial_age,
            resident_time,
            current_age: current_age.min(DELTA_SECONDS_MAX),
        }
    }

    /// Returns whether the response arrived after `now`: the clock was set back since, and how long
    /// the response has been here is not known. Less than a second counts for nothing, as ages are
    /// whole seconds.
    pub fn is_ahead_of(&self, now: SystemTime) -> bool {
        // The common case: no subtraction.
        now < self.response_time && elapsed(now, self.response_time) >= Duration::from_secs(1)
    }
}

/// Computes the freshness lifetime for a shared cache (RFC 9111 §4.2.1, §4.2.2), at most
/// [`DELTA_SECONDS_MAX`]; `None` when nothing grants one and none may be guessed.
///
/// A guess is a tenth of the time since the last modification, never more than `heuristic_max`;
/// zero turns guessing off. Targets with a query are treated like all others: §4.2.2 notes that
/// the old prohibition "has not been widely implemented" and does not repeat it.
pub fn freshness_lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    date_value: SystemTime,
    heuristic_max: Duration,
) -> Option<Lifetime> {
    let may_guess = directives.public || heuristically_cacheable(status);
    let (length, source) = if let Some(length) = directives.s_maxage {
        (length, LifetimeSource::SMaxage)
    } else if let Some(length) = directives.max_age {
        (length, LifetimeSource::MaxAge)
    } else if let Some(length) = expires_lifetime(headers, directives, date_value) {
        (length, LifetimeSource::Expires)
    } else if may_guess && !heuristic_max.is_zero() {
        let length = heuristic_lifetime(headers, date_value, heuristic_max)?;
        (length, LifetimeSource::Heuristic)
    } else {
        return None;
    };
    let length = length.min(DELTA_SECONDS_MAX);
    Some(Lifetime { length, source })
}

/// Returns whether a response with this status may be given a guessed freshness lifetime without
/// being marked `public` (RFC 9110 §15.1).
pub fn heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Reads a date in any of the three forms of RFC 9110 §5.6.7.
pub fn read_date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// Reads a field that holds one date; `None` when it is absent, unreadable or given twice.
pub fn date_field(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let date = read_date(lines.next()?)?;
    lines.next().is_none().then_some(date)
}

/// Writes a date as IMF-fixdate. Times that the form cannot hold, before 1970 or after the year
/// 9999, become the nearest that it can.
pub fn write_date(time: SystemTime) -> HeaderValue {
    let since_epoch = elapsed(SystemTime::UNIX_EPOCH, time).min(LAST_DATE);
    let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since_epoch);
    HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static(FIRST_DATE))
}

/// Expires − Date. An Expires that is unreadable, or given twice, has passed (RFC 9111 §5.3).
fn expires_lifetime(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    date_value: SystemTime,
) -> Option<Duration> {
    if directives.targeted || !headers.contains_key(EXPIRES) {
        return None;
    }
    let expires = date_field(headers, &EXPIRES);
    Some(expires.map_or(Duration::ZERO, |expires| elapsed(date_value, expires)))
}

fn heuristic_lifetime(
    headers: &HeaderMap,
    date_value: SystemTime,
    heuristic_max: Duration,
) -> Option<Duration> {
    let last_modified = date_field(headers, &LAST_MODIFIED)?;
    Some((elapsed(last_modified, date_value) / HEURISTIC_PART).min(heuristic_max))
}

/// The age that Age gives; zero when it gives none.
///
/// "a cache encountering a message with a list-based Age field value SHOULD use the first member
/// of the field value, discarding subsequent ones"; one that holds "something other than a
/// non-negative integer" is ignored (RFC 9111 §5.1). The lines of a field are one list, whose empty
/// members say nothing (RFC 9110 §5.3, §5.6.1.2). Parameters behind the integer are set aside:
/// they do not change it (RFC 9110 §5.6.6), and a response that says it is old is not to be taken
/// for a new one because of what it says besides.
fn age_value(headers: &HeaderMap) -> Duration {
    headers
        .get_all(AGE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .find(|member| !member.is_empty())
        .and_then(|first| first.split(|byte| *byte == b';').next())
        .and_then(|value| delta_seconds(value.trim_ascii_end()))
        .unwrap_or(Duration::ZERO)
}

/// Returns the time from `earlier` to `later`.
///
/// Zero when the wall clock was set back in between: the stored response is then as old as it was
/// known to be on arrival, never younger.
fn elapsed(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or(Duration::ZERO)
}

/// A guess is one part in this many of the time since the last modification (RFC 9111 §4.2.2).
const HEURISTIC_PART: u32 = 10;
/// From 1970 to the last second of the year 9999.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);
/// The epoch as IMF-fixdate.
const FIRST_DATE: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::any;
    use proptest::prelude::proptest;
    use proptest::prop_assert;
    use proptest::prop_assert_eq;

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";
    const ONE_HOUR_LATER: &str = "Sun, 06 Nov 1994 13:00:00 GMT";
    const TEN_HOURS_EARLIER: &str = "Sun, 06 Nov 1994 02:00:00 GMT";
    const DAY: Duration = Duration::from_secs(86_400);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn noon() -> SystemTime {
        httpdate::parse_http_date(NOON).unwrap()
    }

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn arrived_at_once() -> Timing {
        Timing {
            request_time: noon(),
            response_time: noon(),
            date_value: noon(),
            age_value: secs(0),
        }
    }

    fn lifetime_of(status: StatusCode, lines: &[(&'static str, &str)]) -> Option<Duration> {
        let headers = fields(lines);
        let directives = ResponseDirectives::read(&headers);
        let lifetime = freshness_lifetime(status, &headers, &directives, noon(), DAY);
        lifetime.map(|lifetime| lifetime.length)
    }

    fn source(lines: &[(&'static str, &str)]) -> Option<LifetimeSource> {
        let headers = fields(lines);
        let directives = ResponseDirectives::read(&headers);
        let lifetime = freshness_lifetime(StatusCode::OK, &headers, &directives, noon(), DAY);
        lifetime.map(|lifetime| lifetime.source)
    }

    fn lifetime(lines: &[(&'static str, &str)]) -> Option<Duration> {
        lifetime_of(StatusCode::OK, lines)
    }

    fn age(lines: &[(&'static str, &str)]) -> Duration {
        Timing::read(&fields(lines), noon(), noon()).age_value
    }

    #[test]
    fn a_response_is_stale_the_moment_its_lifetime_is_spent() {
        let one_left = Freshness::new(secs(60), secs(59));
        assert_eq!(one_left, Freshness::Fresh { ttl: secs(1) });
        let spent = Freshness::new(secs(60), secs(60));
        assert_eq!(spent, Freshness::Stale { by: secs(0) });
        let past = Freshness::new(secs(60), secs(67));
        assert_eq!(past, Freshness::Stale { by: secs(7) });
    }

    #[test]
    fn age_grows_with_time_in_the_store() {
        let timing = arrived_at_once();
        assert_eq!(timing.current_age(noon() + secs(40)), secs(40));
    }

    #[test]
    fn age_counts_what_other_caches_counted_and_the_time_on_the_way() {
        let timing = Timing {
            request_time: noon() - secs(5),
            age_value: secs(30),
            ..arrived_at_once()
        };
        assert_eq!(timing.current_age(noon() + secs(1)), secs(36));
    }

    #[test]
    fn a_response_is_at_least_as_old_as_its_date() {
        let timing = Timing {
            date_value: noon() - secs(100),
            age_value: secs(30),
            ..arrived_at_once()
        };
        assert_eq!(timing.current_age(noon()), secs(100));
    }

    #[test]
    fn a_date_in_the_future_makes_nothing_younger() {
        let timing = Timing {
            date_value: noon() + secs(100),
            age_value: secs(30),
            ..arrived_at_once()
        };
        assert_eq!(timing.current_age(noon()), secs(30));
    }

    #[test]
    fn a_clock_stepping_back_never_makes_a_response_younger() {
        let timing = Timing {
            age_value: secs(30),
            ..arrived_at_once()
        };
        assert_eq!(timing.current_age(noon() - secs(3600)), secs(30));
    }

    #[test]
    fn a_missing_or_unreadable_date_is_the_time_of_arrival() {
        let read = |headers: &HeaderMap| Timing::read(headers, noon(), noon()).date_value;
        assert_eq!(read(&HeaderMap::new()), noon());
        assert_eq!(read(&fields(&[("date", "yesterday")])), noon());
        let twice = fields(&[("date", TEN_HOURS_EARLIER), ("date", ONE_HOUR_LATER)]);
        assert_eq!(read(&twice), noon());
        let once = fields(&[("date", TEN_HOURS_EARLIER)]);
        assert_eq!(read(&once), noon() - secs(36_000));
    }

    #[test]
    fn the_first_age_counts() {
        assert_eq!(age(&[("age", "10")]), secs(10));
        assert_eq!(age(&[("age", "10, 20")]), secs(10));
        assert_eq!(age(&[("age", "10"), ("age", "20")]), secs(10));
    }

    #[test]
    fn empty_members_before_the_first_age_say_nothing() {
        assert_eq!(age(&[("age", " , 10, 20")]), secs(10));
        assert_eq!(age(&[("age", ""), ("age", "20")]), secs(20));
    }

    #[test]
    fn parameters_of_an_age_are_set_aside() {
        for value in ["10;foo=bar", "10;foo=111", "10 ; a", "10;", "10;a, 20"] {
            assert_eq!(age(&[("age", value)]), secs(10), "{value}");
        }
        assert_eq!(age(&[("age", ";10")]), secs(0));
    }

    #[test]
    fn an_unreadable_age_is_ignored() {
        for value in [
            "", "-1", "1.5", "abc", "a, 5", "7x", "7 8", "\"7\"", "+7", "0x7",
        ] {
            assert_eq!(age(&[("age", value)]), secs(0), "{value}");
        }
    }

    #[test]
    fn an_age_too_large_to_count_is_the_largest() {
        assert_eq!(age(&[("age", "99999999999999999999")]), DELTA_SECONDS_MAX);
    }

    #[test]
    fn nothing_gets_older_than_the_largest_age() {
        let timing = Timing {
            age_value: DELTA_SECONDS_MAX,
            ..arrived_at_once()
        };
        assert_eq!(timing.current_age(noon() + DAY), DELTA_SECONDS_MAX);
        let longest = Freshness::new(DELTA_SECONDS_MAX, timing.current_age(noon()));
        assert_eq!(longest, Freshness::Stale { by: secs(0) });
    }

    #[test]
    fn what_arrived_in_the_future_is_ahead() {
        let timing = arrived_at_once();
        assert!(!timing.is_ahead_of(noon() + DAY));
        assert!(!timing.is_ahead_of(noon() - Duration::from_millis(999)));
        assert!(timing.is_ahead_of(noon() - secs(1)));
    }

    #[test]
    fn s_maxage_stands_before_max_age_before_expires() {
        let cc = "max-age=5, s-maxage=9";
        let both = [("cache-control", cc), ("expires", ONE_HOUR_LATER)];
        assert_eq!(lifetime(&both), Some(secs(9)));
        let max_age = [("cache-control", "max-age=5"), ("expires", ONE_HOUR_LATER)];
        assert_eq!(lifetime(&max_age), Some(secs(5)));
        assert_eq!(lifetime(&[("expires", ONE_HOUR_LATER)]), Some(secs(3600)));
    }

    #[test]
    fn an_unreadable_max_age_does_not_uncover_expires() {
        let lines = [("cache-control", "max-age=x"), ("expires", ONE_HOUR_LATER)];
        assert_eq!(lifetime(&lines), Some(secs(0)));
    }

    #[test]
    fn an_unreadable_expires_has_passed() {
        for value in ["0", "-1", "", "tomorrow", "Sun, 06 Nov 1994 13:00:00 CET"] {
            let lines = [("expires", value), ("last-modified", TEN_HOURS_EARLIER)];
            assert_eq!(lifetime(&lines), Some(secs(0)), "{value}");
        }
    }

    #[test]
    fn an_expires_given_twice_has_passed() {
        let lines = [("expires", ONE_HOUR_LATER), ("expires", ONE_HOUR_LATER)];
        assert_eq!(lifetime(&lines), Some(secs(0)));
    }

    #[test]
    fn an_expires_before_date_has_passed() {
        assert_eq!(lifetime(&[("expires", TEN_HOURS_EARLIER)]), Some(secs(0)));
    }

    #[test]
    fn a_date_may_have_any_of_three_forms() {
        for value in [
            "Sun, 06 Nov 1994 13:00:00 GMT",
            "Sunday, 06-Nov-94 13:00:00 GMT",
            "Sun Nov  6 13:00:00 1994",
        ] {
            assert_eq!(lifetime(&[("expires", value)]), Some(secs(3600)), "{value}");
        }
    }

    #[test]
    fn expires_does_not_count_beside_a_targeted_field() {
        let headers = fields(&[("expires", ONE_HOUR_LATER)]);
        let directives = ResponseDirectives {
            targeted: true,
            ..ResponseDirectives::default()
        };
        let lifetime = freshness_lifetime(StatusCode::OK, &headers, &directives, noon(), DAY);
        assert_eq!(lifetime, None);
    }

    #[test]
    fn a_tenth_of_the_time_since_modification_is_guessed() {
        let lines = [("last-modified", TEN_HOURS_EARLIER)];
        assert_eq!(lifetime(&lines), Some(secs(3600)));
    }

    #[test]
    fn a_guess_is_bounded() {
        let lines = [("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")];
        assert_eq!(lifetime(&lines), Some(DAY));
    }

    #[test]
    fn a_modification_in_the_future_guesses_nothing() {
        assert_eq!(
            lifetime(&[("last-modified", ONE_HOUR_LATER)]),
            Some(secs(0))
        );
    }

    #[test]
    fn a_guess_needs_a_status_that_allows_it_or_public() {
        let lines = [("last-modified", TEN_HOURS_EARLIER)];
        assert_eq!(lifetime_of(StatusCode::FOUND, &lines), None);
        let public = [lines[0], ("cache-control", "public")];
        assert_eq!(lifetime_of(StatusCode::FOUND, &public), Some(secs(3600)));
    }

    #[test]
    fn a_guess_is_allowed_for_the_statuses_that_say_so_and_no_others() {
        let lines = [("last-modified", TEN_HOURS_EARLIER)];
        let guessed: Vec<u16> = (100..1000)
            .filter(|status| lifetime_of(StatusCode::from_u16(*status).unwrap(), &lines).is_some())
            .collect();
        let listed = [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501];
        assert_eq!(guessed, listed);
    }

    #[test]
    fn guessing_can_be_turned_off() {
        let headers = fields(&[("last-modified", TEN_HOURS_EARLIER)]);
        let directives = ResponseDirectives::default();
        let lifetime = freshness_lifetime(StatusCode::OK, &headers, &directives, noon(), secs(0));
        assert_eq!(lifetime, None);
    }

    #[test]
    fn a_lifetime_says_what_grants_it() {
        let all = [
            ("last-modified", TEN_HOURS_EARLIER),
            ("expires", ONE_HOUR_LATER),
            ("cache-control", "max-age=5"),
            ("cache-control", "s-maxage=6"),
        ];
        assert_eq!(source(&all), Some(LifetimeSource::SMaxage));
        assert_eq!(source(&all[..3]), Some(LifetimeSource::MaxAge));
        assert_eq!(source(&all[..2]), Some(LifetimeSource::Expires));
        assert_eq!(source(&all[..1]), Some(LifetimeSource::Heuristic));
        assert_eq!(source(&[]), None);
    }

    #[test]
    fn an_age_is_the_sum_of_what_it_is_told_to_be_made_of() {
        let timing = Timing {
            request_time: noon() - secs(2),
            response_time: noon(),
            date_value: noon() - secs(7),
            age_value: secs(30),
        };
        let ages = timing.ages(noon() + secs(10));
        let wanted = Ages {
            apparent_age: secs(7),
            response_delay: secs(2),
            corrected_age_value: secs(32),
            corrected_initial_age: secs(32),
            resident_time: secs(10),
            current_age: secs(42),
        };
        assert_eq!(ages, wanted);
    }

    #[test]
    fn without_any_time_there_is_no_lifetime() {
        assert_eq!(lifetime(&[("etag", "\"a\"")]), None);
    }

    #[test]
    fn dates_are_written_as_imf_fixdate() {
        assert_eq!(write_date(noon()), NOON);
        assert_eq!(write_date(SystemTime::UNIX_EPOCH), FIRST_DATE);
        let before = SystemTime::UNIX_EPOCH - secs(1);
        assert_eq!(write_date(before), FIRST_DATE);
        let beyond = SystemTime::UNIX_EPOCH + LAST_DATE + secs(1);
        assert_eq!(write_date(beyond), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn age_never_falls_as_time_passes(
            request in any::<u32>(),
            response in any::<u32>(),
            date in any::<u32>(),
            age in any::<u64>(),
            now in any::<u32>(),
            later in any::<u32>(),
        ) {
            let at = |n: u32| SystemTime::UNIX_EPOCH + secs(n.into());
            let timing = Timing {
                request_time: at(request),
                response_time: at(response),
                date_value: at(date),
                age_value: secs(age),
            };
            let first = timing.current_age(at(now));
            prop_assert!(timing.current_age(at(now) + secs(later.into())) >= first);
            prop_assert!(first >= timing.age_value.min(DELTA_SECONDS_MAX));
        }

        #[test]
        fn no_date_makes_the_reader_panic(text in any::<Vec<u8>>()) {
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                let _date = read_date(&value);
            }
        }

        #[test]
        fn no_near_date_makes_the_reader_panic(text in "[A-Z][a-z]{2,8},? [0-9]{1,2}[ -][A-Z][a-z]{2}[ -][0-9]{2,4} [0-9:]{8}( [0-9]{4})?( GMT)?") {
            let _date = read_date(&HeaderValue::try_from(text).unwrap());
        }

        #[test]
        fn a_written_date_reads_back(seconds in 0..LAST_DATE.as_secs()) {
            let time = SystemTime::UNIX_EPOCH + secs(seconds);
            prop_assert_eq!(read_date(&write_date(time)), Some(time));
        }

        #[test]
        fn fresh_and_stale_say_how_far(lifetime in any::<u64>(), age in any::<u64>()) {
            match Freshness::new(secs(lifetime), secs(age)) {
                Freshness::Fresh { ttl } => prop_assert_eq!(secs(age) + ttl, secs(lifetime)),
                Freshness::Stale { by } => prop_assert_eq!(secs(lifetime) + by, secs(age)),
            }
        }
    }
}
