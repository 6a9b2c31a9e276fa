//! The part of a look that is about authorisations, and what they and badges allow.

use super::super::auth::Checked;
use super::super::facts::{self, BADGES_METHOD, OWNER_METHOD, SCOPES_METHOD};
use super::super::options::{BOT, broadcaster_of};
use super::super::standing::Standing;
use super::Look;
use crate::core::observation::{Fact, Grants, Identity};
use crate::platforms::{PlatformError, Probe};

/// An introspection this old (ms) still tells permissions.
const SCOPES_KNOWN_FOR: i64 = 300_000;

impl Look<'_> {
    pub(super) async fn look_at_identities(&mut self) {
        let identities = match self.platform.api.auth.identities().await {
            Ok(identities) if identities.is_empty() => return self.fail_everything_without_identity(),
            Ok(identities) => identities,
            Err(error) => return self.fail(&self.all(), &error),
        };
        let wanted: Vec<_> = identities
            .into_iter()
            .filter(|identity| broadcaster_of(identity).is_none_or(|id| self.targets.contains_key(&id)))
            .collect();
        self.meter.calls.expect(wanted.len());
        for identity in &wanted {
            let max_age = if self.probes.contains(&Probe::Auth) {
                -1
            } else {
                SCOPES_KNOWN_FOR
            };
            let checked = self
                .platform
                .api
                .auth
                .checked_within(max_age, identity, &self.meter)
                .await;
            match checked {
                Ok(checked) => {
                    if self.probes.contains(&Probe::Permissions) && identity.as_str() == BOT {
                        self.tell_scopes(&checked);
                    }
                }
                Err(error) => {
                    let fact = facts::of_failed_look(&error);
                    let concerned = self.concerned(identity);
                    // A host that cannot be reached for a token, or has a limit of its own, is no news of the API, which the
                    // list will bring.
                    if matches!(
                        error,
                        PlatformError::Unavailable { .. }
                            | PlatformError::Unreadable { .. }
                            | PlatformError::RateLimited { .. }
                    ) {
                        let words = format!("{identity}: {error}");
                        self.tell_all(&concerned, &facts::problem(facts::code(&error), &words));
                    } else {
                        self.tell_all(&concerned, &fact);
                    }
                    self.meter.complain(format!("{identity}: {error}"));
                }
            }
            self.meter.calls.done();
        }
        if self.probes.contains(&Probe::Permissions) {
            self.tell_badges();
        }
    }

    fn fail_everything_without_identity(&self) {
        let needs = "Kick needs a client id and secret (`kick.client_id`, `kick.client_secret`), or a token of the bot";
        self.tell_all(&self.all(), &facts::refused("config.token", needs));
        self.meter.complain(needs.to_owned());
    }

    fn tell_scopes(&self, checked: &Checked) {
        if checked.standing != Standing::Valid {
            return;
        }
        for (id, key) in &self.targets {
            self.tell(
                key,
                checked.at,
                permissions(SCOPES_METHOD, facts::scopes(&checked.scopes)),
            );
            if checked.user_id == Some(*id) {
                let granted = Grants {
                    granted: ["badge:broadcaster".to_owned()].into(),
                    ..Grants::default()
                };
                self.tell(key, checked.at, permissions(OWNER_METHOD, granted));
            }
        }
    }

    fn tell_badges(&self) {
        let now = self.now();
        for (id, key) in &self.targets {
            let grants = self
                .platform
                .badges
                .grants(*id, now, self.platform.options.badges_for);
            if let Some((at, grants)) = grants {
                self.tell(key, at, permissions(BADGES_METHOD, grants));
            }
        }
    }

    /// The sources that need an identity.
    fn concerned(&self, identity: &Identity) -> Vec<u64> {
        match broadcaster_of(identity) {
            Some(id) => vec![id],
            None => self.all(),
        }
    }

    /// Tells what was found of authorisations on the way, also where a refused token was the reason to look.
    pub(super) fn tell_checks(&self) {
        for (identity, checked) in self.meter.take_checked() {
            if let Some(id) = checked.user_id.filter(|_| identity.as_str() == BOT) {
                self.platform.bot.learn(id);
            }
            let facts = facts::of_check(&identity, &checked);
            for id in self.concerned(&identity) {
                for fact in &facts {
                    if let Some(key) = self.targets.get(&id) {
                        self.tell(key, checked.at, fact.clone());
                    }
                }
            }
            for (_, worry) in facts::worries(&identity, &checked) {
                self.meter.complain(worry);
            }
            if let Standing::Expired(reason) | Standing::Revoked(reason) | Standing::Unknown(reason) =
                &checked.standing
            {
                self.meter.complain(format!("{identity}: {reason}"));
            }
        }
    }
}

fn permissions(method: &str, grants: Grants) -> Fact {
    Fact::Permissions {
        method: method.to_owned(),
        grants,
    }
}
