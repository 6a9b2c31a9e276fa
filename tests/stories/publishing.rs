//! Ways to run a scenario: in order, shuffled with repetitions, and by two writers at once.

use std::sync::Arc;

use bitbrat::clock::{Chance, ManualClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::Observation;
use bitbrat::core::time::Timestamp;
use bitbrat::persist::Persister;
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::store::SourceStore;
use bitbrat::store::retention::Retention;
use serde_json::Value;

use crate::contract::store::worlds::World;

/// What happened to one source, and the expected result.
pub struct Scenario {
    /// In the order of events.
    pub observations: Vec<Observation>,
    /// The transitions in the history when it is run in order, as `facet FROM>TO`.
    pub history: Vec<&'static str>,
}

/// Runs `scenario` in every way and compares each document with the one that follows from the evidence alone.
pub async fn in_every_way<W: World>(scenario: Scenario) {
    let expected = expected(&scenario.observations);
    let document_id = scenario.observations[0].source.to_string();
    let world = W::with(Retention::default()).await;
    let store = world.open().await;
    describe(&store, &scenario.observations).await;
    assert_eq!(world.raw(&document_id).await.unwrap(), expected, "in order");
    assert_eq!(history(&store, &scenario).await, scenario.history);

    // Late observations arrive after all of it happened; before, they would be evidence from the future, which is rejected.
    let end = scenario.observations.iter().map(|seen| seen.at).max().unwrap();
    let world = W::with(Retention::default()).await;
    let store = world.open().await;
    let mut republished: Vec<_> = scenario
        .observations
        .iter()
        .chain(&scenario.observations)
        .cloned()
        .collect();
    fastrand::Rng::with_seed(11).shuffle(&mut republished);
    publish_late(&store, &republished, end).await;
    assert_eq!(
        world.raw(&document_id).await.unwrap(),
        expected,
        "shuffled and repeated"
    );

    let world = W::with(Retention::default()).await;
    let (even, odd): (Vec<_>, Vec<_>) = scenario
        .observations
        .iter()
        .cloned()
        .enumerate()
        .partition(|(index, _)| index % 2 == 0);
    let half = |half: Vec<(usize, Observation)>| half.into_iter().map(|(_, seen)| seen).collect::<Vec<_>>();
    let (even, odd) = (half(even), half(odd));
    let (one, other) = (world.open().await, world.open().await);
    futures_util::future::join(publish_late(&one, &even, end), publish_late(&other, &odd, end)).await;
    assert_eq!(world.raw(&document_id).await.unwrap(), expected, "by two writers");
}

/// Returns the stored form of the document that follows from `observations`.
pub fn expected(observations: &[Observation]) -> Value {
    let key = observations[0].source.clone();
    Value::Object(SourceDocument::from_knowledge(key, Knowledge::of(observations)).to_stored())
}

/// Submits `observations` to a persister of its own, one by one, at the time of each.
pub async fn describe(store: &Arc<dyn SourceStore>, observations: &[Observation]) {
    let clock = ManualClock::at(observations[0].at);
    let persister = Persister::new(
        store.clone(),
        clock.clone(),
        WritePolicy::every(std::time::Duration::from_secs(30)),
        Chance::seeded(5),
    );
    for observation in observations {
        clock.set(observation.at);
        persister.observe(std::slice::from_ref(observation)).await;
        persister.tick().await;
    }
    settle(&persister).await;
}

/// The same at one later time, in any order.
async fn publish_late(store: &Arc<dyn SourceStore>, observations: &[Observation], now: Timestamp) {
    let clock = ManualClock::at(now);
    let persister = Persister::new(
        store.clone(),
        clock,
        WritePolicy::every(std::time::Duration::from_secs(30)),
        Chance::seeded(5),
    );
    for observation in observations {
        persister.observe(std::slice::from_ref(observation)).await;
        persister.tick().await;
    }
    settle(&persister).await;
}

/// Flushes until everything is stored.
pub async fn settle(persister: &Persister) {
    let settled = async {
        while persister.stats().pending > 0 {
            persister.flush().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), settled)
        .await
        .expect("everything is stored in the end");
}

pub async fn history(store: &Arc<dyn SourceStore>, scenario: &Scenario) -> Vec<String> {
    let mut entries = store
        .history(&scenario.observations[0].source, 100)
        .await
        .unwrap();
    let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".into());
    let describe = |entry: &bitbrat::store::HistoryEntry| {
        let change = &entry.transition;
        format!(
            "{} {}>{}",
            change.facet.as_str(),
            word(&change.from),
            word(&change.to)
        )
    };
    // Changes at the same instant have no order of their own.
    entries.sort_by_key(|entry| (entry.transition.at, entry.transition.facet.as_str()));
    entries.iter().map(describe).collect()
}
