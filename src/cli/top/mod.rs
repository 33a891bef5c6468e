//! `larder top`: what a running larder does now, in a terminal.
//!
//! ```text
//! thread: GET /live each second ─► picture, or why there is none ─┐
//! thread: SIGTERM, SIGHUP ─► end ────────────────────────────────┼─► board ─► draw
//! terminal: keys ────────────────────────────────────────────────┘
//! ```
//!
//! Asking may hang for as long as the admin listener does, so it happens on a thread of its own and
//! keys are heard meanwhile. However it ends, also by a panic or a signal, the terminal is as it was.

mod board;
mod draw;

use self::board::Board;
use self::board::Next;
use super::ask::Listener;
use crate::ops::picture::Picture;
use anyhow::Context;
use http::StatusCode;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;
use ratatui::crossterm::event::KeyEventKind;
use std::io;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::sync::mpsc::TryRecvError;
use std::thread;
use std::time::Duration;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// What the threads say.
enum News {
    Picture(Box<Picture>),
    /// There is none, and why.
    Nothing(String),
    End,
}

/// Shows what goes on until it is told to end.
pub(super) fn run(config: &Path, interval: Duration) -> anyhow::Result<ExitCode> {
    let listener = Listener::of(config)?;
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        anyhow::bail!(
            "a terminal is needed; GET /live on the admin listener tells the same as JSON"
        );
    }
    let mut board = Board::new(listener.url());
    // Nobody is bothered with a screen that has nothing to show.
    board.show(look(&listener)?);
    let (tell, news) = mpsc::channel();
    end_by_signal(tell.clone())?;
    let _looking = keep_looking(listener, interval, tell)?;
    let mut terminal = ratatui::try_init().context("could not take over the terminal")?;
    let shown = show(&mut terminal, &mut board, &news);
    let restored = ratatui::try_restore().context("could not give the terminal back");
    shown.and(restored)?;
    Ok(ExitCode::SUCCESS)
}

/// Draws whenever there is something new.
fn show(
    terminal: &mut DefaultTerminal,
    board: &mut Board,
    news: &Receiver<News>,
) -> anyhow::Result<()> {
    loop {
        terminal
            .draw(|frame| draw::draw(frame, board))
            .context("could not draw")?;
        loop {
            match news.try_recv() {
                Ok(News::Picture(picture)) => board.show(*picture),
                Ok(News::Nothing(why)) => board.miss(why),
                Ok(News::End) | Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {}
            }
            let heard = event::poll(KEYS_WAIT).context("could not hear keys")?;
            if heard && hear(board)? == Next::End {
                return Ok(());
            }
            if heard || board.take_changed() {
                break;
            }
        }
    }
}

fn hear(board: &mut Board) -> anyhow::Result<Next> {
    match event::read().context("could not read a key")? {
        Event::Key(key) if key.kind != KeyEventKind::Release => Ok(board.press(&key)),
        Event::FocusGained
        | Event::FocusLost
        | Event::Key(_)
        | Event::Mouse(_)
        | Event::Paste(_)
        | Event::Resize(..) => Ok(Next::GoOn),
    }
}

/// Asks for a picture.
fn look(listener: &Listener) -> anyhow::Result<Picture> {
    let reply = listener.get("/live")?;
    let status = reply.status;
    let text = reply.text()?;
    if status != StatusCode::OK {
        let (status, reason) = (status.as_u16(), text.trim());
        anyhow::bail!("{} refused ({status}): {reason}", listener.url());
    }
    serde_json::from_str(&text).context("the answer cannot be read")
}

/// Looks again and again, until nobody listens or what is returned is dropped.
fn keep_looking(
    listener: Listener,
    interval: Duration,
    tell: Sender<News>,
) -> anyhow::Result<Sender<()>> {
    let (stay, stop) = mpsc::channel::<()>();
    let work = move || {
        while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let news = match look(&listener) {
                Ok(picture) => News::Picture(Box::new(picture)),
                Err(error) => News::Nothing(format!("{error:#}")),
            };
            if tell.send(news).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("look".to_owned())
        .spawn(work)
        .context("could not start a thread")?;
    Ok(stay)
}

/// Has what would kill the process end it in order.
fn end_by_signal(tell: Sender<News>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start a runtime")?;
    let (mut terminate, mut hang_up) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::terminate()).context("could not hear SIGTERM")?,
            signal(SignalKind::hangup()).context("could not hear SIGHUP")?,
        )
    };
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        drop(tell.send(News::End));
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(work)
        .context("could not start a thread")?;
    Ok(())
}

/// How long a key is waited for before news are looked at.
const KEYS_WAIT: Duration = Duration::from_millis(50);
