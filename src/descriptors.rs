//! File descriptors: how many this process may have open, and whether none are left.
//!
//! A process without a free descriptor can open no connection and no file. That is its own failure, and no evidence about a
//! platform, a name server or a token store.

use std::io;

use crate::os;

/// The message for people, with what to do.
pub const REASON: &str = "this process has too many files and connections open; raise its limit (`ulimit -n`, systemd LimitNOFILE=)";

/// Assumed where the system reports no limit; the smallest default among the systems that we build for.
const USUAL: usize = 256;

/// Returns how many descriptors this process may have.
pub fn limit() -> usize {
    reported_limit().unwrap_or(USUAL)
}

/// Returns how many descriptors this process may have, if the system reports that.
pub fn reported_limit() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    soft_limit(&text)
}

/// Returns how many descriptors this process has open, if the system lists them.
pub fn open() -> Option<usize> {
    let listed = std::fs::read_dir("/dev/fd").ok()?;
    // Reading the list takes one.
    Some(listed.count().saturating_sub(1))
}

fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    match line["Max open files".len()..].split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

/// Returns whether `error` means that no descriptor is left, in this process or on this machine.
pub fn is_exhaustion(error: &io::Error) -> bool {
    os::is_out_of_descriptors(error)
}

/// Returns whether no descriptor is left now. Resolver libraries report that as a failure of the name server, so this opens
/// something that can always be opened otherwise.
pub fn are_exhausted() -> bool {
    std::fs::File::open(os::NULL_DEVICE).is_err_and(|error| is_exhaustion(&error))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_the_systems_table() {
        let table = "Limit                     Soft Limit           Hard Limit           Units\n\
                     Max cpu time              unlimited            unlimited            seconds\n\
                     Max open files            1024                 524288               files\n";
        assert_eq!(soft_limit(table), Some(1024));
        assert_eq!(
            soft_limit("Max open files            unlimited unlimited files"),
            Some(usize::MAX)
        );
        assert_eq!(soft_limit(""), None);
        assert!(limit() >= 64);
    }

    #[test]
    fn an_open_file_counts_as_a_descriptor() {
        let before = open().unwrap();
        let files: Vec<_> = (0..50)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests of the process open and close files, too.
        assert!(open().unwrap() >= before + 25, "{}", files.len());
    }

    #[test]
    fn running_out_of_descriptors_is_recognized() {
        assert!(is_exhaustion(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!is_exhaustion(&io::Error::from_raw_os_error(libc::ENOENT)));
        assert!(!are_exhausted());
    }
}
