//! State that must outlive a process to prevent penalties from Discord: invalid tokens, bans, and spent Identifies.
//!
//! One small JSON file in the state directory, written by several processes under a lock. It contains fingerprints, never
//! tokens. Without a directory the state is kept in the process only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::limits::Breaker;
use crate::core::time::Timestamp;
use crate::files::{self, Durability, FileAccess, make_private_dir};

const FILE: &str = "discord.json";
/// Maximum number of invalid tokens; those refused longest ago are removed first.
const REJECTED_TOKENS: usize = 32;
/// Maximum number of accepted tokens; the oldest are removed first.
const ACCEPTED_TOKENS: usize = 32;
/// How long after the last refusal one more try is allowed. Discord names no number; ours costs at most 24 requests a
/// day.
const RETRY_REJECTED: Duration = Duration::from_hours(1);
/// The window of Discord's limit of Identifies.
const DAY: Duration = Duration::from_hours(24);

/// State of all bitbrat processes that share a state directory.
#[derive(Debug)]
pub struct Memory {
    dir: Option<PathBuf>,
    /// State that could not be written, if any; it then takes precedence over the file.
    unwritten: Mutex<Option<Remembered>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Remembered {
    /// By fingerprint of the token.
    rejected_tokens: BTreeMap<String, RejectedToken>,
    /// When a token was first accepted, by its fingerprint. A token that was never accepted cannot have been revoked.
    accepted_tokens: BTreeMap<String, Timestamp>,
    /// Blocks by Cloudflare, by host.
    blocked: BTreeMap<String, Breaker>,
    /// Times of Identifies by bot.
    identifies: BTreeMap<String, Vec<Timestamp>>,
}

/// A token that Discord refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedToken {
    /// When it was last refused.
    pub refused_at: Timestamp,
    /// When it was last tried, or allowed to be.
    tried_at: Timestamp,
}

/// Status of a token before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStatus {
    /// It was not refused.
    Good,
    /// It was refused; nothing may be sent.
    Rejected(RejectedToken),
    /// It was refused long ago; the caller may try it with one request.
    MayTryOnce(RejectedToken),
}

/// Why no Identify may be sent.
#[derive(Debug, thiserror::Error)]
pub enum NoIdentify {
    /// Our own daily share is used up.
    #[error(
        "{used} Identifies were sent within a day, as many as we allow ourselves; the next is free at {until}"
    )]
    Spent {
        used: usize,
        /// When the oldest leaves the window.
        until: Timestamp,
    },
    /// It could not be recorded, so it must not be sent.
    #[error("the Identify cannot be put on record")]
    Unrecorded {
        #[source]
        source: io::Error,
    },
}

/// Returns a fingerprint that identifies a token without revealing it.
pub fn fingerprint(token: &SecretString) -> String {
    let text = format!("bitbrat discord token\n{}", token.expose_secret());
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut shown = String::with_capacity(32);
    for byte in &hash.as_ref()[..16] {
        // Writing to a string cannot fail.
        let _ = write!(shown, "{byte:02x}");
    }
    shown
}

