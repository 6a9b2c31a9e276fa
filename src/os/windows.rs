//! Windows.

use std::fs::{FileType, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

use super::{JobSignal, Signal};

/// Whether [`shared_mode`] returns what it finds.
pub const PERMISSIONS_ARE_CHECKED: bool = false;
/// A device that can always be opened while there are handles.
pub const NULL_DEVICE: &str = "NUL";

/// `FILE_FLAG_OPEN_REPARSE_POINT`: opens a link itself, which is no regular file.
const OPEN_LINK_ITSELF: u32 = 0x0020_0000;
/// `ERROR_TOO_MANY_OPEN_FILES`.
const TOO_MANY_OPEN_FILES: i32 = 4;

/// Creates a directory and its missing parents.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// Creates a temporary directory, in that of the user.
pub fn private_temp_dir(prefix: &str) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(prefix).tempdir()
}

/// Returns `None`: the free space is not checked here.
pub fn free_space(_: &Path) -> io::Result<Option<u64>> {
    Ok(None)
}

/// Returns `None`: it is not measured here.
pub fn cpu_time() -> Option<Duration> {
    None
}

/// Returns `None`: it is not measured here.
pub fn resident_memory() -> Option<u64> {
    None
}

pub fn private_file(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

pub fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Opens a symbolic link itself, which is no regular file.
pub fn without_following(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(OPEN_LINK_ITSELF)
}

pub fn is_of_symlink(_: &io::Error) -> bool {
    false
}

pub fn is_of_special_file(_: &io::Error) -> bool {
    false
}

pub fn is_fifo(_: FileType) -> bool {
    false
}

/// Returns what it is that is no regular file.
pub fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "a device"
    }
}

/// Permissions are not checked.
pub fn shared_mode(_: &Metadata) -> Option<u32> {
    None
}

/// Permissions are not checked.
pub fn mode_writable_by_others(_: &Metadata) -> Option<u32> {
    None
}

/// The standard library has no stable number for a file.
pub fn file_id(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// A directory cannot be flushed; a rename is a part of the file system's own journal.
pub fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether no handle is left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error() == Some(TOO_MANY_OPEN_FILES)
}

/// There are no such limits.
pub fn fail_writes_beyond_size_limits() {}

/// Ctrl-C and Ctrl-Break, the end of the console and of the system, which are handled from the creation on.
pub struct Signals {
    interrupt: CtrlC,
    terminate: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: ctrl_c()?,
            terminate: ctrl_break()?,
            close: ctrl_close()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// Waits for the next one; `None` when none can arrive any more.
    pub async fn recv(&mut self) -> Option<Signal> {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Some(Signal::Interrupt),
            Some(()) = self.terminate.recv() => Some(Signal::Terminate),
            Some(()) = self.close.recv() => Some(Signal::Terminate),
            Some(()) = self.shutdown.recv() => Some(Signal::Terminate),
            else => None,
        }
    }
}

/// There are no jobs that could be stopped.
#[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
pub fn stop_job() -> io::Result<()> {
    Ok(())
}

/// There are no jobs that could be stopped.
#[expect(clippy::unused_async, reason = "it waits elsewhere")]
pub async fn suspend() -> io::Result<()> {
    Ok(())
}

/// Processes are not stopped and continued.
pub struct JobSignals;

impl JobSignals {
    #[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
    pub fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub async fn recv(&mut self) -> JobSignal {
        std::future::pending().await
    }
}

/// Waits for a signal that ends a command.
pub async fn stop_requested() -> io::Result<Signal> {
    let mut signals = Signals::new()?;
    Ok(signals.recv().await.unwrap_or(Signal::Terminate))
}

/// Changes of the terminal's size, which Windows does not report: the size is compared at each redraw.
pub struct Resizes;

impl Resizes {
    #[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
    pub fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub async fn recv(&mut self) {
        std::future::pending().await
    }
}
