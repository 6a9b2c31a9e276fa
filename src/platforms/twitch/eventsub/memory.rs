//! Message ids, saved in a file across restarts. Losing it means at most that a chat message is counted twice.

use std::path::PathBuf;

use super::MessageMemory;
use crate::core::time::Timestamp;
use crate::files::{self, Durability, FileAccess};

/// Sixteen bytes per id: when it was received in milliseconds, and its fingerprint, both big-endian.
const RECORD: usize = 16;

/// Saves message ids in a file.
#[derive(Debug)]
pub struct FileMemory {
    path: PathBuf,
}

impl FileMemory {
    /// Uses the file at `path`; its directory must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn write(&self, memory: &[(Timestamp, u64)]) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(memory.len() * RECORD);
        for (at, fingerprint) in memory {
            bytes.extend_from_slice(&at.as_millis().to_be_bytes());
            bytes.extend_from_slice(&fingerprint.to_be_bytes());
        }
        let durability = Durability::Volatile {
            because: "without it a chat message may be counted twice, and it is written every few seconds",
        };
        files::write(&self.path, FileAccess::Owner, durability, |file| {
            file.write_all(&bytes)
        })
    }
}

impl MessageMemory for FileMemory {
    fn recall(&self) -> Vec<(Timestamp, u64)> {
        let bytes = files::read_input(&self.path, files::LARGE).unwrap_or_default();
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
    fn stored_ids_are_restored_despite_missing_or_truncated_file() {
        let dir = tempfile::tempdir().unwrap();
        let memory = FileMemory::new(dir.path().join("heard"));
        assert_eq!(memory.recall(), []);
        let kept = vec![(Timestamp::EPOCH.plus_secs(5), 7), (Timestamp::EPOCH, u64::MAX)];
        memory.keep(&kept);
        assert_eq!(memory.recall(), kept);
        let bytes = std::fs::read(&memory.path).unwrap();
        std::fs::write(&memory.path, &bytes[..20]).unwrap();
        assert_eq!(memory.recall(), kept[..1]);
        FileMemory::new(dir.path().join("nowhere/heard")).keep(&kept);
    }
}
