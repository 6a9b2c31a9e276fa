//! Finds guilds in the list of the bot's guilds with a minimum of pages, and never reports a guild as absent unless the list
//! proves it. Pure: returns which page to request and processes the received pages.
//!
//! The list is sorted by id and paged by `after=<id>`, so a page can start right before the first guild that is searched for.

use std::collections::BTreeSet;

use serde_json::Value;

use super::wire::{ListedGuild, Rows};
use crate::platforms::kit::lenient::id_of;

/// Maximum number of guilds that Discord puts on one page.
pub const PAGE: usize = 200;

/// A search for some guilds in the list.
#[derive(Debug)]
pub struct Walk {
    missing: BTreeSet<u64>,
    last_seen: u64,
}

/// Result of a page.
#[derive(Debug, Default)]
pub struct Found {
    /// Searched guilds that are listed.
    pub listed: Vec<ListedGuild>,
    /// Searched guilds that are certainly not in the list.
    pub absent: Vec<u64>,
    /// Guilds without a result, because rows cannot be parsed or the list is not paged as documented.
    pub unclear: Vec<u64>,
}

impl Walk {
    /// Starts a search for `wanted`.
    pub fn new(wanted: impl IntoIterator<Item = u64>) -> Self {
        Self {
            missing: wanted.into_iter().collect(),
            last_seen: 0,
        }
    }

    /// Returns the maximum number of pages, if all guilds are listed.
    pub fn expected(&self) -> usize {
        self.missing.len().div_ceil(PAGE)
    }

    /// Returns the `after` of the next page, or `None` when the search is complete.
    pub fn after(&self) -> Option<u64> {
        let first = *self.missing.first()?;
        Some(self.last_seen.max(first.saturating_sub(1)))
    }

