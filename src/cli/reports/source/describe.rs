//! The page of `sources describe` for people.

use crate::cli::output::humane;
use crate::cli::output::view::{Block, Cell, Column, Glyph, Grid, Tone, View};
use crate::core::freshness::{Field, age_ms};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::explain;
use crate::view::cells;
use crate::view::detail::{Held, HoldingItem, SourceInFull, TransportState};

impl SourceInFull {
    pub(super) fn describe(&self) -> View {
        let document = &self.document;
        let key = document.key.to_string();
        let mut blocks = vec![Block::Line(match document.display_name() {
            Some(name) => vec![Cell::new(name).tone(Tone::Strong), Cell::new(key)],
            None => vec![Cell::new(key).tone(Tone::Strong)],
        })];
        for part in [
            self.status(),
            self.authorization(),
            self.stream(),
            self.permissions(),
            self.profile(),
            self.counted(),
            self.past(),
        ] {
            if !part.is_empty() {
                blocks.push(Block::Gap);
                blocks.extend(part);
            }
        }
        View { blocks }
    }

    fn status(&self) -> Vec<Block> {
        let row = &self.row;
        let verdict = &self.document.verdict.status;
        let mut blocks = vec![
            Block::Section(
                "STATUS",
                self.aged(
                    cells::status(&row.summary, &row.freshness),
                    Field::Status,
                    verdict.at,
                ),
            ),
            rule(verdict.rule),
        ];
        let lines = self.transports().into_iter().map(|transport| {
            let (label, glyph, tone, at) = match transport.state {
                TransportState::Up => ("up", Glyph::Up, Tone::Good, transport.last_up),
                TransportState::Closed => ("closed by us", Glyph::Down, Tone::Dim, transport.last_closed),
                TransportState::Down => ("down", Glyph::Down, Tone::Warn, transport.last_failure),
                TransportState::Refused => ("refused", Glyph::Bad, Tone::Bad, transport.last_failure),
            };
            let troubled = matches!(transport.state, TransportState::Down | TransportState::Refused);
            vec![
                Cell::new(transport.name),
                Cell::new(label).glyph(glyph).tone(tone),
                self.seen(at),
                Cell::new(if troubled {
                    transport.failure.unwrap_or_default()
                } else {
                    String::new()
                }),
            ]
        });
        blocks.extend(nested(lines.collect()));
        if let Some(listening) = &self.listening {
            blocks.push(Block::Remark(listening.sentence()));
        }
        if let Some(millis) = row.summary.latency_ms {
            blocks.push(Block::Remark(format!("a round trip takes about {millis} ms")));
        }
        if let Some(error) = self.document.record().last_error {
            let age = cells::ago(age_ms(error.at, self.as_of));
            blocks.push(Block::Remark(format!(
                "last error {age}: {}: {}",
                error.code, error.message
            )));
        }
        blocks
    }

    fn authorization(&self) -> Vec<Block> {
        let row = &self.row;
        let verdict = self.document.verdict.auth.as_ref();
        let mut blocks = vec![
            Block::Section(
                "AUTH",
                self.aged(
                    cells::auth(&row.summary, &row.freshness),
                    Field::AuthStatus,
                    verdict.and_then(|auth| auth.at),
                ),
            ),
            verdict.map_or_else(
                || Block::Remark("no identity was ever checked".into()),
                |auth| rule(auth.rule),
            ),
        ];
        let lines = self.identities().into_iter().map(|identity| {
            let until = identity.expires_at.map(|end| {
                if end > self.as_of {
                    format!("expires in {}", humane::span(age_ms(self.as_of, end)))
                } else {
                    format!("expired {}", cells::ago(age_ms(end, self.as_of)))
                }
            });
            vec![
                Cell::new(identity.identity),
                cells::auth_status(Some(identity.status)),
                self.seen(Some(identity.checked_at)),
                Cell::new(until.unwrap_or_else(|| "does not expire".into())),
                Cell::new(identity.reason.unwrap_or_else(|| identity.scopes.join(" "))).tone(Tone::Dim),
            ]
        });
        blocks.extend(nested(lines.collect()));
        blocks
    }

    fn stream(&self) -> Vec<Block> {
        let row = &self.row;
        let verdict = &self.document.verdict;
        let mut blocks = vec![
            Block::Section(
                "STREAM",
                self.aged(
                    cells::stream(&row.summary, &row.freshness, self.as_of),
                    Field::StreamStatus,
                    verdict.stream.at,
                ),
            ),
            rule(verdict.stream.rule),
        ];
        if verdict.stream.value == StreamStatus::Online {
            let viewers = match verdict.viewer_count {
                Some(count) => format!("{} watch", humane::thousands(count)),
                None => "how many watch is not known".into(),
            };
            let counted = self.document.knowledge.evidence.viewers.as_ref();
            let counted = counted.filter(|_| verdict.viewer_count.is_some());
            let age = counted.map_or_else(String::new, |count| {
                format!(", counted {}", cells::ago(age_ms(count.at, self.as_of)))
            });
            blocks.push(Block::Remark(viewers + &age));
        }
        if let Some(broadcast) = &verdict.broadcast {
            let mut text = format!("session {}", broadcast.stream_id);
            for (label, at) in [("began", broadcast.started_at), ("ended", broadcast.ended_at)] {
                if let Some(at) = at {
                    text += &format!(", {label} {}", cells::moment(at));
                }
            }
            if let Some(times @ 1..) = broadcast.interruptions {
                text += &format!(", {}", humane::count(times as u64, "interruption"));
            }
            blocks.push(Block::Remark(text));
        }
        let evidence = &self.document.knowledge.evidence.stream;
        let streams = evidence.streams.iter().rev().map(|(id, stream)| {
            let reported = |label: &str, at: Option<Timestamp>| match at {
                Some(at) => Cell::new(format!("{label} {}", cells::ago(age_ms(at, self.as_of)))),
                None => Cell::new(""),
            };
            vec![
                Cell::new(id),
                reported("start pushed", stream.pushed.map(|live| live.at)),
                reported("last polled", stream.seen.map(|live| live.at)),
                reported("end pushed", stream.ends.iter().next_back().copied()),
            ]
        });
        blocks.extend(nested(streams.collect()));
        if let Some(missed) = evidence.missed.values().next_back() {
            let age = cells::ago(age_ms(missed.last, self.as_of));
            blocks.push(Block::Remark(format!(
                "a complete poll did not list a stream {age}"
            )));
        }
        blocks
    }

