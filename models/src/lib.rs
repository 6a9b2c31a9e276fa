//! Models of the protocols on which `bitbrat` relies, checked exhaustively in bounded size. Each model has a switch for every rule that
//! it is about; a test for each switch shows that the search finds what goes wrong without that rule.
//!
//! What is modeled and what is left out: `docs/quality.md`, section "Models".

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker as _, HasDiscoveries, Model};

pub mod lease;
pub mod outbox;
pub mod refresh;

/// Searches all states, and returns how many there are. Panics with the shortest path to a state that violates a property, or if an
/// example of a `sometimes` property does not exist: then the interesting case was not reached.
pub fn search<M>(name: &str, model: M) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model.checker().spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    println!("{name}: {states} states, depth {}", checker.max_depth());
    states
}

/// Returns the shortest sequence of actions that violates `property`. Panics if there is none.
pub fn counterexample<M>(model: M, property: &'static str) -> Vec<M::Action>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let sought = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = model.checker().finish_when(sought).spawn_bfs().join();
    let actions = checker.assert_any_discovery(property).into_actions();
    println!("violates `{property}`: {actions:?}");
    actions
}
