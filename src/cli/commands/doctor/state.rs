//! Checks whether the daemon can write its state directory and bind its address. Both are tried: permissions alone do not show a
//! full disk, a read-only mount or a port that is in use.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::app::App;
use crate::cli::output::{humane, quoted};
use crate::cli::reports::doctor::{Check, Outcome};
use crate::config::{Settings, StoreTarget};
use crate::files::make_private_dir;
use crate::os;
use crate::watch::state_file::{StateFile, StateFileOptions};
use crate::web;

/// Bytes written by the test; a state directory with less space is as good as full.
const TRY: usize = 256 * 1024;
/// Free bytes below which the disk may become full while the daemon runs, and below which it is as good as full.
const SPACE_WARN: u64 = 256 * 1024 * 1024;
const SPACE_FAIL: u64 = 16 * 1024 * 1024;
/// How often and after which delay an address that is in use is tried again.
const RETRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// Timeout for the process that uses the address.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

pub fn directory(settings: &Settings, state_file: &Path) -> Vec<Check> {
    const NAME: &str = "directory";
    let path = &settings.state_dir;
    let shown = path.display();
    let check = |outcome, detail: String| Check::new("state", NAME, outcome, detail);
    if let Err(error) = make_private_dir(path) {
        let detail = format!("{shown} cannot be made: {error}");
        let next = "bitbrat config show  # state_dir: a directory that this account may write";
        return vec![check(Outcome::Fail, detail).next(next)];
    }
    if let Err(error) = try_write(path) {
        let detail = format!("{shown} cannot be written: {error}");
        return vec![check(Outcome::Fail, detail).next(remedy(path, &error))];
    }
    if let Some((file, error)) = unwritable(path) {
        let detail = format!("{} cannot be written: {error}", file.display());
        return vec![
            check(Outcome::Fail, detail).next(format!("ls -l {}", quoted(&file.display().to_string()))),
        ];
    }
    let shared = path.metadata().ok().and_then(|found| os::shared_mode(&found));
    let unchecked = match os::PERMISSIONS_ARE_CHECKED {
        true => "",
        false => "; not checked: who may read it",
    };
    let mut checks = vec![match shared {
        Some(mode) => {
            let detail = format!("{shown} can be read by others (mode {mode:03o})");
            check(Outcome::Warn, detail).next(format!("chmod 700 {}", quoted(&shown.to_string())))
        }
        None => check(
            Outcome::Ok,
            format!("{shown}: written and removed {} KiB{unchecked}", TRY / 1024),
        ),
    }];
    checks.extend(outbox(settings, state_file));
    checks
}

/// Returns why tokens cannot be written to `file`, if so: a renewed pair that is not stored is lost, and its account with it.
pub fn tokens(file: &Path) -> Option<Check> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let error = make_private_dir(directory)
        .and_then(|()| try_write(directory))
        .err()?;
    let detail = format!("no renewed token can be kept in {}: {error}", directory.display());
    let check = Check::new("tokens", "token store", Outcome::Fail, detail);
    Some(check.next(remedy(directory, &error)))
}

/// Checks the free space where state and documents are written; `None` where the system does not report it.
pub fn disk(settings: &Settings) -> Option<Check> {
    let of_store = match &settings.store.target {
        StoreTarget::Sqlite(path) => path.parent().filter(|parent| !parent.as_os_str().is_empty()),
        StoreTarget::Memory | StoreTarget::Firestore { .. } | StoreTarget::Postgres(_) => None,
    };
    let places = [Some(settings.state_dir.as_path()), of_store];
    // A directory that cannot be read is reported where it is written.
    let free = places
        .into_iter()
        .flatten()
        .filter_map(|place| Some((os::free_space(place).ok()??, place)));
    let (free, place) = free.min()?;
    let shown = place.display().to_string();
    let detail = format!("{} MiB free in {shown}", humane::thousands(free / (1024 * 1024)));
    let check = |outcome| Check::new("state", "disk space", outcome, detail);
    Some(match free {
        ..SPACE_FAIL => check(Outcome::Fail).next(format!("df -h {}", quoted(&shown))),
        SPACE_FAIL..SPACE_WARN => check(Outcome::Warn).next(format!("df -h {}", quoted(&shown))),
        _ => check(Outcome::Ok),
    })
}

/// Opens the outbox as `watch` does, where there is one.
fn outbox(settings: &Settings, file: &Path) -> Option<Check> {
    file.exists().then(|| {
        let detail = file.display().to_string();
        let options = StateFileOptions {
            instance: "doctor".to_owned(),
            bound: settings.watch.outbox,
            has_sink: true,
            has_alerts: false,
            history: None,
        };
        match StateFile::open(file, options) {
            Ok(_) => Check::new("state", "outbox", Outcome::Ok, detail),
            Err(error) => {
                let check = Check::new("state", "outbox", Outcome::Fail, error.to_string());
                check.next(format!("ls -l {}", quoted(&file.display().to_string())))
            }
        }
    })
}

fn try_write(directory: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".doctor-")
        .tempfile_in(directory)?;
    file.write_all(&vec![b' '; TRY])?;
    file.as_file().sync_all()
}

/// Returns a file in the directory that this account may not write.
fn unwritable(directory: &Path) -> Option<(std::path::PathBuf, io::Error)> {
    let files = std::fs::read_dir(directory).ok()?;
    let files = files.filter_map(|entry| {
        let path = entry.ok()?.path();
        path.is_file().then_some(path)
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.into_iter().find_map(|path| {
        let opened = std::fs::OpenOptions::new().append(true).open(&path);
        Some((path, opened.err()?))
    })
}

fn remedy(path: &Path, error: &io::Error) -> String {
    let shown = quoted(&path.display().to_string());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            format!("df -h {shown}")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("findmnt -T {shown}  # remount it writable, or set state_dir")
        }
        _ => format!("ls -ld {shown}"),
    }
}

/// Tries to bind the address at which `watch` serves its pages.
pub async fn address(app: &App) -> Check {
    const NAME: &str = "address";
    let check = |outcome, detail: String| Check::new("web", NAME, outcome, detail);
    let Some(address) = app.settings.web.listen else {
        return check(Outcome::Ok, "`watch` serves no web".to_owned());
    };
    let reach = if address.ip().is_loopback() {
        "for this machine only"
    } else {
        "behind BITBRAT_WEB_TOKEN"
    };
    let mut bound = web::bind(address).await;
    for _ in 0..RETRIES {
        if bound.is_ok() {
            break;
        }
        // Another `doctor` may use it for a moment.
        tokio::time::sleep(PAUSE).await;
        bound = web::bind(address).await;
    }
    let Err(failure) = bound else {
        return check(Outcome::Ok, format!("{address}, {reach}"));
    };
    if is_ours(app, address).await {
        return check(
            Outcome::Ok,
            format!("{address}, {reach}; a running `bitbrat watch` serves it"),
        );
    }
    check(Outcome::Fail, failure.with_causes())
        .next("bitbrat config show  # web.listen: another port, or off")
}

/// Whether a `watch` of ours answers at the address.
async fn is_ours(app: &App, address: std::net::SocketAddr) -> bool {
    let Ok(url) = format!("http://{address}/livez").parse() else {
        return false;
    };
    let Ok(request) = app.http.request(reqwest::Method::GET, url).build() else {
        return false;
    };
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, app.http.send(request)).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.is_success()))
}
