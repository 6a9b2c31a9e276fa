//! The file of the invitations: which links are valid, and what became of the others.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::files::{self, Durability, FileAccess};

/// How long a link is valid.
pub const LIFETIME_SECS: i64 = 24 * 60 * 60;
/// How long links that were not used stay in the list.
const KEPT_SECS: i64 = 30 * 24 * 60 * 60;
/// How many links may wait at the same time: each of them accepts a consent.
const WAITING: usize = 100;

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    pub platform: PlatformName,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// Who is to consent; any account if it is absent.
    #[serde(default)]
    pub expected: Option<Person>,
    /// The hash of the link's `state`, until the link is used. It works once.
    #[serde(default)]
    pub state_hash: Option<String>,
    /// The proof that belongs to the link (PKCE), until it is used.
    #[serde(default)]
    pub verifier: Option<Verifier>,
    /// The redirect address of the link.
    pub redirect_uri: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// Why the last use of the link had no result. The link is still valid.
    #[serde(default)]
    pub last_failure: Option<String>,
}

/// A user of a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Absent where the platform was not asked.
    #[serde(default)]
    pub id: Option<String>,
    #[serde(default)]
    pub login: Option<String>,
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.login, &self.id) {
            (Some(login), Some(id)) => write!(f, "{login} ({id})"),
            (Some(name), None) | (None, Some(name)) => f.write_str(name),
            (None, None) => f.write_str("an unknown account"),
        }
    }
}

/// What became of a link that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Outcome {
    /// The owner of a channel has consented.
    Consented {
        at: Timestamp,
        person: Person,
        /// Whether the token is stored.
        kept: bool,
    },
    /// Nothing was stored.
    Refused { at: Timestamp, reason: String },
}

/// The secret of PKCE.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier(pub String);

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::secrets::MASK)
    }
}

impl Invite {
    /// Whether the link can still be used.
    pub fn is_waiting(&self, now: Timestamp) -> bool {
        self.state_hash.is_some() && self.expires_at > now
    }
}

/// Returns the hash under which a `state` is stored.
pub fn hash(state: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, state.as_bytes()))
}

/// The invitations of a state directory.
#[derive(Debug, Clone)]
pub struct InviteFile {
    path: PathBuf,
}

impl InviteFile {
    pub fn of(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("invites.json"),
        }
    }

    /// Returns all invitations, the oldest first.
    pub fn all(&self) -> Result<Vec<Invite>, Failure> {
        self.read().map_err(|error| self.failure("read", &error))
    }

    /// Returns the ids of those who have consented on a platform.
    pub fn consents(&self, platform: PlatformName) -> Result<BTreeSet<String>, Failure> {
        let invites = self.all()?;
        let of_platform = invites.iter().filter(|invite| invite.platform == platform);
        let consents = of_platform.filter_map(|invite| match &invite.outcome {
            Some(Outcome::Consented { person, .. }) => person.id.clone(),
            _ => None,
        });
        Ok(consents.collect())
    }

    /// Adds an invitation, and removes those whose links expired long ago.
    pub fn add(&self, invite: Invite, now: Timestamp) -> Result<(), Failure> {
        let added = self.change(|invites| {
            invites.retain(|old| old.outcome.is_some() || old.expires_at.plus_secs(KEPT_SECS) > now);
            let waiting = invites.iter().filter(|old| old.is_waiting(now)).count();
            if waiting >= WAITING && invite.is_waiting(now) {
                return false;
            }
            invites.push(invite);
            true
        });
        match added.map_err(|error| self.failure("write", &error))? {
            true => Ok(()),
            false => {
                let what = format!("{WAITING} invitations wait already; they expire after 24 hours");
                Err(Failure::new(ExitCode::Failed, what).hint("run `bitbrat auth invite --list` to see them"))
            }
        }
    }

    /// Returns the invitation that a `state` belongs to, if its link is valid; it stays valid.
    pub fn find(&self, state: &str, now: Timestamp) -> Result<Option<Invite>, Failure> {
        let invites = self.all()?;
        Ok(invites.into_iter().find(|invite| is_of(invite, state, now)))
    }

    /// As [`InviteFile::find`]; the link is used from then on.
    pub fn take(&self, state: &str, now: Timestamp) -> Result<Option<Invite>, Failure> {
        let taken = self.change(|invites| {
            let invite = invites.iter_mut().find(|invite| is_of(invite, state, now))?;
            let taken = invite.clone();
            (invite.state_hash, invite.verifier) = (None, None);
            Some(taken)
        });
        taken.map_err(|error| self.failure("write", &error))
    }

    /// Records what became of an invitation.
    pub fn finish(&self, taken: &Invite, outcome: Outcome) -> Result<(), Failure> {
        self.change_taken(taken, |invite| invite.outcome = Some(outcome))
    }

    /// Makes the link of an invitation valid again until it expires, because its use had no result.
    pub fn give_back(&self, taken: &Invite, reason: String) -> Result<(), Failure> {
        self.change_taken(taken, |invite| {
            invite.state_hash.clone_from(&taken.state_hash);
            invite.verifier.clone_from(&taken.verifier);
            invite.last_failure = Some(reason);
        })
    }

    fn change_taken(&self, taken: &Invite, change: impl FnOnce(&mut Invite)) -> Result<(), Failure> {
        let changed = self.change(|invites| {
            let is_it = |invite: &&mut Invite| {
                invite.created_at == taken.created_at
                    && invite.platform == taken.platform
                    && invite.state_hash.is_none()
                    && invite.outcome.is_none()
            };
            if let Some(invite) = invites.iter_mut().find(is_it) {
                change(invite);
            }
        });
        changed.map_err(|error| self.failure("write", &error))
    }

    fn read(&self) -> io::Result<Vec<Invite>> {
        match files::read_input(&self.path, files::SMALL) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Changes the list under a lock, which commands and a daemon share.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Invite>) -> T) -> io::Result<T> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        files::make_private_dir(directory)?;
        let lock = files::open_lock(&self.path.with_extension("lock"))?;
        lock.lock()?;
        let mut invites = self.read()?;
        let before = invites.clone();
        let result = change(&mut invites);
        if invites != before {
            files::write(&self.path, FileAccess::Owner, Durability::Durable, |file| {
                Ok(serde_json::to_writer_pretty(file, &invites)?)
            })?;
        }
        Ok(result)
    }

    fn failure(&self, doing: &str, error: &io::Error) -> Failure {
        Failure::new(
            ExitCode::Failed,
            format!("cannot {doing} the invitations in {}", self.path.display()),
        )
        .because(error)
        .hint("move the file away if it is damaged; links that were sent are invalid then")
    }
}

