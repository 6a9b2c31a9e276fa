//! Options that filter, sort and limit the sources that a command shows.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use clap::{Args, ValueEnum};
use clap_complete::{ArgValueCompleter, CompletionCandidate};

use crate::cli::commands::sources::known::Known;
use crate::cli::complete;
use crate::cli::output::{Format, Output};
use crate::cli::reports::columns::SourceColumn;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::view::envelope::UnusableItem;
use crate::view::order::{self, SortField, SortKey};
use crate::view::source_row::SourceRow;

/// The option that chooses columns.
#[derive(Debug, Clone, Default, Args)]
pub struct ColumnArgs {
    /// Columns of -o table, wide and csv
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        ignore_case = true,
        help_heading = "Order and limit"
    )]
    columns: Vec<SourceColumn>,
}

impl ColumnArgs {
    /// Returns the chosen columns, if any. Formats whose fields are fixed have none.
    pub fn chosen(&self, output: &Output) -> Result<Option<Vec<SourceColumn>>, Failure> {
        if self.columns.is_empty() {
            return Ok(None);
        }
        if !matches!(output.format, Format::Table | Format::Wide | Format::Csv) {
            let what = "--columns is for -o table, wide and csv; the fields of the other formats are fixed";
            return Err(Failure::new(ExitCode::Usage, what)
                .hint("leave --columns out, and pick the fields from -o json, for example with jq"));
        }
        let mut chosen: Vec<SourceColumn> = Vec::new();
        for column in &self.columns {
            if !chosen.contains(column) {
                chosen.push(*column);
            }
        }
        Ok(Some(chosen))
    }
}

/// Options that leave sources out.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Only sources of this platform; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', add = ArgValueCompleter::new(complete::platforms))]
    pub platform: Vec<PlatformName>,
    /// Only live sources: streamStatus is ONLINE and not stale
    #[arg(long)]
    pub live: bool,
    /// Only sources that need attention or are down
    ///
    /// `status` is ERROR or DISCONNECTED, `authStatus` is EXPIRED or REVOKED, a credential is missing, or a check with --probe
    /// got no answer; however old the evidence is. These are the sources for which `status` exits with 3 or 4.
    #[arg(long)]
    pub failing: bool,
}

impl FilterArgs {
    /// Whether the state of a source satisfies the filters. `without_answer` contains the sources whose check got no answer.
    pub fn keeps(&self, row: &SourceRow, without_answer: &BTreeSet<SourceKey>) -> bool {
        let is_failing = row.is_failing() || without_answer.contains(&row.summary.key);
        (!self.live || row.is_live()) && (!self.failing || is_failing)
    }

    /// Whether something that cannot be used is shown beside the sources. It may need attention, and is not known to be live.
    pub fn keeps_unusable(&self, item: &UnusableItem) -> bool {
        let platform = item.id.split_once(':').map(|(platform, _)| platform);
        let of_platform = |wanted: &PlatformName| platform == Some(wanted.as_str());
        !self.live && (self.platform.is_empty() || self.platform.iter().any(of_platform))
    }

    /// Applies the filters. The exit code of `status` follows from what is left.
    pub fn apply(&self, known: &mut Known) {
        known.considered = known.rows.len();
        let of_platform =
            |row: &SourceRow| self.platform.is_empty() || self.platform.contains(&row.summary.key.platform());
        known.rows.retain(of_platform);
        let before = known.rows.len();
        known.rows.retain(|row| self.keeps(row, &known.unanswered));
        known.filtered_out = before - known.rows.len();
        known.unusable.retain(|item| self.keeps_unusable(item));
    }

    /// Returns the filters as they can be typed; `None` where there are none.
    pub fn typed(&self) -> Option<String> {
        let mut typed: Vec<String> = Vec::new();
        typed.extend(
            self.platform
                .iter()
                .map(|platform| format!("--platform {platform}")),
        );
        typed.extend(self.live.then(|| "--live".to_owned()));
        typed.extend(self.failing.then(|| "--failing".to_owned()));
        (!typed.is_empty()).then(|| typed.join(" "))
    }
}

/// Options that sort sources and limit how many are shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Order and limit")]
pub struct OrderArgs {
    /// Sort by these fields: id, name, platform, status, stream, viewers, auth, age, latency; -FIELD for descending
    ///
    /// `id` is platform:id by number; `status`, `stream` and `auth` are sorted from CONNECTED, ONLINE and VALID to ERROR, OFFLINE
    /// and REVOKED; `age` is that of the oldest of status and stream. Unknown values are always last, and equal ones in the order
    /// of `id`.
    #[arg(
        long,
        value_name = "FIELD",
        value_delimiter = ',',
        allow_hyphen_values = true,
        add = ArgValueCompleter::new(sort_fields)
    )]
    pub sort: Vec<SortKey>,
    /// Show at most this many; how many were left out is noted on standard error
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<u32>,
}

/// Parses the number of entries to show at most.
pub fn at_least_one(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "write a whole number from 1 on".to_owned())
}

impl OrderArgs {
    /// Sorts `items`; without --sort they stay as they are.
    pub fn sort<T>(&self, items: &mut [T], row: impl Fn(&T) -> &SourceRow) {
        if self.sort.is_empty() {
            return;
        }
        items.sort_by(|one, other| order::compare(&self.sort, row(one), row(other)));
    }

