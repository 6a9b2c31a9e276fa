//! The messages of a conduit's socket.

use tracing::debug;

use super::super::connection::reports::{Revocation, source_of};
use super::super::hub::Notification;
use super::super::kinds::{Kind, Subscription};
use super::super::machine::{Input, SocketId};
use super::super::messages::{self, Body, SubscriptionInfo};
use super::super::socket::{End, Frame};
use super::Conduit;

impl Conduit {
    pub(super) fn frame(&mut self, socket: SocketId, frame: Frame) {
        let text = match frame {
            Frame::Text(text) => text,
            Frame::Binary(length) => {
                self.cx.hub.binary(length, self.twitch_now());
                return self.step(Input::Received(socket));
            }
            Frame::Ended(end) => {
                self.closers.remove(&socket);
                return self.step(match end {
                    End::Closed(code) => Input::Closed { socket, code },
                    End::Refused(failure) => Input::Broken { socket, failure },
                });
            }
        };
        let Some(message) = messages::read(&text) else {
            self.cx.hub.unreadable_frame(&self.name, &text, self.twitch_now());
            return self.step(Input::Received(socket));
        };
        match message.body {
            Body::Welcome {
                session,
                keepalive_secs,
            } => {
                if let Some(theirs) = message.at {
                    self.clocks.welcomed(theirs, self.cx.twitch.clock.now());
                }
                return self.step(Input::Welcome {
                    socket,
                    session,
                    keepalive_secs,
                });
            }
            Body::Reconnect { url } => return self.step(Input::Reconnect { socket, url }),
            Body::Notification { kind, channel, event } => {
                if kind == Kind::ShardDisabled.name() {
                    self.due.shards = Some(self.now());
                }
                self.cx.hub.notified(&Notification {
                    id: &message.id,
                    kind: &kind,
                    event: event.get(),
                    channel: channel.as_deref(),
                    at: message.at,
                    present: self.present(),
                });
            }
            Body::Revocation(info) => self.revoked(&info),
            Body::Keepalive => {}
            Body::Unreadable { kind } => self.cx.hub.unreadable(&kind, self.twitch_now()),
            Body::Unknown(kind) => {
                debug!(connection = self.name, kind, "A message of an unknown type");
                self.cx.hub.unknown();
            }
        }
        self.step(Input::Received(socket));
    }

    fn revoked(&mut self, info: &SubscriptionInfo) {
        if info.status == "conduit_deleted" {
            return self.lost_conduit();
        }
        let Some(subscription) = Subscription::from_info(info) else {
            return self.cx.hub.unknown();
        };
        let (now, at) = (self.now(), self.twitch_now());
        let revocation = Revocation::of(&info.status);
        let (code, reason, again) = (revocation.code, revocation.reason, revocation.again_after());
        let is_current = self
            .subscriptions
            .revoked(&subscription, &info.id, code, reason, again, now);
        if let Some(source) = source_of(&subscription).filter(|_| is_current) {
            self.reports.revoked(source, &subscription, &revocation, at);
        }
        self.dirty = true;
    }

    /// Reconnects when polls observe changes of several channels that were not pushed. With shards in other processes that proves
    /// nothing: their messages arrive there.
    pub(super) fn detect_missed_events(&mut self) {
        const MISSING_TO_RECONNECT: usize = 3;
        if !self.options.has_all_shards() {
            return;
        }
        let at = self.twitch_now();
        let polled = self.cx.twitch.skew.correct(self.cx.twitch.clock.now());
        let suspects = self.reports.report_missed_events(polled, at);
        if suspects.len() >= MISSING_TO_RECONNECT {
            self.step(Input::Refresh);
        } else if !suspects.is_empty() {
            let now = self.now();
            (self.due.shards, self.due.list) = (Some(now), self.due.list.map(|at| at.min(now)));
        }
    }
}
