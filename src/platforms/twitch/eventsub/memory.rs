//! Ids of messages, kept in a file across restarts. Losing it costs at most a line of chat counted twice.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::MessageMemory;
use crate::core::time::Timestamp;

/// Sixteen bytes an id: when it was heard in milliseconds, and its fingerprint, both big-endian.
const RECORD: usize = 16;

/// Keeps ids of messages in a file.
#[derive(Debug)]
pub struct FileMemory {
    path: PathBuf,
}

impl FileMemory {
    /// Takes the file's place; its directory must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn write(&self, memory: &[(Timestamp, u64)]) -> std::io::Result<()> {
        let directory = self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(std::path::Path::new("."));
        let mut bytes = Vec::with_capacity(memory.len() * RECORD);
        for (at, fingerprint) in memory {
            bytes.extend_from_slice(&at.as_millis().to_be_bytes());
            bytes.extend_from_slice(&fingerprint.to_be_bytes());
        }
        let mut fresh = tempfile::Builder::new()
            .prefix(".heard-")
            .tempfile_in(directory)?;
        fresh.write_all(&bytes)?;
        fresh.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

impl MessageMemory for FileMemory {
    fn recall(&self) -> Vec<(Timestamp, u64)> {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let (records, _rest) = bytes.as_chunks::<RECORD>();
        records
            .iter()
            .map(|record| {
                let (at, fingerprint) = record.split_at(8);
                let at = i64::from_be_bytes(at.try_into().expect("half of sixteen is eight"));
                let fingerprint =
                    u64::from_be_bytes(fingerprint.try_into().expect("half of sixteen is eight"));
                (Timestamp::from_millis(at), fingerprint)
            })
            .collect()
    }

    fn keep(&self, memory: &[(Timestamp, u64)]) {
        if let Err(error) = self.write(memory) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "Ids of messages cannot be kept"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_a_missing_or_cut_file_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let memory = FileMemory::new(dir.path().join("heard"));
        assert_eq!(memory.recall(), []);
        let kept = vec![(Timestamp::EPOCH.plus_secs(5), 7), (Timestamp::EPOCH, u64::MAX)];
        memory.keep(&kept);
        assert_eq!(memory.recall(), kept);
        let bytes = fs::read(&memory.path).unwrap();
        fs::write(&memory.path, &bytes[..20]).unwrap();
        assert_eq!(memory.recall(), kept[..1]);
        FileMemory::new(dir.path().join("nowhere/heard")).keep(&kept);
    }
}
