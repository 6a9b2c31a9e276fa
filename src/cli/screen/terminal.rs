//! The terminal while `top` runs: its alternate screen, its keys, and the way back, however `top` ends.

use std::io::{self, IsTerminal as _};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{DefaultTerminal, Terminal};
use tokio::sync::mpsc;

use super::draw::draw;
use super::model::Model;
use crate::cli::output::Output;

/// How long the thread that reads keys waits before it checks whether they are still read.
const POLL: Duration = Duration::from_millis(250);

/// Whether any thread of the process panicked. Its hook has left the screen then, so `top` must not draw again.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Returns why keys cannot be read or no screen can be drawn, if so.
pub fn obstacle() -> Option<&'static str> {
    let is_dumb = || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        Some("standard input or output is none")
    } else if is_dumb() {
        Some("this one cannot move its cursor (TERM=dumb)")
    } else {
        None
    }
}

/// The alternate screen in raw mode; the terminal is restored when this is dropped.
pub struct Screen {
    /// Its own drop writes to standard error where it fails, which panics once the terminal is gone.
    terminal: ManuallyDrop<DefaultTerminal>,
}

impl Screen {
    pub fn enter() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::SeqCst);
            before(panic);
        }));
        // It installs a hook of its own, which restores the terminal before the message is written.
        let terminal = ratatui::try_init();
        if terminal.is_err() {
            let _ = ratatui::try_restore();
        }
        Ok(Self {
            terminal: ManuallyDrop::new(terminal?),
        })
    }

    pub fn draw(&mut self, model: &mut Model, output: &Output) -> io::Result<()> {
        if PANICKED.load(Ordering::SeqCst) {
            return Err(io::Error::other(
                "a part of the program failed; its message is above",
            ));
        }
        self.terminal.draw(|frame| draw(frame, model, output)).map(drop)
    }

    /// Takes the screen again after something else used the terminal.
    pub fn resume(&mut self) -> io::Result<()> {
        // A shell may have set the modes meanwhile, and where raw mode is on already, as after SIGSTOP, it is not set again.
        disable_raw_mode()?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        // Clearing the old one would ask for the position of the cursor, whose answer the thread that reads keys gets.
        let empty = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        self.terminal = ManuallyDrop::new(empty);
        Ok(())
    }

    /// Gives the terminal back to the shell until the job is continued.
    pub async fn suspend(&mut self) -> io::Result<()> {
        ratatui::try_restore()?;
        crate::os::suspend().await?;
        self.resume()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // They fail where the terminal is gone.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Starts to read keys and changes of the size. A read of a terminal cannot be cancelled, so a thread of its own reads; it ends
/// soon after the receiver is dropped.
pub fn events() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(POLL) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => return,
            }
            let Ok(event) = event::read() else { return };
            let is_release = matches!(&event, Event::Key(key) if key.kind == KeyEventKind::Release);
            if !is_release && sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
