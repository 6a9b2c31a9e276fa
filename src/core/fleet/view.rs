//! The record on which all members agree.

use serde::{Deserialize, Serialize};

use super::shards::{SHARDS, ShardSet, owner, shard_of};

/// Version of the hashes in [`super::shards`].
const HASH: u32 = 1;

/// A member as the view has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Name of its lease: the instance name of the daemon.
    pub id: String,
    /// Which of its acquisitions of its lease: after a restart or a loss the same member is another one.
    pub incarnation: String,
    /// Fence of that acquisition.
    pub fence: u64,
    /// Whether it is about to leave, and owns nothing any more.
    #[serde(default)]
    pub draining: bool,
}

/// Who is in the fleet. Replaced as a whole, with a higher epoch each time; the epoch is the fence of every shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Grows by one with each view.
    pub epoch: u64,
    /// Sorted by id.
    pub members: Vec<Member>,
    /// Number of shards, by which members of other versions notice that they would divide differently.
    pub shards: u16,
    /// Version of the hashes.
    pub hash: u32,
}

/// The fleet divides its sources in a way that this program does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the fleet divides its sources into {shards} shards by hash version {hash}, and this bitbrat has {SHARDS} by version {HASH}"
)]
pub struct Incompatible {
    shards: u16,
    hash: u32,
}

impl View {
    /// Creates a view, with the members in order.
    pub fn new(epoch: u64, mut members: Vec<Member>) -> Self {
        members.sort();
        Self {
            epoch,
            members,
            shards: SHARDS,
            hash: HASH,
        }
    }

    /// Checks that all members of this view divide the sources as this program does.
    pub fn check(&self) -> Result<(), Incompatible> {
        match (self.shards, self.hash) {
            (SHARDS, HASH) => Ok(()),
            (shards, hash) => Err(Incompatible { shards, hash }),
        }
    }

    /// The members that own something.
    fn owners(&self) -> impl Iterator<Item = &str> {
        let staying = self.members.iter().filter(|member| !member.draining);
        staying.map(|member| member.id.as_str())
    }

    /// Returns the owner of a shard; `None` if every member is leaving.
    pub fn owner(&self, shard: u16) -> Option<&str> {
        owner(shard, self.owners())
    }

    /// Returns the owner of a source or an account by its id.
    pub fn owner_of(&self, id: &str) -> Option<&str> {
        self.owner(shard_of(id))
    }

    /// Returns the shards of a member.
    pub fn shards_of(&self, member: &str) -> ShardSet {
        ShardSet::of(|shard| self.owner(shard) == Some(member))
    }

    /// Returns the number of members that own something.
    pub fn size(&self) -> usize {
        self.owners().count()
    }
}