    /// Returns how many are shown at most.
    pub fn limit(&self) -> Option<usize> {
        self.limit.and_then(|limit| usize::try_from(limit).ok())
    }
}

/// Offers the fields that sources are sorted by, descending once a hyphen is typed.
pub fn sort_fields(current: &OsStr) -> Vec<CompletionCandidate> {
    let is_descending = current.as_encoded_bytes().starts_with(b"-");
    let fields = SortField::value_variants().iter();
    let values = fields.filter_map(SortField::to_possible_value);
    let described: Vec<(String, String)> = values
        .map(|value| {
            let hyphen = if is_descending { "-" } else { "" };
            let help = value.get_help().map(ToString::to_string);
            (format!("{hyphen}{}", value.get_name()), help.unwrap_or_default())
        })
        .collect();
    complete::among(
        current,
        described
            .iter()
            .map(|(word, help)| (word.as_str(), help.as_str())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::envelope::UnusableKind;
    use crate::view::tests::{Story, gone, guild, old_knowledge, ratcaster, revoked};

    fn known() -> Known {
        let stories = [
            ratcaster(),
            revoked(),
            gone(),
            old_knowledge(),
            guild(),
            Story::of("twitch:19"),
        ];
        Known {
            rows: stories.iter().map(Story::row).collect(),
            unusable: ["twitch:5", "kick:name", "odd"].map(item).to_vec(),
            ..Known::default()
        }
    }

    fn item(id: &str) -> UnusableItem {
        UnusableItem {
            what: UnusableKind::Document,
            id: id.to_owned(),
            reason: "it is broken".to_owned(),
        }
    }

    fn keys(rows: &[SourceRow]) -> Vec<String> {
        rows.iter().map(|row| row.summary.key.to_string()).collect()
    }

    #[test]
    fn filters_by_state_go_by_proven_facts() {
        use PlatformName::{Discord, Kick, Twitch};
        let filter = |platform: &[PlatformName], live, failing| FilterArgs {
            platform: platform.to_vec(),
            live,
            failing,
        };
        for (filter, expected, unusable) in [
            // A stream that was live half an hour ago is not live.
            (filter(&[], true, false), &["twitch:900200"][..], 0),
            (
                filter(&[], false, true),
                &["twitch:900207", "twitch:900209", "discord:987654321098765432"][..],
                3,
            ),
            (filter(&[], true, true), &[][..], 0),
            (filter(&[Kick], false, false), &["kick:55501"][..], 1),
            (
                filter(&[Kick, Discord], false, true),
                &["discord:987654321098765432"][..],
                1,
            ),
            (
                filter(&[Twitch], false, true),
                &["twitch:900207", "twitch:900209"][..],
                1,
            ),
        ] {
            let mut known = known();
            filter.apply(&mut known);
            assert_eq!(keys(&known.rows), expected, "{filter:?}");
            assert_eq!(known.unusable.len(), unusable, "{filter:?}");
            assert_eq!(known.considered, 6);
        }
    }

    #[test]
    fn check_without_answer_is_failing() {
        let mut known = known();
        known.unanswered.insert(ratcaster().key.parse().unwrap());
        let filter = FilterArgs {
            platform: vec![PlatformName::Twitch],
            failing: true,
            live: true,
        };
        filter.apply(&mut known);
        assert_eq!(keys(&known.rows), ["twitch:900200"]);
        assert_eq!(known.filtered_out, 3);
        assert_eq!(filter.typed().unwrap(), "--platform twitch --live --failing");
    }

    fn sorted(fields: &str) -> Vec<String> {
        let order = OrderArgs {
            sort: fields.split(',').map(|field| field.parse().unwrap()).collect(),
            limit: None,
        };
        let mut rows = known().rows;
        order.sort(&mut rows, |row| row);
        let short = |key: String| {
            let (platform, id) = key.split_once(':').unwrap();
            format!("{}{}", &platform[..1], &id[id.len() - 2..])
        };
        keys(&rows).into_iter().map(short).collect()
    }

    #[test]
    fn unknown_values_are_last_in_both_directions() {
        for (fields, expected) in [
            ("id", "t19 t00 t07 t09 k01 d32"),
            ("-id", "d32 k01 t09 t07 t00 t19"),
            ("-platform,name", "d32 k01 t07 t00 t19 t09"),
            ("name", "k01 t07 t00 d32 t19 t09"),
            ("-name", "d32 t00 t07 k01 t19 t09"),
            ("stream", "t00 k01 t07 t19 t09 d32"),
            ("-viewers", "t00 k01 t19 t07 t09 d32"),
            ("viewers", "k01 t00 t19 t07 t09 d32"),
            ("-auth,-id", "t07 d32 k01 t09 t00 t19"),
            ("latency", "t00 t19 t07 t09 k01 d32"),
        ] {
            assert_eq!(sorted(fields).join(" "), expected, "{fields}");
        }
        assert_eq!(sorted("-age")[0], "k01");
        assert_eq!(sorted("status").last().unwrap(), "t19");
    }

    #[test]
    fn unknown_field_is_refused_with_the_list_and_a_suggestion() {
        let error = "-viewrs".parse::<SortKey>().unwrap_err();
        assert!(error.contains("did you mean `viewers`? use id, name,"), "{error}");
        for text in ["", "-", "--limit", "nonsense"] {
            let error = text.parse::<SortKey>().unwrap_err();
            assert!(error.contains("use id, name, platform"), "{text}: {error}");
        }
    }
}
