//! Which shard a source is in, and which member owns a shard.
//!
//! The hashes are our own, because those of the standard library may change between releases, and members of several versions must
//! agree. [`super::View`] contains their version.

/// Number of shards. Few make the load uneven, many cost nothing: with 1,024 the busiest of four members has about 7 % more
/// sources than the average.
pub const SHARDS: u16 = 1024;

/// The finalizer of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// FNV-1a, 64 bits.
fn fnv1a(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Returns the shard of a source, or of an account, by its id.
pub fn shard_of(id: &str) -> u16 {
    let shard = mix(fnv1a(id)) % u64::from(SHARDS);
    u16::try_from(shard).unwrap_or(0)
}

/// Returns which of `members` owns a shard: the one with the highest hash of shard and id (rendezvous hashing). A member that
/// joins or leaves moves only its own part.
pub fn owner<'a>(shard: u16, members: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let weight = |id: &str| mix(mix(u64::from(shard)) ^ mix(fnv1a(id)));
    members.max_by_key(|id| (weight(id), *id))
}

/// A set of shards.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ShardSet([u64; 16]);

impl ShardSet {
    /// Collects the shards for which `is_in` returns `true`.
    pub fn of(is_in: impl Fn(u16) -> bool) -> Self {
        let mut set = Self::default();
        (0..SHARDS).filter(|shard| is_in(*shard)).for_each(|shard| {
            set.0[usize::from(shard / 64)] |= 1 << (shard % 64);
        });
        set
    }

    /// Whether a shard is in the set.
    pub fn contains(&self, shard: u16) -> bool {
        let word = self.0.get(usize::from(shard / 64)).copied().unwrap_or(0);
        word & (1 << (shard % 64)) != 0
    }

    /// Returns the number of shards in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no shard is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Returns the shards that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (word, other) in both.0.iter_mut().zip(other.0) {
            *word &= other;
        }
        both
    }
}

impl std::fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set()
            .entries((0..SHARDS).filter(|shard| self.contains(*shard)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn owners(members: &BTreeSet<String>) -> Vec<Option<String>> {
        let of = |shard| owner(shard, members.iter().map(String::as_str)).map(str::to_owned);
        (0..SHARDS).map(of).collect()
    }

    #[test]
    fn hashes_are_those_of_every_release() {
        // Changing them moves all sources, and members of two versions would both act on some.
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
    }

    #[test]
    fn load_of_four_members_is_within_a_fifth_of_the_mean() {
        let members: BTreeSet<_> = (0..4).map(|index| format!("watch-{index}")).collect();
        let owners = owners(&members);
        for member in &members {
            let count = (0..100_000)
                .filter(|id| owners[usize::from(shard_of(&format!("twitch:{id}")))].as_ref() == Some(member))
                .count();
            assert!((20_000..=30_000).contains(&count), "{member}: {count}");
        }
    }

    proptest! {
        #[test]
        fn join_moves_shards_only_to_the_new_member(
            members in proptest::collection::btree_set("[a-z]{1,8}", 1..8), new in "[A-Z]{1,8}"
        ) {
            let before = owners(&members);
            let mut more = members;
            more.insert(new.clone());
            for (before, after) in before.iter().zip(owners(&more)) {
                prop_assert!(after == *before || after.as_ref() == Some(&new));
            }
        }

        #[test]
        fn leave_moves_only_the_shards_of_who_left(
            members in proptest::collection::btree_set("[a-z]{1,8}", 2..8)
        ) {
            let before = owners(&members);
            let mut fewer = members;
            let gone = fewer.pop_first();
            for (before, after) in before.iter().zip(owners(&fewer)) {
                prop_assert!(after == *before || *before == gone);
            }
        }
    }
}