impl Memory {
    /// Stores state in `dir`, or in this process only.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self {
            dir,
            unwritten: Mutex::default(),
        }
    }

    /// Returns the directory that processes share, if there is one.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Returns whether the token with `fingerprint` may be used, claiming the one try when there is one.
    pub fn token_status(&self, fingerprint: &str, now: Timestamp) -> TokenStatus {
        let Some(rejected) = self.rejected(fingerprint) else {
            return TokenStatus::Good;
        };
        if rejected.tried_at.is_recent(RETRY_REJECTED, now) {
            return TokenStatus::Rejected(rejected);
        }
        let claimed = self.change(|memory| {
            let rejected = memory.rejected_tokens.get_mut(fingerprint)?;
            (!rejected.tried_at.is_recent(RETRY_REJECTED, now)).then(|| rejected.tried_at = now)
        });
        match claimed {
            Ok(Some(())) => TokenStatus::MayTryOnce(rejected),
            // Another process was faster, or the claim cannot be stored.
            Ok(None) | Err(_) => TokenStatus::Rejected(rejected),
        }
    }

    /// Returns when the token with `fingerprint` was refused, if it was.
    pub fn rejected(&self, fingerprint: &str) -> Option<RejectedToken> {
        self.read().rejected_tokens.get(fingerprint).copied()
    }

    /// Records that the token was refused at `at`.
    pub fn token_refused(&self, fingerprint: &str, at: Timestamp) -> io::Result<()> {
        self.change(|memory| {
            let rejected = RejectedToken {
                refused_at: at,
                tried_at: at,
            };
            memory.rejected_tokens.insert(fingerprint.to_owned(), rejected);
            while memory.rejected_tokens.len() > REJECTED_TOKENS {
                let oldest = memory
                    .rejected_tokens
                    .iter()
                    .min_by_key(|(_, rejected)| rejected.tried_at);
                let Some(oldest) = oldest.map(|(fingerprint, _)| fingerprint.clone()) else {
                    break;
                };
                memory.rejected_tokens.remove(&oldest);
            }
        })
    }

    /// Records that the token was accepted at `at` and clears its refusal.
    pub fn token_accepted(&self, fingerprint: &str, at: Timestamp) -> io::Result<()> {
        let known = self.read();
        if known.accepted_tokens.contains_key(fingerprint) && !known.rejected_tokens.contains_key(fingerprint)
        {
            return Ok(());
        }
        self.change(|memory| {
            memory.rejected_tokens.remove(fingerprint);
            memory.accepted_tokens.entry(fingerprint.to_owned()).or_insert(at);
            while memory.accepted_tokens.len() > ACCEPTED_TOKENS {
                let oldest = memory.accepted_tokens.iter().min_by_key(|(_, at)| **at);
                let Some(oldest) = oldest.map(|(fingerprint, _)| fingerprint.clone()) else {
                    break;
                };
                memory.accepted_tokens.remove(&oldest);
            }
        })
    }

    /// Returns whether the token was ever accepted.
    pub fn was_accepted(&self, fingerprint: &str) -> bool {
        self.read().accepted_tokens.contains_key(fingerprint)
    }

    /// Returns the state of the breaker for `host`.
    pub fn breaker(&self, host: &str) -> Breaker {
        self.read().blocked.get(host).copied().unwrap_or_default()
    }

    /// Stores the state of the breaker for `host`.
    pub fn set_breaker(&self, host: &str, breaker: Breaker) -> io::Result<()> {
        self.change(|memory| {
            if breaker.strikes == 0 {
                memory.blocked.remove(host);
            } else {
                memory.blocked.insert(host.to_owned(), breaker);
            }
        })
    }

    /// Records one more Identify of `bot`, unless `cap` of them were sent within the last 24 hours.
    ///
    /// It is recorded first: an Identify that is not recorded is never sent, a recorded one might not be.
    pub fn claim_identify(&self, bot: &str, cap: usize, now: Timestamp) -> Result<(), NoIdentify> {
        let claimed = self.change(|memory| {
            let sent = memory.identifies.entry(bot.to_owned()).or_default();
            // A time in the future was written before the clock was set back and counts until it has passed.
            sent.retain(|at| now.since(*at) < DAY);
            if sent.len() >= cap {
                let oldest = sent.iter().min().copied().unwrap_or(now);
                return Err((sent.len(), oldest.plus(DAY)));
            }
            sent.push(now);
            Ok(())
        });
        match claimed {
            Ok(Ok(())) => Ok(()),
            Ok(Err((used, until))) => Err(NoIdentify::Spent { used, until }),
            Err(source) => Err(NoIdentify::Unrecorded { source }),
        }
    }

    /// Returns how many Identifies of `bot` are recorded for the last 24 hours.
    pub fn identifies(&self, bot: &str, now: Timestamp) -> usize {
        self.read()
            .identifies
            .get(bot)
            .map_or(0, |sent| sent.iter().filter(|at| now.since(**at) < DAY).count())
    }

    /// Returns when the newest Identify of `bot` was recorded.
    pub fn last_identify(&self, bot: &str) -> Option<Timestamp> {
        self.read().identifies.get(bot)?.iter().max().copied()
    }

    fn read(&self) -> Remembered {
        if let Some(unwritten) = self.unwritten.lock().clone() {
            return unwritten;
        }
        let bytes = self
            .dir
            .as_ref()
            .and_then(|dir| files::read_input(&dir.join(FILE), files::LARGE).ok());
        // An unreadable file is treated as absent: it is rewritten, and Discord's own limits still apply.
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Changes the state under the lock of all processes. If the write fails, the change is still kept in this process.
    fn change<T>(&self, change: impl FnOnce(&mut Remembered) -> T) -> io::Result<T> {
        let Some(dir) = &self.dir else {
            return Ok(change(self.unwritten.lock().get_or_insert_default()));
        };
        let locked = lock(dir);
        let mut memory = self.read();
        let outcome = change(&mut memory);
        let written = locked.and_then(|_lock| write(dir, &memory));
        *self.unwritten.lock() = written.is_err().then_some(memory);
        written.map(|()| outcome)
    }
}

