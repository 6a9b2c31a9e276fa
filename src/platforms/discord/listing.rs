//! Finds guilds in the list of the bot's guilds, with as few pages as there can be, and never takes a guild for absent
//! that the list has not left out. Pure: it says which page to ask for and learns from what came.
//!
//! The list is sorted by id and paged by `after=<id>`, so a page can start right before the first guild that is wanted.

use std::collections::BTreeSet;

use super::wire::ListedGuild;

/// The most guilds that Discord puts on one page.
pub const PAGE: usize = 200;

/// A walk through the list in search of some guilds.
#[derive(Debug)]
pub struct Walk {
    missing: BTreeSet<u64>,
    last_seen: u64,
}

/// What a page told.
#[derive(Debug, Default)]
pub struct Found {
    /// Guilds that were wanted and are listed.
    pub listed: Vec<ListedGuild>,
    /// Guilds that were wanted and are certainly not in the list.
    pub absent: Vec<u64>,
    /// Guilds of which nothing can be said, because the list does not page as documented.
    pub unclear: Vec<u64>,
}

impl Walk {
    /// Looks for `wanted`.
    pub fn new(wanted: impl IntoIterator<Item = u64>) -> Self {
        Self {
            missing: wanted.into_iter().collect(),
            last_seen: 0,
        }
    }

    /// Returns how many pages it takes at most, if all guilds are listed.
    pub fn expected(&self) -> usize {
        self.missing.len().div_ceil(PAGE)
    }

    /// Returns the `after` of the next page, or `None` when all is known.
    pub fn after(&self) -> Option<u64> {
        let first = *self.missing.first()?;
        Some(self.last_seen.max(first.saturating_sub(1)))
    }

    /// Returns what has not been told of yet.
    pub fn left(&self) -> impl Iterator<Item = u64> + '_ {
        self.missing.iter().copied()
    }

    /// Learns from the page that was asked for with `after`.
    pub fn learn(&mut self, after: u64, page: Vec<ListedGuild>) -> Found {
        let size = page.len();
        let last = page.iter().map(|guild| guild.id.0).max();
        let listed = page
            .into_iter()
            .filter(|guild| self.missing.remove(&guild.id.0))
            .collect();
        let mut found = Found {
            listed,
            ..Found::default()
        };
        match last {
            // A short page may be the last one or a server's own idea of a page; only an empty one is surely the end.
            None => found.absent.extend(std::mem::take(&mut self.missing)),
            Some(last) if last <= after => {
                // The server does not know `after`. When everything fits onto one page, that is the whole list.
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
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listed(ids: impl IntoIterator<Item = u64>) -> Vec<ListedGuild> {
        ids.into_iter()
            .map(|id| serde_json::from_value(json!({"id": id.to_string()})).unwrap())
            .collect()
    }

    /// Walks through a server that lists `all` and serves pages of at most `cap`.
    fn walk(wanted: &[u64], all: &[u64], cap: usize) -> (Vec<u64>, Vec<u64>, usize) {
        let mut walk = Walk::new(wanted.iter().copied());
        let (mut found, mut absent, mut calls) = (Vec::new(), Vec::new(), 0);
        while let Some(after) = walk.after() {
            calls += 1;
            assert!(calls < 10_000, "the walk does not end");
            let page = all.iter().copied().filter(|id| *id > after).take(cap.min(PAGE));
            let told = walk.learn(after, listed(page));
            found.extend(told.listed.iter().map(|guild| guild.id.0));
            absent.extend(told.absent);
            assert!(told.unclear.is_empty());
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
    fn a_server_that_does_not_page_is_believed_only_when_all_fits_onto_one_page() {
        let mut small = Walk::new([2, 900]);
        assert_eq!(small.learn(1, listed([1, 2, 3])).listed.len(), 1);
        let after = small.after().unwrap();
        assert_eq!(small.learn(after, listed([1, 2, 3])).absent, [900]);
        let mut large = Walk::new([900]);
        let told = large.learn(899, listed(1..=200));
        assert_eq!(
            (told.absent, told.unclear, large.after()),
            (vec![], vec![900], None)
        );
    }

    #[test]
    fn the_largest_id_there_is_does_not_overflow() {
        assert_eq!(walk(&[u64::MAX], &[u64::MAX], PAGE), (vec![u64::MAX], vec![], 1));
    }
}
