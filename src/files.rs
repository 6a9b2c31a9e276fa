//! Files of the program: created so that only their owner can read them.

use std::ffi::OsString;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use crate::os;

/// Creates `path` and its missing parents, accessible to their owner only. An existing one is not changed: its permissions may be
/// intended, and `doctor` reports them.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    os::create_private_dir(path)
}

/// Limit of files that people write: settings, keys, certificates (bytes). Real ones have some kilobytes.
pub const SMALL: u64 = 4 * 1024 * 1024;
/// Limit of a configuration file (bytes): 100,000 sources with their options need some 20 MB.
pub const CONFIGURATION: u64 = 32 * 1024 * 1024;
/// Limit of files that this program writes and reads again (bytes).
pub const LARGE: u64 = 64 * 1024 * 1024;

/// Opens an existing file to read it, following symbolic links.
///
/// Only a regular file is opened: reading a FIFO would wait for a writer that may never come, and a device may never end.
pub fn open_input(path: &Path) -> io::Result<File> {
    // The open of a FIFO would wait as well.
    let file = os::without_waiting(OpenOptions::new().read(true))
        .open(path)
        .map_err(|error| match path.metadata() {
            Ok(found) if os::is_of_special_file(&error) => not_regular(found.file_type()),
            _ => error,
        })?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else {
        Err(not_regular(kind))
    }
}

/// Reads an input file of at most `limit` bytes; see [`open_input`].
pub fn read_input(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bounded(open_input(path)?, limit)
}

