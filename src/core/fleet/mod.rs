//! How the members of a fleet divide the sources among themselves ([decision 46](../../../docs/decisions/0046-leases-and-fleets.md)).
//!
//! Sources are hashed to shards, and shards to members, so that all members compute the same. The members that count are in the
//! [`View`], which is replaced as a whole and numbered by its epoch. [`Membership`] decides what one member may do.

mod membership;
mod rate_share;
mod shards;
mod view;

pub use membership::{LeaseSeen, Membership, Note, Observed};
pub use rate_share::RateShare;
pub use shards::{SHARDS, ShardSet, owner, shard_of};
pub use view::{Incompatible, Member, View};
