//! What `larder top` knows and shows, whatever the terminal: pictures become rates, keys choose.
//!
//! From [`Picture`]s in the order in which they were taken. Rates are of two that follow each other;
//! where counts began anew between them there are none. How it looks is left to `draw`.

use crate::ops::picture::Latency;
use crate::ops::picture::Picture;
use crate::ops::picture::Row;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyModifiers;
use std::collections::VecDeque;

/// What is shown.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) url: String,
    pub(super) picture: Picture,
    pub(super) rates: Rates,
    /// How long requests of the last looks took, the oldest first.
    looks: VecDeque<Latency>,
    /// Requests a second, the latest last.
    pub(super) history: VecDeque<u64>,
    pub(super) list: List,
    pub(super) filter: String,
    /// The filter is being written.
    pub(super) writing: bool,
    pub(super) paused: bool,
    /// The first row that is shown.
    pub(super) scroll: usize,
    /// Why there is no newer picture.
    pub(super) trouble: Option<String>,
    changed: bool,
}

/// What counts grew by, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) requests: f64,
    pub(super) bytes: f64,
    pub(super) errors: f64,
    pub(super) evicted: f64,
    /// From 0 to 1; none when nothing was asked for.
    pub(super) hit_ratio: Option<f64>,
    pub(super) byte_hit_ratio: Option<f64>,
}

/// How long requests of one outcome took, in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Percentiles {
    pub(super) outcome: String,
    /// There were such requests just now; else it is of all since the start.
    pub(super) recent: bool,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
}

/// What URLs are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum List {
    #[default]
    Requests,
    Misses,
    Bytes,
    NotCached,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    End,
    GoOn,
}

impl List {
    pub(super) const ALL: [Self; 4] = [Self::Requests, Self::Misses, Self::Bytes, Self::NotCached];

    /// What it is called, its key first.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Misses => "misses",
            Self::Bytes => "bytes",
            Self::NotCached => "not cached",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Requests => Self::Misses,
            Self::Misses => Self::Bytes,
            Self::Bytes => Self::NotCached,
            Self::NotCached => Self::Requests,
        }
    }
}

impl Rates {
    /// None when the second picture is not a later one of the same counts.
    fn between(before: &Picture, after: &Picture) -> Option<Self> {
        let passed = after.at_ms.checked_sub(before.at_ms)?;
        if passed == 0 || before.since_ms != after.since_ms {
            return None;
        }
        // Far below 2⁵³, and the last digits do not count.
        let seconds = passed as f64 / 1000.0;
        let grown = |before: u64, after: u64| after.saturating_sub(before) as f64;
        let (was, is) = (&before.totals, &after.totals);
        let (requests, bytes) = (grown(was.requests, is.requests), grown(was.bytes, is.bytes));
        let part = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        Some(Self {
            requests: requests / seconds,
            bytes: bytes / seconds,
            errors: grown(was.errors, is.errors) / seconds,
            evicted: grown(before.store.evicted, after.store.evicted) / seconds,
            hit_ratio: part(grown(was.hits, is.hits), requests),
            byte_hit_ratio: part(grown(was.hit_bytes, is.hit_bytes), bytes),
        })
    }
}

