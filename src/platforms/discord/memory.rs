//! What must outlive a process to keep Discord from punishing the bot: dead tokens, bans, and spent Identifies.
//!
//! One small JSON file in the state directory, written by several processes under a lock. It holds fingerprints, never
//! tokens. Without a directory everything is remembered in the process only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::limits::Breaker;
use crate::core::time::Timestamp;
use crate::files::make_private_dir;

/// The file in the state directory.
const FILE: &str = "discord.json";
/// Dead tokens remembered; the longest silent ones are forgotten first.
const DEAD_TOKENS: usize = 32;
/// How long after the last refusal one more try is allowed (ms). Discord names no number; ours costs at most 24 requests a
/// day.
const RETRY_DEAD: i64 = 3_600_000;
/// The window of Discord's limit of Identifies (ms).
const DAY: i64 = 86_400_000;

/// The memory of all bitbrat processes that share a state directory.
#[derive(Debug)]
pub struct Memory {
    dir: Option<PathBuf>,
    /// What could not be written, if anything; it then counts instead of the file.
    unwritten: Mutex<Option<Remembered>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Remembered {
    /// By fingerprint of the token.
    dead_tokens: BTreeMap<String, DeadToken>,
    /// By host.
    blocked: BTreeMap<String, Blocked>,
    /// Times of Identifies by bot.
    identifies: BTreeMap<String, Vec<Timestamp>>,
}

/// A token that Discord refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadToken {
    /// When it was last refused.
    pub refused_at: Timestamp,
    /// When it was last tried, or allowed to be.
    tried_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Blocked {
    until: Timestamp,
    strikes: u32,
}

/// How a token stands before anything is sent with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing speaks against it.
    Good,
    /// It was refused; nothing may be sent.
    Dead(DeadToken),
    /// It was refused long ago; the caller may try it with one request.
    MayTryOnce(DeadToken),
}

