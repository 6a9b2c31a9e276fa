//! The session that outlives the process: taken up from an earlier one, kept for the next.

use tracing::debug;

use super::super::super::connection::Connection;
use super::super::GatewayOptions;
use super::super::counts::Counts;
use super::super::kept::Claim;
use super::super::machine::Machine;
use super::GatewayListener;

impl GatewayListener {
    /// Looks for the session of an earlier process that was not ended.
    pub(super) fn recall(&mut self) {
        let claim = claim(&self.connection, &self.machine, &self.options);
        let kept = self.keeper.recall(&claim, self.now());
        let Some(kept) = kept.filter(|_| !self.connection.rest.is_dead()) else {
            return;
        };
        if self.guilds.recall(kept.guilds) {
            self.machine.take_up(kept.session);
            let counted = Counts::new(kept.totals, self.options.count_bots);
            self.stored = Some(std::mem::replace(&mut self.counts, counted).totals().clone());
        }
    }

    /// Goes on counting from whatever is ahead: what was stored, or what the taken up session has told.
    pub(super) fn caught_up(&mut self) -> bool {
        let stored = self.stored.take();
        if let Some(stored) = &stored {
            self.counts.raise(stored);
        }
        stored.is_some()
    }

    /// Keeps the session for the next process, or forgets it when it is over.
    pub(super) fn keep(&mut self) {
        let elapsed = self.elapsed();
        if !self.keeper.is_rested(elapsed) {
            return;
        }
        let Some(session) = self.machine.session() else {
            return self.keeper.forget();
        };
        let claim = claim(&self.connection, &self.machine, &self.options);
        let when = (self.connection.rest.clock().now(), elapsed);
        let kept = self
            .keeper
            .keep(&claim, session, self.counts.totals(), self.guilds.image(), when);
        if let Err(error) = kept {
            debug!(
                error = &error as &dyn std::error::Error,
                "The session with Discord's gateway cannot be kept"
            );
        }
    }
}

/// Returns who we are to whoever keeps sessions.
fn claim<'a>(connection: &'a Connection, machine: &Machine, options: &'a GatewayOptions) -> Claim<'a> {
    Claim {
        token: connection.rest.fingerprint(),
        intents: machine.intents(),
        writer: &options.writer,
    }
}