impl Board {
    /// An empty board about the larder at `url`.
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            picture: Picture::default(),
            rates: Rates::default(),
            looks: VecDeque::new(),
            history: VecDeque::new(),
            list: List::default(),
            filter: String::new(),
            writing: false,
            paused: false,
            scroll: 0,
            trouble: None,
            changed: false,
        }
    }

    /// Shows a newer picture, unless it is paused.
    pub(super) fn show(&mut self, picture: Picture) {
        if self.paused {
            return;
        }
        self.changed = true;
        self.trouble = None;
        match Rates::between(&self.picture, &picture) {
            Some(rates) => {
                self.rates = rates;
                if self.history.len() >= HISTORY_MAX {
                    self.history.pop_front();
                }
                self.history.push_back(whole(rates.requests));
            }
            None => {
                self.rates = Rates::default();
                self.looks.clear();
            }
        }
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(picture.latency.clone());
        self.picture = picture;
        self.scroll = self.scroll.min(self.rows().len().saturating_sub(1));
    }

    /// There is no newer picture.
    pub(super) fn miss(&mut self, why: String) {
        self.changed = true;
        self.trouble = Some(why);
    }

    /// Is there something new to draw? Asked once.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The URLs of the chosen list that pass the filter.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let top = &self.picture.top;
        let list = match self.list {
            List::Requests => &top.requests,
            List::Misses => &top.misses,
            List::Bytes => &top.bytes,
            List::NotCached => &top.not_cached,
        };
        let wanted = self.filter.to_lowercase();
        let passes = |text: &str| text.to_lowercase().contains(&wanted);
        let rows = list.iter();
        rows.filter(|row| passes(&row.url) || passes(&row.reason))
            .collect()
    }

    /// How long requests took, by outcome: of the last looks, where there were any in them.
    pub(super) fn latencies(&self) -> Vec<Percentiles> {
        let now = &self.picture.latency;
        let before = self.looks.front();
        let told = now.outcomes.iter().filter_map(|took| {
            let were = before.and_then(|before| {
                let mut outcomes = before.outcomes.iter();
                outcomes.find(|was| was.outcome == took.outcome)
            });
            let were = were.map(|were| were.counts.as_slice()).unwrap_or_default();
            let were = were.iter().chain(std::iter::repeat(&0));
            let grown = took.counts.iter().zip(were);
            let grown: Vec<u64> = grown.map(|(is, was)| is.saturating_sub(*was)).collect();
            let recent = grown.iter().any(|count| *count > 0);
            let counts = if recent { &grown } else { &took.counts };
            let at = |part| percentile(&now.bounds_us, counts, part);
            Some(Percentiles {
                outcome: took.outcome.clone(),
                recent,
                p50: at(0.5)?,
                p90: at(0.9)?,
                p99: at(0.99)?,
            })
        });
        told.collect()
    }

    /// Does what a key is for.
    pub(super) fn press(&mut self, key: &KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Next::End,
                _ => Next::GoOn,
            };
        }
        match self.writing {
            true => self.write(key.code),
            false => return self.choose(key.code),
        }
        Next::GoOn
    }

    fn write(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.writing = false,
            KeyCode::Esc => {
                self.writing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(character) if self.filter.len() < FILTER_BYTES_MAX => {
                self.filter.push(character);
            }
            _ => {}
        }
        self.scroll = 0;
    }

    fn choose(&mut self, code: KeyCode) -> Next {
        match code {
            KeyCode::Char('q') => return Next::End,
            KeyCode::Esc if self.filter.is_empty() => return Next::End,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('r') => self.sort(List::Requests),
            KeyCode::Char('m') => self.sort(List::Misses),
            KeyCode::Char('b') => self.sort(List::Bytes),
            KeyCode::Char('n') => self.sort(List::NotCached),
            KeyCode::Tab => self.sort(self.list.next()),
            KeyCode::Char('/') => self.writing = true,
            KeyCode::Down | KeyCode::Char('j') => self.scroll_to(self.scroll.saturating_add(1)),
            KeyCode::Up | KeyCode::Char('k') => self.scroll_to(self.scroll.saturating_sub(1)),
            KeyCode::PageDown => self.scroll_to(self.scroll.saturating_add(PAGE)),
            KeyCode::PageUp => self.scroll_to(self.scroll.saturating_sub(PAGE)),
            KeyCode::Home => self.scroll_to(0),
            KeyCode::End => self.scroll_to(usize::MAX),
            _ => {}
        }
        Next::GoOn
    }

    fn sort(&mut self, list: List) {
        self.list = list;
        self.scroll = 0;
    }

    fn scroll_to(&mut self, row: usize) {
        self.scroll = row.min(self.rows().len().saturating_sub(1));
    }
}