    /// Returns the guilds without a result so far.
    pub fn left(&self) -> impl Iterator<Item = u64> + '_ {
        self.missing.iter().copied()
    }

    /// Processes the page that was requested with `after`.
    pub fn update(&mut self, after: u64, page: Rows<ListedGuild>) -> Found {
        let size = page.read.len() + page.unread.len();
        let of_row = |row: &Value| id_of(row.get("id")?)?.parse().ok().filter(|id: &u64| *id > 0);
        // A row that cannot be parsed is about the guild whose id it contains, or possibly about any guild.
        let unread: Vec<Option<u64>> = page.unread.iter().map(of_row).collect();
        let read = page.read.iter().map(|guild| guild.id.0);
        let last = read.chain(unread.iter().copied().flatten()).max();
        let listed = page
            .read
            .into_iter()
            .filter(|guild| self.missing.remove(&guild.id.0))
            .collect();
        let mut found = Found {
            listed,
            ..Found::default()
        };
        for guild in unread.iter().copied().flatten() {
            if self.missing.remove(&guild) {
                found.unclear.push(guild);
            }
        }
        let anyones = unread.contains(&None);
        self.conclude(after, size, last, &mut found);
        if anyones {
            found.unclear.append(&mut found.absent);
        }
        found
    }

    /// Evaluates a page of `size` rows up to the id `last`.
    fn conclude(&mut self, after: u64, size: usize, last: Option<u64>, found: &mut Found) {
        match last {
            // A page on which no row can be parsed is not the end of the list.
            None if size > 0 => found.unclear.extend(std::mem::take(&mut self.missing)),
            // A short page may be the last one or a server's own page size; only an empty one is certainly the end.
            None => found.absent.extend(std::mem::take(&mut self.missing)),
            Some(last) if last <= after => {
                // The server ignores `after`. When everything fits on one page, that is the whole list.
                let rest = std::mem::take(&mut self.missing);
                if size < PAGE {
                    found.absent.extend(rest);
                } else {
                    found.unclear.extend(rest);
                }
            }
            Some(last) => {
                let beyond = self.missing.split_off(&(last.saturating_add(1)));
                found.absent.extend(std::mem::replace(&mut self.missing, beyond));
                self.last_seen = last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listed(ids: impl IntoIterator<Item = u64>) -> Rows<ListedGuild> {
        let rows: Vec<_> = ids.into_iter().map(|id| json!({"id": id.to_string()})).collect();
        serde_json::from_value(json!(rows)).unwrap()
    }

    #[test]
    fn a_guild_is_not_absent_when_a_row_cannot_be_read() {
        for (row, unclear) in [
            (json!({"id": null}), vec![20, 30]),
            (json!([]), vec![20, 30]),
            (json!({"id": 0}), vec![20, 30]),
            (json!({"id": "0"}), vec![20, 30]),
            (json!({"id": -20}), vec![20, 30]),
            (json!({"id": 20.5}), vec![20, 30]),
            (json!({"id": 1e30}), vec![20, 30]),
            (json!({"id": "18446744073709551616"}), vec![20, 30]),
            (json!({"id": "20", "permissions": 7, "name": "x"}), vec![]),
        ] {
            let mut walk = Walk::new([10, 20, 30]);
            let page = serde_json::from_value(json!([{"id": "10"}, row, {"id": "40"}])).unwrap();
            let found = walk.update(9, page);
            assert_eq!(found.listed[0].id.0, 10);
            assert_eq!(found.unclear, unclear, "{row}");
            assert_eq!(found.absent.is_empty(), !unclear.is_empty(), "{row}");
        }
        let mut walk = Walk::new([10]);
        let found = walk.update(9, serde_json::from_value(json!([{}])).unwrap());
        assert_eq!((found.absent, found.unclear), (vec![], vec![10]));
    }

    /// Searches on a server that lists `all` and serves pages of at most `cap`.
    fn walk(wanted: &[u64], all: &[u64], cap: usize) -> (Vec<u64>, Vec<u64>, usize) {
        let mut walk = Walk::new(wanted.iter().copied());
        let (mut found, mut absent, mut calls) = (Vec::new(), Vec::new(), 0);
        while let Some(after) = walk.after() {
            calls += 1;
            assert!(calls < 10_000, "the walk does not end");
            let page = all.iter().copied().filter(|id| *id > after).take(cap.min(PAGE));
            let result = walk.update(after, listed(page));
            found.extend(result.listed.iter().map(|guild| guild.id.0));
            absent.extend(result.absent);
            assert!(result.unclear.is_empty());
        }
        (found, absent, calls)
    }

    #[test]
    fn two_thousand_guilds_take_ten_pages() {
        let all: Vec<_> = (1..=2_000).map(|n| n * 7).collect();
        let (found, absent, calls) = walk(&all, &all, PAGE);
        assert_eq!((found.len(), absent.len(), calls), (2_000, 0, 10));
    }

    #[test]
    fn pages_without_wanted_guilds_are_skipped() {
        let all: Vec<_> = (1..=10_000).collect();
        assert_eq!(walk(&[5_000], &all, PAGE), (vec![5_000], vec![], 1));
        assert_eq!(walk(&[10, 9_999], &all, PAGE).2, 2);
    }

    #[test]
    fn a_guild_is_absent_when_the_list_passes_over_it_or_ends() {
        let all = [10, 20, 30];
        assert_eq!(walk(&[15, 20], &all, PAGE), (vec![20], vec![15], 1));
        assert_eq!(walk(&[30, 40, 50], &all, PAGE), (vec![30], vec![40, 50], 2));
        assert_eq!(walk(&[40], &[], PAGE), (vec![], vec![40], 1));
    }

    #[test]
    fn a_server_with_smaller_pages_hides_nothing() {
        let all: Vec<_> = (1..=500).collect();
        let (found, absent, _) = walk(&all, &all, 100);
        assert_eq!((found.len(), absent.len()), (500, 0));
    }

    #[test]
    fn unpaged_listing_is_accepted_only_if_it_fits_one_page() {
        let mut small = Walk::new([2, 900]);
        assert_eq!(small.update(1, listed([1, 2, 3])).listed.len(), 1);
        let after = small.after().unwrap();
        assert_eq!(small.update(after, listed([1, 2, 3])).absent, [900]);
        let mut large = Walk::new([900]);
        let result = large.update(899, listed(1..=200));
        assert_eq!(
            (result.absent, result.unclear, large.after()),
            (vec![], vec![900], None)
        );
    }

    #[test]
    fn the_largest_id_there_is_does_not_overflow() {
        assert_eq!(walk(&[u64::MAX], &[u64::MAX], PAGE), (vec![u64::MAX], vec![], 1));
    }
}
