//! Linux, macOS and their relatives.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::Notify;

use super::{JobSignal, Signal};

/// Whether [`shared_mode`] returns what it finds.
pub const PERMISSIONS_ARE_CHECKED: bool = true;
/// A device that can always be opened while there are descriptors.
pub const NULL_DEVICE: &str = "/dev/null";

/// Creates a directory and its missing parents, accessible to their owner only.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Creates a temporary directory, accessible to its owner only.
pub fn private_temp_dir(prefix: &str) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()
}

/// Returns how many bytes this user can still write on the disk of `path`; `None` if the system does not report that.
pub fn free_space(path: &Path) -> io::Result<Option<u64>> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
}

/// Returns the CPU time that all threads of this process have used.
pub fn cpu_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec).ok()?,
    );
    Some(Duration::new(seconds, nanos))
}

/// Returns the time since the system was started, the time in which it was suspended included. Only Linux has a clock of that; on
/// other systems it may stand still while the machine is suspended.
pub fn since_boot() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Returns a name of this start of the system that all its processes see; `None` where there is none.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Whether a path is on a file system that other hosts may use. Only Linux shows that.
pub fn is_on_network(path: &Path) -> bool {
    // NFS, SMB, CIFS, SMB2, Ceph, AFS (`linux/magic.h`).
    #[cfg(target_os = "linux")]
    {
        const NETWORK: [u32; 6] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400, 0x5346_414f];
        rustix::fs::statfs(path).is_ok_and(|found| {
            // The type of the number depends on the architecture; all magic numbers have 32 bits.
            u32::try_from(i128::from(found.f_type) & 0xffff_ffff).is_ok_and(|kind| NETWORK.contains(&kind))
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        false
    }
}

/// Returns how many bytes of memory this process occupies, if the system has a table of that.
pub fn resident_memory() -> Option<u64> {
    let sizes = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = sizes.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Makes a file that is created accessible to its owner only.
pub fn private_file(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

/// Lets the open of a FIFO return at once instead of waiting for a writer; for a regular file it has no effect.
pub fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
}

/// As [`without_waiting`], and lets the open of a symbolic link fail.
pub fn without_following(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
}

/// Whether the open of a file failed because it is a symbolic link.
pub fn is_of_symlink(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

/// Whether the open of a file failed because it cannot be opened at all, such as a socket.
pub fn is_of_special_file(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENXIO)
}

pub fn is_fifo(kind: FileType) -> bool {
    kind.is_fifo()
}

/// Returns what it is that is no regular file.
pub fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Returns the permission bits of a file or directory if others than its owner have any.
pub fn shared_mode(file: &Metadata) -> Option<u32> {
    let mode = file.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Returns the permission bits of a file or directory if others than its owner may write it.
pub fn mode_writable_by_others(file: &Metadata) -> Option<u32> {
    let mode = file.permissions().mode() & 0o777;
    (mode & 0o022 != 0).then_some(mode)
}

/// Returns a number for the file that another one of the same path does not have.
pub fn file_id(file: &Metadata) -> Option<(u64, u64)> {
    Some((file.dev(), file.ino()))
}

/// Writes the names in a directory to the disk.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether no file descriptor is left, in this process or on this machine.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Lets a write beyond the system's size limit of files fail, as on a full disk, where it would end the process.
pub fn fail_writes_beyond_size_limits() {
    // The handler stays when what receives the signals is dropped. Without it everything but such writes works.
    let _ = signal(SignalKind::from_raw(libc::SIGXFSZ));
}

/// SIGTERM, SIGINT and SIGHUP, which are handled from the creation on.
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    reload: Stream,
}

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one; `None` when none can arrive any more.
    pub async fn recv(&mut self) -> Option<Signal> {
        tokio::select! {
            Some(()) = self.terminate.recv() => Some(Signal::Terminate),
            Some(()) = self.interrupt.recv() => Some(Signal::Interrupt),
            Some(()) = self.reload.recv() => Some(Signal::Reload),
            else => None,
        }
    }
}

/// Requests the stop of the job that this process belongs to, as the terminal does at Ctrl-Z.
pub fn stop_job() -> io::Result<()> {
    rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
    Ok(())
}

/// Stops this process as SIGTSTP does where it is not handled, and returns when it is continued.
pub async fn suspend() -> io::Result<()> {
    /// The signal may reach another thread first, so this one may go on for a moment.
    const DELIVERY: Duration = Duration::from_millis(100);
    // A shell with job control puts each job into a group of its own. Without one, nothing would continue the process.
    if rustix::process::getpgrp() == rustix::process::getsid(None)? {
        return Ok(());
    }
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
    tokio::time::sleep(DELIVERY).await;
    Ok(())
}

/// Signals of job control. From the creation on, SIGTSTP does not stop the process by itself any more.
pub struct JobSignals {
    stop: Stream,
    continued: Stream,
}

impl JobSignals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            stop: signal(SignalKind::from_raw(libc::SIGTSTP))?,
            continued: signal(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }

    /// Waits for the next one.
    pub async fn recv(&mut self) -> JobSignal {
        tokio::select! {
            Some(()) = self.stop.recv() => JobSignal::Stop,
            Some(()) = self.continued.recv() => JobSignal::Continue,
            else => std::future::pending().await,
        }
    }
}

/// The stream of SIGHUP after [`end_on_hangup`], and the notification that it exists.
static HANGUPS: (Mutex<Option<Stream>>, Notify) = (Mutex::new(None), Notify::const_new());

/// Lets [`stop_requested`] return for SIGHUP, too, from now on: it is called before the settings of the terminal are changed, which
/// must be restored whatever ends the command. Otherwise SIGHUP keeps its effect, also where `nohup` has it ignored.
pub fn end_on_hangup() -> io::Result<()> {
    let mut hangups = HANGUPS.0.lock();
    if hangups.is_none() {
        *hangups = Some(signal(SignalKind::hangup())?);
        HANGUPS.1.notify_one();
    }
    Ok(())
}

async fn hangup() {
    HANGUPS.1.notified().await;
    let hangups = HANGUPS.0.lock().take();
    match hangups {
        Some(mut hangups) => drop(hangups.recv().await),
        None => std::future::pending().await,
    }
}

/// Waits for a signal that ends a command, so that the command restores the terminal.
pub async fn stop_requested() -> io::Result<Signal> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    Ok(tokio::select! {
        _ = terminate.recv() => Signal::Terminate,
        _ = interrupt.recv() => Signal::Interrupt,
        () = hangup() => Signal::Reload,
        _ = quit.recv() => Signal::Quit,
    })
}

/// Changes of the terminal's size.
pub struct Resizes(Stream);

impl Resizes {
    pub fn new() -> io::Result<Self> {
        signal(SignalKind::window_change()).map(Self)
    }

    pub async fn recv(&mut self) {
        self.0.recv().await;
    }
}
