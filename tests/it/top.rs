//! `larder top` on a terminal: a scripted one, which reads the screen as a person would.

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::LocalModes;
use rustix::termios::Winsize;
use rustix::termios::tcgetattr;
use rustix::termios::tcsetwinsize;

use crate::origin::DEADLINE;
use crate::origin::Reply;
use crate::scene::Scene;

const ROWS: u16 = 30;
const COLUMNS: u16 = 110;

/// A terminal and what runs on it.
struct Terminal {
    keys: File,
    /// The program's side, kept open so that nothing is lost when the program ends.
    line: File,
    shown: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    child: Child,
    errors: PathBuf,
}

impl Terminal {
    /// Runs `larder top` about a scene.
    #[track_caller]
    fn watching(scene: &Scene) -> Self {
        let master =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        rustix::pty::grantpt(&master).expect("a terminal");
        rustix::pty::unlockpt(&master).expect("a terminal");
        let name = rustix::pty::ptsname(&master, Vec::new()).expect("its name");
        let size = Winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("a size");
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let line = rustix::fs::open(&name, flags, Mode::empty()).expect("its other side");
        let line = File::from(line);
        let keys = File::from(master);
        let errors = scene.dir().join("top-errors");
        // In a session of its own, or it would find the terminal of whoever runs the tests.
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_larder"), "top", "--config"])
            .arg(scene.found_config())
            .env("TERM", "xterm-256color")
            .stdin(line.try_clone().expect("a handle"))
            .stdout(line.try_clone().expect("a handle"))
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("setsid");
        let mut output = keys.try_clone().expect("a handle");
        let (say, shown) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It fails when the other side is closed.
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                if say.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keys,
            line,
            shown,
            parser: vt100::Parser::new(ROWS, COLUMNS, 0),
            child,
            errors,
        }
    }

    #[track_caller]
    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Waits until the screen is as wanted, and returns it.
    #[track_caller]
    fn await_screen(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.parser.screen().contents();
            if wanted(&screen) {
                return screen;
            }
            let left = DEADLINE.saturating_sub(start.elapsed());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.parser.process(&bytes),
                Err(error) => {
                    let errors = std::fs::read_to_string(&self.errors).unwrap_or_default();
                    panic!("no {what}: {error}\n{screen}\n{errors}");
                }
            }
        }
    }

    #[track_caller]
    fn await_text(&mut self, text: &str) -> String {
        self.await_screen(text, |screen| screen.contains(text))
    }

    /// Waits until the program has ended well, and checks that the terminal is as it was.
    #[track_caller]
    fn await_end(&mut self) {
        self.await_screen("usual screen", |screen| screen.trim().is_empty());
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        while let Ok(bytes) = self.shown.try_recv() {
            self.parser.process(&bytes);
        }
        let screen = self.parser.screen();
        assert!(!screen.alternate_screen(), "it left its screen");
        assert!(!screen.hide_cursor(), "the cursor is back");
        let modes = tcgetattr(self.line.as_fd())
            .expect("a terminal")
            .local_modes;
        let usual = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        assert!(modes.contains(usual), "{modes:?}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended already is as dead as it should be.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A scene with something to see.
fn busy() -> Scene {
    let scene = Scene::usual();
    scene.origin.says("/often", Reply::ok("often").fresh());
    let private = Reply::ok("me").header("Cache-Control", "private");
    scene.origin.says("/me", private);
    for _ in 0..3 {
        scene.get("/often").is(200);
    }
    scene.get("/me").is(200);
    scene
}

#[test]
fn the_screen_shows_what_goes_on_and_moves() {
    let scene = busy();
    let mut terminal = Terminal::watching(&scene);
    let screen = terminal.await_text("scene.test/often");
    for wanted in [
        "requests/s",
        "since start 4",
        "hits 50.0 %",
        "origins",
        "up",
        "1 ×",
        "4 ×",
    ] {
        assert!(screen.contains(wanted), "no {wanted} in\n{screen}");
    }
    assert!(screen.contains(&scene.origin.url()), "{screen}");
    for _ in 0..6 {
        scene.get("/often").by("hit");
    }
    terminal.await_text("since start 10");
    terminal.await_text("9                           ");
    terminal.press("q");
    terminal.await_end();
}

#[test]
fn keys_sort_filter_and_pause() {
    let scene = busy();
    let mut terminal = Terminal::watching(&scene);
    terminal.await_text("scene.test/often");
    terminal.press("n");
    let screen = terminal.await_text("private");
    assert!(!screen.contains("/often"), "{screen}");
    terminal.press("r/OFT\r");
    let screen = terminal.await_text("filter: OFT");
    assert!(
        screen.contains("/often") && !screen.contains("/me"),
        "{screen}"
    );
    terminal.press("p");
    terminal.await_text("PAUSED");
    scene.get("/often").by("hit");
    terminal.press("\u{1b}");
    terminal.await_screen("no filter", |screen| screen.contains("/me"));
    let screen = terminal.parser.screen().contents();
    assert!(screen.contains("since start 4"), "{screen}");
    terminal.press("p");
    terminal.await_text("since start 5");
    terminal.press("\u{3}");
    terminal.await_end();
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let scene = busy();
    let mut terminal = Terminal::watching(&scene);
    terminal.await_text("scene.test/often");
    let kill = format!("kill -TERM {}", terminal.child.id());
    let sent = Command::new("sh").args(["-c", &kill]).status();
    assert!(sent.expect("a shell").success());
    terminal.await_end();
}

#[test]
fn a_larder_that_goes_away_is_told() {
    let mut scene = busy();
    let mut terminal = Terminal::watching(&scene);
    terminal.await_text("scene.test/often");
    scene.kill9();
    let screen = terminal.await_text("could not");
    assert!(screen.contains("scene.test/often"), "{screen}");
    terminal.press("q");
    terminal.await_end();
}

#[test]
fn without_a_terminal_it_says_where_the_figures_are() {
    let scene = Scene::usual();
    let config = scene.found_config();
    let top = scene.larder(&["top", "--config", &config]);
    top.exits(1).complains("GET /live");
}