    fn permissions(&self) -> Vec<Block> {
        let holdings = self.holdings();
        let mut blocks = vec![Block::Section(
            "PERMISSIONS",
            vec![
                self.permissions_in_short(&holdings),
                self.seen(self.document.verdict.permissions_at),
            ],
        )];
        let (denied, reported): (Vec<_>, Vec<_>) =
            holdings.into_iter().partition(|holding| holding.held == Held::No);
        let lines = reported.into_iter().map(|holding| {
            let cell = match holding.held {
                Held::Yes => Cell::new("yes").glyph(Glyph::Good).tone(Tone::Good),
                Held::No => Cell::new("no").glyph(Glyph::Off),
                Held::Unknown => Cell::new("unknown").glyph(Glyph::Unknown).tone(Tone::Warn),
            };
            vec![
                Cell::new(holding.permission),
                cell,
                self.seen(holding.at),
                Cell::new(holding.reason.unwrap_or_else(|| holding.methods.join(", "))).tone(Tone::Dim),
            ]
        });
        blocks.extend(nested(lines.collect()));
        // A guild denies about fifty permissions; their names are enough.
        if !denied.is_empty() {
            let names: Vec<_> = denied.into_iter().map(|holding| holding.permission).collect();
            blocks.push(Block::Remark(format!("not {}", names.join(", "))));
        }
        blocks
    }

    /// Shows the roles. Where there is none, other permissions may be held, and roles may be unknown.
    fn permissions_in_short(&self, holdings: &[HoldingItem]) -> Cell {
        let row = &self.row;
        let cell = cells::roles(&row.summary, &row.freshness);
        if !row.summary.roles.named.is_empty() || row.summary.permissions_at.is_none() {
            return cell;
        }
        let held = |what: Held| holdings.iter().filter(move |holding| holding.held == what);
        let names: Vec<&str> = held(Held::Yes).map(|holding| &*holding.permission).collect();
        if names.iter().any(|name| name.starts_with("scope:")) {
            let text = humane::count(names.len() as u64, "scope").into();
            return Cell { text, ..cell };
        }
        if held(Held::Unknown).next().is_some() {
            return Cell::label("unknown").glyph(Glyph::Unknown).tone(Tone::Dim);
        }
        cell
    }

    fn profile(&self) -> Vec<Block> {
        let metadata = self.document.record().metadata;
        let lines: Vec<_> = metadata
            .iter()
            .filter(|(field, _)| field.as_str() != "session")
            .map(|(field, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                vec![Cell::new(field), Cell::new(text)]
            })
            .collect();
        under("PROFILE", lines)
    }

    fn counted(&self) -> Vec<Block> {
        let counters = &self.document.knowledge.counters;
        let lines = counters.iter().map(|(writer, totals)| {
            vec![
                Cell::new(writer),
                Cell::new(format!("{} in", humane::thousands(totals.messages_in))),
                Cell::new(format!("{} out", humane::thousands(totals.messages_out))),
                Cell::new(humane::count(totals.errors, "error")),
                Cell::new(humane::count(totals.reconnects, "reconnect")),
                self.seen(totals.at),
            ]
        });
        under("COUNTED BY", lines.collect())
    }

    fn past(&self) -> Vec<Block> {
        let lines = self.history.iter().map(|entry| {
            let transition = &entry.transition;
            vec![
                Cell::new(cells::moment(transition.at)).tone(Tone::Dim),
                Cell::new(transition.facet.as_str()),
                cells::change(transition),
                Cell::new(&transition.rule).tone(Tone::Dim),
            ]
        });
        under("HISTORY", lines.collect())
    }

    /// A verdict that is too old shows its age itself; the cell beside it shows that it is stale.
    fn aged(&self, verdict: Cell, field: Field, at: Option<Timestamp>) -> Vec<Cell> {
        if self.row.freshness.is_stale(field) {
            vec![verdict, Cell::new("too old to rely on").tone(Tone::Warn)]
        } else {
            vec![verdict, self.seen(at)]
        }
    }

    fn seen(&self, at: Option<Timestamp>) -> Cell {
        cells::seen(at, self.as_of)
    }
}

fn rule(name: &str) -> Block {
    Block::Remark(format!("{} ({name})", explain(name)))
}

/// A section whose first line is its heading alone.
fn under(title: &'static str, lines: Vec<Vec<Cell>>) -> Vec<Block> {
    if lines.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![Block::Section(title, Vec::new())];
    blocks.extend(nested(lines));
    blocks
}

/// Aligned lines without titles.
fn nested(lines: Vec<Vec<Cell>>) -> Option<Block> {
    let width = lines.first()?.len();
    Some(Block::Nested(Grid {
        columns: vec![Column::kept(""); width],
        rows: lines,
        headed: false,
    }))
}
