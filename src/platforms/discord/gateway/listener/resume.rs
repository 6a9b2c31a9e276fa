//! The session that outlives the process: resumed from an earlier one, stored for the next.

use tracing::debug;

use super::super::super::connection::Connection;
use super::super::GatewayOptions;
use super::super::counts::Counts;
use super::super::machine::Machine;
use super::super::resume::Claim;
use super::GatewayListener;

impl GatewayListener {
    /// Loads the session of an earlier process that was not ended.
    pub(super) fn recall(&mut self) {
        let claim = claim(&self.connection, &self.machine, &self.options);
        let resume_state = self.keeper.recall(&claim, self.now());
        let Some(resume_state) = resume_state.filter(|_| !self.connection.rest.is_dead()) else {
            return;
        };
        if self.guilds.recall(resume_state.guilds) {
            self.replay.begin(resume_state.at);
            self.machine.restore_session(resume_state.session);
            let counted = Counts::new(resume_state.totals, self.options.count_bots);
            self.stored = Some(std::mem::replace(&mut self.counts, counted).totals().clone());
        }
    }

    /// Continues counting from the higher totals: the stored ones, or those of the resumed session.
    pub(super) fn caught_up(&mut self) {
        self.replay.end();
        self.replay_ends_at = None;
        if let Some(stored) = self.stored.take() {
            self.counts.raise(&stored);
        }
    }

    /// Stores the session for the next process, or deletes it when it has ended.
    pub(super) fn keep(&mut self) {
        if self.keeper.is_rested(self.elapsed()) {
            self.keep_now();
        }
    }

    /// Like [`GatewayListener::keep`], but regardless of when it was last stored.
    pub(super) fn keep_now(&mut self) {
        let elapsed = self.elapsed();
        let Some(session) = self.machine.session() else {
            return self.keeper.forget();
        };
        let claim = claim(&self.connection, &self.machine, &self.options);
        let when = (self.connection.rest.clock().now(), elapsed);
        let resume_state = self
            .keeper
            .keep(&claim, session, self.counts.totals(), self.guilds.image(), when);
        if let Err(error) = resume_state {
            debug!(
                error = &error as &dyn std::error::Error,
                "The session with Discord's gateway cannot be kept"
            );
        }
    }
}

/// Returns the claim that identifies us to the session store.
fn claim<'a>(connection: &'a Connection, machine: &Machine, options: &'a GatewayOptions) -> Claim<'a> {
    Claim {
        token: connection.rest.fingerprint(),
        intents: machine.intents(),
        writer: &options.writer,
    }
}