/// As [`read_input`], of UTF-8 text.
pub fn read_input_text(path: &Path, limit: u64) -> io::Result<String> {
    let text = String::from_utf8(read_input(path, limit)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// As [`read_input`], of a file that was named on the command line: a shell passes the output of a command as `/dev/fd/63`, and
/// standard input is `/dev/stdin`.
pub fn read_given(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let is_stream = ["/dev/stdin", "/dev/fd/", "/proc/self/fd/"]
        .iter()
        .any(|start| path.as_os_str().as_encoded_bytes().starts_with(start.as_bytes()));
    if is_stream && path.metadata().is_ok_and(|found| os::is_fifo(found.file_type())) {
        return bounded(File::open(path)?, limit);
    }
    read_input(path, limit)
}

/// Reads an open file of at most `limit` bytes.
pub fn bounded(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let size = match limit / (1024 * 1024) {
            0 => format!("{} KiB", limit / 1024),
            mebibytes => format!("{mebibytes} MiB"),
        };
        let reason = format!("it is larger than {size}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// Rejects what a library would open for us and is not a regular file, or a symbolic link that leads nowhere, which the library
/// would create a file through. A missing file is accepted.
pub fn reject_special_file(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) => Err(not_regular(found.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => reject_symlink(path),
        // A missing directory is reported by the call that creates it.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file of ours, replacing one that exists; a symbolic link is replaced and not followed.
pub fn write_output(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
        std::fs::remove_file(path)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = os::without_following(&mut options).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() {
        return Err(not_regular(kind));
    }
    file.write_all(bytes)
}

fn not_regular(kind: FileType) -> io::Error {
    io::Error::other(format!("it is {}, not a regular file", os::name_of(kind)))
}

/// Opens a lock file, creating it when it is missing.
///
/// A symbolic link in its place is rejected: otherwise another user who can write the directory could truncate any of our files.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = os::without_following(os::private_file(&mut options))
        .open(path)
        .map_err(|error| match os::is_of_symlink(&error) {
            true => link(path),
            false => error,
        })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a file; remove it and start again"))
    }
}

/// Rejects a symbolic link in place of a file that a library opens for us.
pub fn reject_symlink(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_symlink() => Err(link(path)),
        _ => Ok(()),
    }
}

/// Whether a file must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// File and directory are flushed to the disk (fsync) before the write counts as done.
    Durable,
    /// Nothing is flushed: a power failure may leave the old file, none, or an empty one.
    Volatile {
        /// Why that is acceptable.
        because: &'static str,
    },
}

/// Random letters in the name of a temporary file.
const TEMPORARY_LETTERS: usize = 6;

/// Who may access a file that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// Its owner only (mode 0600).
    Owner,
    /// The permissions of the existing file; the owner only if there is none.
    Unchanged,
}

/// Writes `path` in one step: a crash leaves either the old file or the new one, and no reader finds a part of it. `fill` writes
/// the new content to a temporary file in the same directory, which then replaces `path`.
///
/// Only a regular file is ever replaced: a rename would replace a device or a socket too. A symbolic link to a file is replaced
/// itself; its target is not changed.
pub fn write(
    path: &Path,
    access: FileAccess,
    durability: Durability,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let existing = match path.metadata() {
        Ok(found) if !found.is_file() => {
            return Err(io::Error::other(
                "it is not a regular file, so it is not replaced",
            ));
        }
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let directory = directory_of(path);
    let mut fresh = temporary(path)?;
    let mut buffered = BufWriter::new(&mut fresh);
    fill(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    if let (FileAccess::Unchanged, Some(existing)) = (access, existing) {
        fresh.as_file().set_permissions(existing.permissions())?;
    }
    if durability == Durability::Durable {
        fresh.as_file().sync_all()?;
    }
    fresh.persist(path).map_err(|error| error.error)?;
    match durability {
        // The new name survives a power failure only once the directory is on the disk too.
        Durability::Durable => os::sync_dir(directory),
        Durability::Volatile { because } => {
            tracing::trace!(path = %path.display(), because, "Written without fsync");
            Ok(())
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The letters with which the names of temporary files of `path` begin; six random ones follow.
fn temporary_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push("-");
    prefix
}

/// Creates a temporary file, with mode 0600, that can replace `path`. It is deleted when the value is dropped.
pub fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .prefix(&temporary_prefix(path))
        .rand_bytes(TEMPORARY_LETTERS)
        .tempfile_in(directory_of(path))
}

/// Gives a temporary file of `path` its name, so that it survives a power failure.
pub fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    os::sync_dir(directory_of(path))
}

/// Returns the temporary files of `path` that a process left when it was killed. Only the holder of the lock of `path` can tell them from those of
/// a process that is writing now.
pub fn leftovers(path: &Path) -> Vec<PathBuf> {
    let prefix = temporary_prefix(path);
    let is_ours = |name: &OsString| {
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        rest.is_some_and(|rest| rest.len() == TEMPORARY_LETTERS && rest.iter().all(u8::is_ascii_alphanumeric))
    };
    let entries = std::fs::read_dir(directory_of(path))
        .into_iter()
        .flatten()
        .flatten();
    let ours = entries.filter(|entry| is_ours(&entry.file_name()));
    ours.map(|entry| entry.path()).collect()
}

fn link(path: &Path) -> io::Error {
    let target = path
        .read_link()
        .map_or_else(|_| String::new(), |target| format!(" to {}", target.display()));
    io::Error::other(format!(
        "it is a symbolic link{target}, which is not followed; remove it and start again"
    ))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_lock_that_is_a_link_is_refused_and_its_target_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (link_target, lock) = (dir.path().join("victim"), dir.path().join("watch.lock"));
        std::fs::write(&link_target, "precious").unwrap();
        symlink(&link_target, &lock).unwrap();
        for refused in [open_lock(&lock).unwrap_err(), reject_symlink(&lock).unwrap_err()] {
            assert!(refused.to_string().contains("symbolic link to"), "{refused}");
        }
        assert_eq!(std::fs::read_to_string(&link_target).unwrap(), "precious");
        // A dangling link would otherwise create a file there.
        let nowhere = dir.path().join("nowhere");
        std::fs::remove_file(&lock).unwrap();
        symlink(&nowhere, &lock).unwrap();
        assert!(open_lock(&lock).is_err() && !nowhere.exists());
    }

    #[test]
    fn fifo_device_or_directory_is_never_read_as_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = dir.path().join("link");
        symlink("/dev/zero", &link).unwrap();
        for (path, said) in [
            (fifo.as_path(), "a FIFO"),
            (Path::new("/dev/zero"), "a device"),
            (link.as_path(), "a device"),
            (socket.as_path(), "a socket"),
            (dir.path(), "a directory"),
        ] {
            for error in [
                read_input(path, 10).unwrap_err(),
                read_given(path, 10).unwrap_err(),
                reject_special_file(path).unwrap_err(),
            ] {
                let text = error.to_string();
                assert!(
                    text.contains(said) && text.contains("not a regular file"),
                    "{path:?}: {text}"
                );
            }
        }
        for path in [&fifo, &dir.path().to_owned()] {
            assert!(write_output(path, b"x").is_err(), "{path:?}");
        }
    }

    #[test]
    fn input_files_are_bounded_and_links_to_files_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "12345").unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(read_input(&link, 5).unwrap(), b"12345");
        assert_eq!(read_given(&link, 5).unwrap(), b"12345");
        let error = read_input(&file, 4).unwrap_err().to_string();
        assert!(error.contains("larger than"), "{error}");
        let missing = read_input(&dir.path().join("missing"), 4).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn output_replaces_a_link_and_leaves_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let (link_target, page) = (dir.path().join("victim"), dir.path().join("page.1"));
        std::fs::write(&link_target, "precious").unwrap();
        symlink(&link_target, &page).unwrap();
        write_output(&page, b"page").unwrap();
        write_output(&page, b"new").unwrap();
        assert_eq!(std::fs::read_to_string(&link_target).unwrap(), "precious");
        assert_eq!(std::fs::read_to_string(&page).unwrap(), "new");
        assert!(!page.symlink_metadata().unwrap().is_symlink());
        // What a library would open is rejected as a link only where it leads nowhere.
        symlink(&link_target, dir.path().join("good")).unwrap();
        reject_special_file(&dir.path().join("good")).unwrap();
        symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();
        let error = reject_special_file(&dir.path().join("dangling")).unwrap_err();
        assert!(error.to_string().contains("symbolic link to"), "{error}");
    }

    #[test]
    fn a_new_lock_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        open_lock(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0);
        assert!(open_lock(dir.path()).is_err());
        reject_symlink(&path).unwrap();
        reject_symlink(&dir.path().join("missing")).unwrap();
    }

    #[test]
    fn only_a_regular_file_is_ever_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let replace = |path: &Path| put(path, FileAccess::Owner, Durability::Durable);
        let file = dir.path().join("file");
        replace(&file).unwrap();
        replace(&file).unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = replace(&socket).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        assert!(!socket.metadata().unwrap().is_file());
        assert!(replace(dir.path()).is_err());
    }

    #[test]
    fn link_is_replaced_and_its_target_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        std::fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        put(&link, FileAccess::Owner, Durability::Durable).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
        assert!(!link.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn written_file_is_its_owners_alone_unless_permissions_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mode = || path.metadata().unwrap().permissions().mode() & 0o777;
        let volatile = Durability::Volatile {
            because: "it is a test",
        };
        put(&path, FileAccess::Unchanged, volatile).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        put(&path, FileAccess::Unchanged, Durability::Durable).unwrap();
        assert_eq!(mode(), 0o644);
        put(&path, FileAccess::Owner, volatile).unwrap();
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        put(&path, FileAccess::Owner, Durability::Durable).unwrap();
        let failed = write(&path, FileAccess::Owner, Durability::Durable, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "content");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    fn put(path: &Path, access: FileAccess, durability: Durability) -> io::Result<()> {
        write(path, access, durability, |file| file.write_all(b"content"))
    }
}