/// Why no Identify may be sent.
#[derive(Debug, thiserror::Error)]
pub enum NoIdentify {
    /// Our own daily share is spent.
    #[error(
        "{used} Identifies were sent within a day, as many as we allow ourselves; the next is free at {until}"
    )]
    Spent {
        /// How many.
        used: usize,
        /// When the oldest leaves the window.
        until: Timestamp,
    },
    /// It could not be put on record, so it must not happen.
    #[error("the Identify cannot be put on record")]
    Unrecorded {
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Returns what identifies a token without telling it.
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
    /// Remembers in `dir`, or in this process only.
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

    /// Says whether the token with `fingerprint` may be used, claiming the one try when there is one.
    pub fn standing(&self, fingerprint: &str, now: Timestamp) -> Standing {
        let Some(dead) = self.dead(fingerprint) else {
            return Standing::Good;
        };
        if now.millis_since(dead.tried_at) < RETRY_DEAD {
            return Standing::Dead(dead);
        }
        let claimed = self.change(|memory| {
            let dead = memory.dead_tokens.get_mut(fingerprint)?;
            (now.millis_since(dead.tried_at) >= RETRY_DEAD).then(|| dead.tried_at = now)
        });
        match claimed {
            Ok(Some(())) => Standing::MayTryOnce(dead),
            // Another process was faster, or the claim cannot be kept.
            Ok(None) | Err(_) => Standing::Dead(dead),
        }
    }

    /// Returns when the token with `fingerprint` was refused, if it was.
    pub fn dead(&self, fingerprint: &str) -> Option<DeadToken> {
        self.read().dead_tokens.get(fingerprint).copied()
    }

    /// Remembers that the token was refused at `at`.
    pub fn token_refused(&self, fingerprint: &str, at: Timestamp) -> io::Result<()> {
        self.change(|memory| {
            let dead = DeadToken {
                refused_at: at,
                tried_at: at,
            };
            memory.dead_tokens.insert(fingerprint.to_owned(), dead);
            while memory.dead_tokens.len() > DEAD_TOKENS {
                let oldest = memory.dead_tokens.iter().min_by_key(|(_, dead)| dead.tried_at);
                let Some(oldest) = oldest.map(|(fingerprint, _)| fingerprint.clone()) else {
                    break;
                };
                memory.dead_tokens.remove(&oldest);
            }
        })
    }

    /// Forgets that the token was ever refused.
    pub fn token_accepted(&self, fingerprint: &str) -> io::Result<()> {
        if !self.read().dead_tokens.contains_key(fingerprint) {
            return Ok(());
        }
        self.change(|memory| {
            memory.dead_tokens.remove(fingerprint);
        })
    }

    /// Returns how Cloudflare last treated us at `host`.
    pub fn breaker(&self, host: &str) -> Breaker {
        self.read()
            .blocked
            .get(host)
            .map_or_else(Breaker::default, |blocked| Breaker {
                until: blocked.until,
                strikes: blocked.strikes,
            })
    }

    /// Remembers how Cloudflare treats us at `host`.
    pub fn set_breaker(&self, host: &str, breaker: Breaker) -> io::Result<()> {
        self.change(|memory| {
            if breaker.strikes == 0 {
                memory.blocked.remove(host);
            } else {
                let blocked = Blocked {
                    until: breaker.until,
                    strikes: breaker.strikes,
                };
                memory.blocked.insert(host.to_owned(), blocked);
            }
        })
    }

    /// Puts one more Identify of `bot` on record, unless `cap` of them were sent within the last 24 hours.
    ///
    /// The record comes first: an Identify that is not on record is never sent, one that is may never be.
    pub fn claim_identify(&self, bot: &str, cap: usize, now: Timestamp) -> Result<(), NoIdentify> {
        let claimed = self.change(|memory| {
            let sent = memory.identifies.entry(bot.to_owned()).or_default();
            // What lies in the future was written before the clock was set back and counts until it has passed.
            sent.retain(|at| now.millis_since(*at) < DAY);
            if sent.len() >= cap {
                let oldest = sent.iter().min().copied().unwrap_or(now);
                return Err((sent.len(), oldest.plus_millis(DAY)));
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

    /// Returns how many Identifies of `bot` are on record for the last 24 hours.
    pub fn identifies(&self, bot: &str, now: Timestamp) -> usize {
        self.read().identifies.get(bot).map_or(0, |sent| {
            sent.iter().filter(|at| now.millis_since(**at) < DAY).count()
        })
    }

    /// Returns when the newest Identify of `bot` was put on record.
    pub fn last_identify(&self, bot: &str) -> Option<Timestamp> {
        self.read().identifies.get(bot)?.iter().max().copied()
    }

    fn read(&self) -> Remembered {
        if let Some(unwritten) = self.unwritten().clone() {
            return unwritten;
        }
        let bytes = self.dir.as_ref().and_then(|dir| fs::read(dir.join(FILE)).ok());
        // A file that cannot be read is as good as none: it is written anew, and Discord's own limits still hold.
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Changes the memory under the lock of all processes. What cannot be written is still remembered in this process.
    fn change<T>(&self, change: impl FnOnce(&mut Remembered) -> T) -> io::Result<T> {
        let Some(dir) = &self.dir else {
            return Ok(change(self.unwritten().get_or_insert_default()));
        };
        let locked = lock(dir);
        let mut memory = self.read();
        let outcome = change(&mut memory);
        let written = locked.and_then(|_lock| write(dir, &memory));
        *self.unwritten() = written.is_err().then_some(memory);
        written.map(|()| outcome)
    }

    fn unwritten(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces the file as a whole, so that a reader never sees half of it.
fn write(dir: &Path, memory: &Remembered) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer_pretty(&mut file, memory)?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist(dir.join(FILE))?;
    Ok(())
}

/// Waits for the lock that all processes take before they write.
fn lock(dir: &Path) -> io::Result<File> {
    make_private_dir(dir)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("discord.lock"))?;
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
    fn a_fingerprint_tells_tokens_apart_and_nothing_else() {
        let one = fingerprint(&SecretString::from("abc.def.ghi"));
        assert_eq!(one.len(), 32);
        assert!(!one.contains("abc"));
        assert_ne!(one, fingerprint(&SecretString::from("abc.def.ghj")));
    }

    #[test]
    fn a_dead_token_stays_dead_in_the_next_process_and_may_be_tried_once_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(in_dir(&dir).standing("aa", at(0)), Standing::Good);
        in_dir(&dir).token_refused("aa", at(0)).unwrap();
        assert!(
            matches!(in_dir(&dir).standing("aa", at(3_599)), Standing::Dead(dead) if dead.refused_at == at(0))
        );
        assert_eq!(
            in_dir(&dir).standing("bb", at(1)),
            Standing::Good,
            "another token"
        );
        assert!(matches!(
            in_dir(&dir).standing("aa", at(3_600)),
            Standing::MayTryOnce(_)
        ));
        assert!(matches!(
            in_dir(&dir).standing("aa", at(3_601)),
            Standing::Dead(_)
        ));
        in_dir(&dir).token_accepted("aa").unwrap();
        assert_eq!(in_dir(&dir).standing("aa", at(3_602)), Standing::Good);
    }

    #[test]
    fn without_a_directory_the_process_itself_remembers() {
        let memory = Memory::new(None);
        memory.token_refused("aa", at(0)).unwrap();
        assert!(matches!(memory.standing("aa", at(1)), Standing::Dead(_)));
    }

    #[test]
    fn a_directory_that_cannot_be_written_silences_this_process_and_forbids_identifies() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        let memory = Memory::new(Some(blocked));
        assert!(memory.token_refused("aa", at(0)).is_err());
        assert!(matches!(memory.standing("aa", at(1)), Standing::Dead(_)));
        assert!(matches!(
            memory.claim_identify("4001", 50, at(0)),
            Err(NoIdentify::Unrecorded { .. })
        ));
    }

    #[test]
    fn a_broken_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"deadTokens\":").unwrap();
        assert_eq!(in_dir(&dir).standing("aa", at(0)), Standing::Good);
        in_dir(&dir).token_refused("aa", at(0)).unwrap();
        assert!(matches!(in_dir(&dir).standing("aa", at(1)), Standing::Dead(_)));
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
