//! Files of our own: made so that only their owner can look into them.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes `path` and what is missing above it, open to its owner only. One that is there is left as it is: a directory
/// that someone chose to share is theirs to share, and `doctor` tells them.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}