fn is_of(invite: &Invite, state: &str, now: Timestamp) -> bool {
    let hash = hash(state);
    let is_same = |stored: &String| verify_slices_are_equal(stored.as_bytes(), hash.as_bytes()).is_ok();
    invite.is_waiting(now) && invite.state_hash.as_ref().is_some_and(is_same)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn invite(state: &str) -> Invite {
        Invite {
            platform: PlatformName::Kick,
            scopes: vec!["user:read".to_owned()],
            expected: None,
            state_hash: Some(hash(state)),
            verifier: Some(Verifier("the-verifier".to_owned())),
            redirect_uri: "https://bot.example/auth/callback".to_owned(),
            created_at: Timestamp::EPOCH,
            expires_at: Timestamp::EPOCH.plus_secs(LIFETIME_SECS),
            outcome: None,
            last_failure: None,
        }
    }

    #[test]
    fn link_that_is_given_back_is_valid_until_it_expires() {
        let home = tempfile::tempdir().unwrap();
        let file = InviteFile::of(home.path());
        let now = Timestamp::EPOCH.plus_secs(60);
        file.add(invite("right"), now).unwrap();
        let taken = file.take("right", now).unwrap().unwrap();
        file.give_back(&taken, "status 500".to_owned()).unwrap();
        let again = file.take("right", now).unwrap().unwrap();
        assert_eq!(again.verifier, taken.verifier);
        assert_eq!(again.last_failure.as_deref(), Some("status 500"));
        file.give_back(&again, "status 500".to_owned()).unwrap();
        let expired = now.plus_secs(LIFETIME_SECS);
        assert!(file.take("right", expired).unwrap().is_none());
    }

    #[test]
    fn link_works_once_and_only_before_it_expires() {
        let home = tempfile::tempdir().unwrap();
        let file = InviteFile::of(&home.path().join("state"));
        let now = Timestamp::EPOCH.plus_secs(60);
        file.add(invite("right"), now).unwrap();
        assert!(file.take("wrong", now).unwrap().is_none());
        assert!(
            file.take("right", now.plus_secs(LIFETIME_SECS))
                .unwrap()
                .is_none(),
            "expired"
        );
        assert!(file.find("right", now).unwrap().is_some());
        let taken = file.take("right", now).unwrap().unwrap();
        assert_eq!(taken.verifier.as_ref().unwrap().0, "the-verifier");
        assert!(file.take("right", now).unwrap().is_none(), "used");
        let outcome = Outcome::Refused {
            at: now,
            reason: "another account".to_owned(),
        };
        file.finish(&taken, outcome.clone()).unwrap();
        assert_eq!(file.all().unwrap()[0].outcome, Some(outcome));
    }

    #[test]
    fn file_is_private_and_holds_no_state() {
        let home = tempfile::tempdir().unwrap();
        let file = InviteFile::of(home.path());
        file.add(invite("right-state"), Timestamp::EPOCH).unwrap();
        let path = home.path().join("invites.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("right-state"), "{text}");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!format!("{:?}", file.all().unwrap()).contains("the-verifier"));
    }

    #[test]
    fn number_of_open_links_is_limited() {
        let home = tempfile::tempdir().unwrap();
        let file = InviteFile::of(home.path());
        for number in 0..WAITING {
            file.add(invite(&number.to_string()), Timestamp::EPOCH).unwrap();
        }
        assert!(file.add(invite("more"), Timestamp::EPOCH).is_err());
        let later = Timestamp::EPOCH.plus_secs(LIFETIME_SECS + KEPT_SECS + 1);
        file.add(invite("later"), later).unwrap();
        assert_eq!(file.all().unwrap().len(), 1, "old ones are gone");
    }
}
