//! How a [`Board`] looks on a terminal of any size.
//!
//! ```text
//! larder 0.1.0  http://127.0.0.1:8081  up 3h 2m
//! rates, ratios, a line of requests a second
//! store │ other sizes │ latency
//! origins
//! requests │ misses │ bytes │ not cached      the list that is chosen, as long as there is room
//! keys, or the filter
//! ```

use super::board::Board;
use super::board::List;
use crate::ops::picture::Picture;
use bytesize::ByteSize;
use ratatui::Frame;
use ratatui::layout::Constraint;
use ratatui::layout::Layout;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::text::Span;
use ratatui::widgets::Block;
use ratatui::widgets::Borders;
use ratatui::widgets::Cell;
use ratatui::widgets::LineGauge;
use ratatui::widgets::Paragraph;
use ratatui::widgets::Row;
use ratatui::widgets::Sparkline;
use ratatui::widgets::Table;
use std::time::Duration;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, board: &Board) {
    let [head, rates, line, panels, origins, list, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(2),
        Constraint::Length(7),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, board);
    draw_rates(frame, rates, board);
    draw_line(frame, line, board);
    let [store, sizes, latency] = Layout::horizontal([
        Constraint::Fill(1),
        Constraint::Length(32),
        Constraint::Fill(1),
    ])
    .areas(panels);
    draw_store(frame, store, &board.picture);
    draw_sizes(frame, sizes, &board.picture);
    draw_latency(frame, latency, board);
    draw_origins(frame, origins, &board.picture);
    draw_list(frame, list, board);
    draw_keys(frame, keys, board);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let picture = &board.picture;
    let up = Duration::from_millis(picture.at_ms.saturating_sub(picture.since_ms));
    let mut spans = vec![
        Span::styled("larder ", BOLD),
        Span::raw(picture.version.clone()),
        Span::raw(format!("  {}  up {}", board.url, span(up))),
    ];
    if board.paused {
        spans.push(Span::styled("  PAUSED", BOLD.fg(Color::Yellow)));
    }
    if let Some(reason) = &picture.store.pass_through {
        let text = format!("  the store passes through: {reason}");
        spans.push(Span::styled(text, BOLD.fg(Color::Red)));
    }
    if let Some(trouble) = &board.trouble {
        spans.push(Span::styled(format!("  {trouble}"), BOLD.fg(Color::Red)));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let (rates, picture) = (&board.rates, &board.picture);
    let errors = match rates.errors > 0.0 {
        true => BOLD.fg(Color::Red),
        false => BOLD,
    };
    let first = Line::from(vec![
        Span::raw("requests/s "),
        Span::styled(format!("{:<8.0}", rates.requests), BOLD),
        Span::raw("hits "),
        Span::styled(
            format!("{:<8}", percent(rates.hit_ratio)),
            BOLD.fg(Color::Green),
        ),
        Span::raw("bytes/s "),
        Span::styled(format!("{:<10}", bytes(rates.bytes)), BOLD),
        Span::raw("of bytes "),
        Span::styled(
            format!("{:<8}", percent(rates.byte_hit_ratio)),
            BOLD.fg(Color::Green),
        ),
        Span::raw("errors/s "),
        Span::styled(format!("{:.0}", rates.errors), errors),
    ]);
    let totals = &picture.totals;
    let part = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let second = Line::from(format!(
        "since start {:<8} hits {:<9}stale {:<10} collapsed {:<10} connections {}",
        totals.requests,
        percent(part(totals.hits, totals.requests)),
        totals.stale,
        totals.collapsed,
        picture.connections_open,
    ));
    frame.render_widget(Paragraph::new(vec![first, second.style(DIM)]), area);
}

fn draw_line(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let most = usize::from(area.width);
    let latest = board.history.len().saturating_sub(most);
    let line: Vec<u64> = board.history.iter().skip(latest).copied().collect();
    let sparkline = Sparkline::default().data(&line);
    frame.render_widget(sparkline.style(Style::new().fg(Color::Cyan)), area);
}

fn draw_store(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let store = &picture.store;
    let block = titled("store");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [gauge, text] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(inner);
    let fill = match store.limit {
        0 => 0.0,
        limit => (store.bytes as f64 / limit as f64).clamp(0.0, 1.0),
    };
    let gauge_widget = LineGauge::default()
        .ratio(fill)
        .label(format!("{:>4.0} %", fill * 100.0))
        .filled_style(Style::new().fg(Color::Green));
    frame.render_widget(gauge_widget, gauge);
    let mut lines = vec![
        Line::from(format!("{} of {}", size(store.bytes), size(store.limit))),
        Line::from(format!("{} responses", store.entries)),
        Line::from(format!("{} in memory", size(store.memory_bytes))),
        Line::from(format!("{} evicted, {} fills", store.evicted, store.fills)),
    ];
    let out = store.dirs.iter().filter(|dir| dir.out.is_some());
    lines.extend(out.map(|dir| {
        let text = format!("{} is out", dir.path);
        Line::styled(text, BOLD.fg(Color::Red))
    }));
    frame.render_widget(Paragraph::new(lines), text);
}

fn draw_sizes(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let rows = picture.curve.points.iter().map(|point| {
        let style = match point.times == 1.0 {
            true => BOLD,
            false => Style::new(),
        };
        Row::new([
            format!("{} ×", point.times),
            size(point.bytes),
            percent(Some(point.hit_ratio)),
            percent(Some(point.byte_hit_ratio)),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Length(5),
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    let header = Row::new(["size", "", "hits", "bytes"]).style(DIM);
    let table = Table::new(rows, widths).header(header).column_spacing(1);
    frame.render_widget(table.block(titled("other sizes of the store")), area);
}

/// In one line, those that are down first.
fn draw_origins(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let mut origins: Vec<_> = picture.origins.iter().collect();
    origins.sort_by_key(|origin| origin.usable);
    let mut spans = vec![Span::styled("origins", DIM)];
    for origin in origins {
        spans.push(match origin.usable {
            true => Span::styled("  up ", Style::new().fg(Color::Green)),
            false => Span::styled("  down ", BOLD.fg(Color::Red)),
        });
        spans.push(Span::raw(origin.name.as_str()));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

fn draw_latency(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let rows = board.latencies().into_iter().map(|told| {
        let cells = [told.outcome, took(told.p50), took(told.p90), took(told.p99)];
        let style = if told.recent { Style::new() } else { DIM };
        Row::new(cells).style(style)
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
    ];
    let header = Row::new(["", "p50", "p90", "p99"]).style(DIM);
    let table = Table::new(rows, widths).header(header).column_spacing(1);
    frame.render_widget(table.block(titled("latency")), area);
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let mut tabs = vec![Span::raw(" ")];
    for list in List::ALL {
        let style = match list == board.list {
            true => BOLD.add_modifier(Modifier::REVERSED),
            false => DIM,
        };
        tabs.push(Span::styled(format!(" {} ", list.name()), style));
    }
    let covered = span(Duration::from_secs(board.picture.top.seconds));
    tabs.push(Span::styled(format!(" last {covered} "), DIM));
    let block = Block::new().borders(Borders::TOP).title(Line::from(tabs));
    let rows = board.rows();
    let all = rows.len();
    let rows = rows.into_iter().skip(board.scroll).map(|row| {
        let count = match board.list {
            List::Bytes => size(row.count),
            List::Misses | List::NotCached | List::Requests => row.count.to_string(),
        };
        let reason = Cell::from(row.reason.as_str()).style(Style::new().fg(Color::Yellow));
        Row::new([
            Cell::from(format!("{count:>10}")),
            reason,
            Cell::from(row.url.as_str()),
        ])
    });
    let reason = match board.list {
        List::NotCached => Constraint::Length(24),
        List::Bytes | List::Misses | List::Requests => Constraint::Length(0),
    };
    let widths = [Constraint::Length(10), reason, Constraint::Fill(1)];
    if all == 0 {
        frame.render_widget(Paragraph::new("nothing").style(DIM).block(block), area);
        return;
    }
    frame.render_widget(Table::new(rows, widths).block(block), area);
}

fn draw_keys(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let line = if board.writing {
        Line::from(vec![
            Span::styled("filter: ", BOLD),
            Span::raw(board.filter.as_str()),
            Span::styled("▏", BOLD),
            Span::styled("  enter keeps it, escape clears it", DIM),
        ])
    } else {
        let filter = match board.filter.is_empty() {
            true => String::new(),
            false => format!("  filter: {}", board.filter),
        };
        Line::from(vec![
            Span::styled(
                "q quit  r requests  m misses  b bytes  n not cached  / filter  p pause  ↑↓ scroll",
                DIM,
            ),
            Span::styled(filter, BOLD),
        ])
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn titled(title: &'static str) -> Block<'static> {
    Block::bordered().border_style(DIM).title(title)
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// A rate of bytes; its fraction does not count.
fn bytes(rate: f64) -> String {
    size(format!("{rate:.0}").parse().unwrap_or_default())
}

/// Microseconds in few characters.
fn took(microseconds: f64) -> String {
    match microseconds {
        few if few < 999.5 => format!("{few:.0}µs"),
        some if some < 999_500.0 => format!("{:.1}ms", some / 1000.0),
        many => format!("{:.1}s", many / 1e6),
    }
}

/// The two largest units of a span.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        (_, _, _) => format!("{days}d {hours}h"),
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

#[cfg(test)]
mod tests {
    use super::super::board::tests::picture;
    use super::*;
    use crate::ops::picture::Origin;
    use crate::ops::picture::Size;
    use crate::ops::picture::Took;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;
    use ratatui::crossterm::event::KeyEvent;
    use ratatui::crossterm::event::KeyModifiers;

    fn board() -> Board {
        let mut later = picture(2);
        later.store.limit = 10 << 30;
        later.store.bytes = 5 << 30;
        later.origins = vec![
            Origin {
                name: "http://a.test:3000".to_owned(),
                usable: true,
                ..Origin::default()
            },
            Origin {
                name: "http://a.test:3001".to_owned(),
                usable: false,
                ..Origin::default()
            },
        ];
        later.curve.points = [0.5, 1.0, 2.0, 4.0]
            .map(|times| Size {
                times,
                bytes: 10 << 30,
                hit_ratio: 0.5 + times / 10.0,
                byte_hit_ratio: 0.25,
                full: true,
            })
            .to_vec();
        later.latency.bounds_us = vec![100, 200];
        later.latency.outcomes = vec![Took {
            outcome: "hit".to_owned(),
            counts: vec![10, 0, 0],
        }];
        let mut board = Board::new("http://127.0.0.1:8081".to_owned());
        board.show(picture(0));
        board.show(later);
        board
    }

    fn drawn(board: &Board, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_that_counts_is_on_a_usual_terminal() {
        let screen = drawn(&board(), 80, 24);
        for wanted in [
            "http://127.0.0.1:8081",
            "requests/s 10",
            "hits 50.0 %",
            "of bytes 25.0 %",
            "50 %",
            "5.0 GiB of 10.0 GiB",
            "up http://a.test:3000",
            "down http://a.test:3001",
            "0.5 ×",
            "10.0 GiB",
            "hit",
            "90.0 %",
            "50µs",
            "30  a.test/one",
            "q quit",
        ] {
            assert!(screen.contains(wanted), "no {wanted:?} in\n{screen}");
        }
    }

    #[test]
    fn a_reason_stands_beside_its_url() {
        let mut board = board();
        board.press(&KeyEvent::new(KeyCode::Char('n'), KeyModifiers::NONE));
        let screen = drawn(&board, 80, 24);
        let line = screen
            .lines()
            .find(|line| line.contains("a.test/me"))
            .unwrap();
        assert!(line.contains("7 private "), "{line}");
    }

    #[test]
    fn no_terminal_is_too_small_to_draw_on() {
        let board = board();
        for (width, height) in [(1, 1), (3, 40), (200, 2), (20, 8), (300, 100)] {
            drawn(&board, width, height);
        }
    }

    #[test]
    fn durations_are_short() {
        assert_eq!([50.4, 1500.0, 2.5e6].map(took), ["50µs", "1.5ms", "2.5s"]);
    }

    #[test]
    fn spans_have_two_units() {
        let told = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(told(59), "59s");
        assert_eq!(told(61), "1m 1s");
        assert_eq!(told(7320), "2h 2m");
        assert_eq!(told(90_000), "1d 1h");
    }
}
