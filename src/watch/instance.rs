//! The name under which a daemon stores its totals and its waiting events: generated once per state directory.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::files::{self, Durability, FileAccess};

/// Maximum size of the file in bytes.
const LIMIT: u64 = 200;

/// Returns the name of the daemon in `state_dir`, which holds the lock of the directory.
pub fn name(state_dir: &Path) -> io::Result<String> {
    let path = state_dir.join("instance");
    match files::read_input_text(&path, LIMIT) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err(io::Error::new(
                error.kind(),
                format!("{}: {error}", path.display()),
            ));
        }
    }
    let name = format!("watch-{}", uuid::Uuid::new_v4().simple());
    // After a power failure another name would count on from zero; the totals are sums over all names.
    files::write(&path, FileAccess::Owner, Durability::Durable, |file| {
        writeln!(file, "{name}")
    })?;
    Ok(name)
}