/// Below how many microseconds a part of the counted requests lies; as if they were spread evenly over
/// their step. What took longer than all bounds is told as the last. None when nothing was counted.
fn percentile(bounds_us: &[u64], counts: &[u64], part: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    if all == 0 {
        return None;
    }
    let wanted = all as f64 * part;
    let (mut below, mut low) = (0.0, 0.0);
    for (bound, count) in bounds_us.iter().zip(counts) {
        let (bound, count) = (*bound as f64, *count as f64);
        if count > 0.0 && below + count >= wanted {
            return Some(low + (bound - low) * (wanted - below) / count);
        }
        below += count;
        low = bound;
    }
    Some(low)
}

/// A rate without its fraction.
fn whole(rate: f64) -> u64 {
    // The format of a number is its own rounding; nothing is cut off silently.
    format!("{rate:.0}").parse().unwrap_or_default()
}

/// Seconds, or so, of which the rate is shown.
const HISTORY_MAX: usize = 300;
/// Percentiles are of so many.
const LOOKS: usize = 10;
const FILTER_BYTES_MAX: usize = 200;
const PAGE: usize = 10;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::picture::Took;

    fn row(url: &str, count: u64, reason: &str) -> Row {
        Row {
            url: url.to_owned(),
            count,
            reason: reason.to_owned(),
        }
    }

    /// A picture of so many seconds after the first, in which 10 requests, 5 hits and 1000 bytes
    /// were added each second.
    pub(in super::super) fn picture(second: u64) -> Picture {
        let mut picture = Picture {
            at_ms: 1000 + second * 1000,
            since_ms: 500,
            ..Picture::default()
        };
        picture.totals.requests = second * 10;
        picture.totals.hits = second * 5;
        picture.totals.bytes = second * 1000;
        picture.totals.hit_bytes = second * 250;
        picture.top.requests = vec![row("a.test/one", 30, ""), row("a.test/two", 20, "")];
        picture.top.not_cached = vec![
            row("a.test/me", 7, "private"),
            row("a.test/you", 3, "no-store"),
        ];
        picture
    }

    fn board() -> Board {
        let mut board = Board::new("http://127.0.0.1:8081".to_owned());
        board.show(picture(0));
        board
    }

    fn press(board: &mut Board, keys: &str) -> Next {
        let mut next = Next::GoOn;
        for character in keys.chars() {
            let code = match character {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                '\t' => KeyCode::Tab,
                '↓' => KeyCode::Down,
                other => KeyCode::Char(other),
            };
            next = board.press(&KeyEvent::new(code, KeyModifiers::NONE));
        }
        next
    }

    fn urls(board: &Board) -> Vec<&str> {
        board.rows().iter().map(|row| row.url.as_str()).collect()
    }

    #[test]
    fn rates_are_what_counts_grew_by_a_second() {
        let mut board = board();
        assert_eq!(board.rates, Rates::default());
        board.show(picture(2));
        assert_eq!(board.rates.requests, 10.0);
        assert_eq!(board.rates.bytes, 1000.0);
        assert_eq!(board.rates.hit_ratio, Some(0.5));
        assert_eq!(board.rates.byte_hit_ratio, Some(0.25));
        assert_eq!(board.history, [10]);
    }

    #[test]
    fn there_are_no_rates_across_a_restart_or_without_time() {
        let mut board = board();
        board.show(picture(0));
        assert_eq!(board.rates, Rates::default());
        let restarted = Picture {
            since_ms: 1500,
            ..picture(3)
        };
        board.show(restarted);
        assert_eq!(board.rates, Rates::default());
        assert!(board.history.is_empty());
    }

    #[test]
    fn the_history_has_an_end() {
        let mut board = board();
        for second in 1..1000 {
            board.show(picture(second));
        }
        assert_eq!(board.history.len(), HISTORY_MAX);
    }

    #[test]
    fn keys_choose_what_urls_are_sorted_by() {
        let mut board = board();
        assert_eq!(urls(&board), ["a.test/one", "a.test/two"]);
        press(&mut board, "n");
        assert_eq!(urls(&board), ["a.test/me", "a.test/you"]);
        press(&mut board, "\t");
        assert_eq!(board.list, List::Requests);
        press(&mut board, "m");
        assert_eq!(urls(&board), [""; 0]);
        press(&mut board, "b");
        assert_eq!(board.list, List::Bytes);
    }

    #[test]
    fn a_filter_is_written_kept_and_cleared() {
        let mut board = board();
        press(&mut board, "/ONx\u{8}");
        assert!(board.writing);
        assert_eq!(urls(&board), ["a.test/one"]);
        // While it is written, letters are letters.
        assert_eq!(press(&mut board, "q\u{8}"), Next::GoOn);
        press(&mut board, "\n");
        assert!(!board.writing);
        assert_eq!(urls(&board), ["a.test/one"]);
        assert_eq!(press(&mut board, "\u{1b}"), Next::GoOn);
        assert_eq!(urls(&board).len(), 2);
        press(&mut board, "n/no-st");
        assert_eq!(urls(&board), ["a.test/you"]);
        press(&mut board, &"x".repeat(1000));
        assert_eq!(board.filter.len(), FILTER_BYTES_MAX);
    }

    #[test]
    fn what_is_paused_stays_as_it_is() {
        let mut board = board();
        press(&mut board, "p");
        board.show(picture(5));
        assert_eq!(board.picture.at_ms, 1000);
        press(&mut board, " ");
        board.show(picture(6));
        assert_eq!(board.picture.at_ms, 7000);
    }

    #[test]
    fn it_ends_at_q_escape_and_control_c() {
        let mut board = board();
        assert_eq!(press(&mut board, "q"), Next::End);
        assert_eq!(press(&mut board, "\u{1b}"), Next::End);
        press(&mut board, "/");
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(board.press(&control_c), Next::End);
    }

    #[test]
    fn percentiles_lie_within_the_step_that_holds_them() {
        let bounds = [100, 200, 400];
        let at = |counts: &[u64], part| percentile(&bounds, counts, part);
        assert_eq!(at(&[10, 0, 0, 0], 0.5), Some(50.0));
        assert_eq!(at(&[0, 10, 0, 0], 0.9), Some(190.0));
        assert_eq!(at(&[9, 0, 1, 0], 0.99), Some(380.0));
        assert_eq!(at(&[1, 0, 0, 9], 0.5), Some(400.0));
        assert_eq!(at(&[0; 4], 0.5), None);
    }

    #[test]
    fn percentiles_are_of_what_came_last_where_anything_did() {
        let took = |counts: [u64; 3], second| {
            let mut picture = picture(second);
            picture.latency.bounds_us = vec![100, 200];
            picture.latency.outcomes = vec![Took {
                outcome: "hit".to_owned(),
                counts: counts.to_vec(),
            }];
            picture
        };
        let mut board = board();
        board.show(took([100, 0, 0], 1));
        board.show(took([100, 10, 0], 2));
        for second in 3..12 {
            board.show(took([100, 20, 0], second));
        }
        let told = board.latencies();
        assert_eq!((told[0].recent, told[0].p50), (true, 150.0));
        for second in 12..30 {
            board.show(took([100, 20, 0], second));
        }
        let told = board.latencies();
        assert_eq!((told[0].recent, told[0].p50), (false, 60.0));
    }

    #[test]
    fn scrolling_ends_at_the_last_row() {
        let mut board = board();
        press(&mut board, "↓↓↓jj");
        assert_eq!(board.scroll, 1);
        press(&mut board, "kkk");
        assert_eq!(board.scroll, 0);
    }

    #[test]
    fn trouble_is_shown_until_there_is_a_newer_picture() {
        let mut board = board();
        board.miss("could not connect".to_owned());
        assert!(board.take_changed());
        assert!(!board.take_changed());
        assert_eq!(board.trouble.as_deref(), Some("could not connect"));
        board.show(picture(1));
        assert_eq!(board.trouble, None);
    }
}