/// Replaces the file atomically, so that no reader sees a partial file.
fn write(dir: &Path, memory: &Remembered) -> io::Result<()> {
    files::write(&dir.join(FILE), FileAccess::Owner, Durability::Durable, |file| {
        Ok(serde_json::to_writer_pretty(file, memory)?)
    })
}

/// Waits for the lock that all processes acquire before they write.
fn lock(dir: &Path) -> io::Result<File> {
    make_private_dir(dir)?;
    let file = files::open_lock(&dir.join("discord.lock"))?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    fn in_dir(dir: &tempfile::TempDir) -> Memory {
        Memory::new(Some(dir.path().to_owned()))
    }

    #[test]
    fn fingerprint_distinguishes_tokens_without_revealing_them() {
        let one = fingerprint(&SecretString::from("abc.def.ghi"));
        assert_eq!(one.len(), 32);
        assert!(!one.contains("abc"));
        assert_ne!(one, fingerprint(&SecretString::from("abc.def.ghj")));
    }

    #[test]
    fn rejected_token_persists_and_is_retried_once_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(in_dir(&dir).token_status("aa", at(0)), TokenStatus::Good);
        in_dir(&dir).token_refused("aa", at(0)).unwrap();
        assert!(
            matches!(in_dir(&dir).token_status("aa", at(3_599)), TokenStatus::Rejected(rejected) if rejected.refused_at == at(0))
        );
        assert_eq!(
            in_dir(&dir).token_status("bb", at(1)),
            TokenStatus::Good,
            "another token"
        );
        assert!(matches!(
            in_dir(&dir).token_status("aa", at(3_600)),
            TokenStatus::MayTryOnce(_)
        ));
        assert!(matches!(
            in_dir(&dir).token_status("aa", at(3_601)),
            TokenStatus::Rejected(_)
        ));
        in_dir(&dir).token_accepted("aa", at(3_602)).unwrap();
        assert_eq!(in_dir(&dir).token_status("aa", at(3_602)), TokenStatus::Good);
    }

    #[test]
    fn token_that_was_accepted_once_stays_known_as_such() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!in_dir(&dir).was_accepted("aa"));
        in_dir(&dir).token_accepted("aa", at(0)).unwrap();
        in_dir(&dir).token_refused("aa", at(1)).unwrap();
        assert!(in_dir(&dir).was_accepted("aa"));
        for n in 0..50 {
            in_dir(&dir)
                .token_accepted(&format!("token-{n}"), at(10 + n))
                .unwrap();
        }
        assert!(in_dir(&dir).was_accepted("token-49") && !in_dir(&dir).was_accepted("aa"));
    }

    #[test]
    fn without_directory_rejection_is_kept_in_memory() {
        let memory = Memory::new(None);
        memory.token_refused("aa", at(0)).unwrap();
        assert!(matches!(
            memory.token_status("aa", at(1)),
            TokenStatus::Rejected(_)
        ));
    }

    #[test]
    fn unwritable_directory_keeps_rejection_and_blocks_identify() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let memory = Memory::new(Some(blocked));
        assert!(memory.token_refused("aa", at(0)).is_err());
        assert!(matches!(
            memory.token_status("aa", at(1)),
            TokenStatus::Rejected(_)
        ));
        assert!(matches!(
            memory.claim_identify("4001", 50, at(0)),
            Err(NoIdentify::Unrecorded { .. })
        ));
    }

    #[test]
    fn a_broken_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"rejectedTokens\":").unwrap();
        assert_eq!(in_dir(&dir).token_status("aa", at(0)), TokenStatus::Good);
        in_dir(&dir).token_refused("aa", at(0)).unwrap();
        assert!(matches!(
            in_dir(&dir).token_status("aa", at(1)),
            TokenStatus::Rejected(_)
        ));
    }

    #[test]
    fn identifies_are_rationed_over_all_processes_and_the_last_day() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..50 {
            in_dir(&dir).claim_identify("4001", 50, at(n)).unwrap();
        }
        let refused = in_dir(&dir).claim_identify("4001", 50, at(60)).unwrap_err();
        assert!(
            matches!(refused, NoIdentify::Spent { used: 50, until } if until == at(86_400)),
            "{refused}"
        );
        in_dir(&dir).claim_identify("4002", 50, at(60)).unwrap();
        in_dir(&dir).claim_identify("4001", 50, at(86_400)).unwrap();
        assert_eq!(in_dir(&dir).identifies("4001", at(86_400)), 50);
    }

    #[test]
    fn many_processes_never_spend_more_than_the_cap() {
        let dir = tempfile::tempdir().unwrap();
        let granted: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let memory = in_dir(&dir);
                        (0..10)
                            .filter(|_| memory.claim_identify("4001", 30, at(0)).is_ok())
                            .count()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(granted, 30);
    }
}
