//! What every lease engine keeps.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bitbrat::lease::{Fence, Holder, LeaseEngine, LeaseError, LeaseName, LeaseState};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::keepers::{Kept, PATIENCE, Stoppable};
use super::worlds::{TTL, World};

pub fn holder(name: &str) -> Holder {
    Holder::new(name.parse().unwrap())
}

pub fn name() -> LeaseName {
    "lease".parse().unwrap()
}

/// Repeats a call that failed because the machine is busy, or the server is starting.
pub async fn retrying<T, F: Future<Output = Result<T, LeaseError>>>(call: impl Fn() -> F) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) if error.is_transient() && Instant::now() < until => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

pub async fn acquire(engine: &Arc<dyn LeaseEngine>, holder: &Holder) -> Option<Fence> {
    retrying(|| async { engine.acquire(&name(), holder, "").await }).await
}

/// Waits until the lease has expired and is taken.
pub async fn take_over(engine: &Arc<dyn LeaseEngine>, holder: &Holder) -> Fence {
    let taken = async {
        loop {
            if let Some(fence) = acquire(engine, holder).await {
                return fence;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, taken).await.expect("it expires")
}

async fn renew(engine: &Arc<dyn LeaseEngine>, holder: &Holder, fence: Fence) -> bool {
    retrying(|| async { engine.renew(&name(), holder, fence, "").await }).await
}

pub async fn of_eight_racers_one_gets_the_lease<W: World>() {
    let world = W::new().await;
    let mut racers = Vec::new();
    for index in 0..8 {
        racers.push((world.open().await, holder(&format!("m{index}"))));
    }
    // The first calls create what is missing.
    for (engine, _) in &racers {
        retrying(|| async { engine.list().await }).await;
    }
    let fences = join_all(racers.iter().map(|(engine, holder)| acquire(engine, holder))).await;
    assert_eq!(fences.iter().flatten().count(), 1, "{fences:?}");
}

pub async fn lease_moves_only_after_its_expiry_and_with_a_higher_fence<W: World>() {
    let world = W::new().await;
    let (engine, other) = (world.open().await, world.open().await);
    let (a, b) = (holder("a"), holder("b"));
    retrying(|| async { other.list().await }).await;
    let first = acquire(&engine, &a).await.unwrap();
    let granted = Instant::now();
    assert_eq!(acquire(&other, &b).await, None);
    let second = take_over(&other, &b).await;
    // Requests take time, too; an engine never expires early.
    assert!(
        granted.elapsed() + Duration::from_secs(1) > TTL,
        "it was taken early"
    );
    assert!(second > first, "{first} {second}");
    assert!(!renew(&engine, &a, first).await, "the first one has lost it");
}

pub async fn renewal_keeps_the_fence_and_prevents_a_takeover<W: World>() {
    let world = W::new().await;
    let (engine, other) = (world.open().await, world.open().await);
    let (a, b) = (holder("a"), holder("b"));
    retrying(|| async { other.list().await }).await;
    let fence = acquire(&engine, &a).await.unwrap();
    let until = Instant::now() + TTL * 2;
    while Instant::now() < until {
        assert!(renew(&engine, &a, fence).await);
        assert_eq!(acquire(&other, &b).await, None);
        sleep(TTL / 10).await;
    }
    let found = retrying(|| async { engine.list().await }).await;
    assert_eq!((found[0].fence, &found[0].holder), (fence, &a));
    assert!(!renew(&engine, &b, fence).await, "not for another holder");
    assert!(!renew(&engine, &a, Fence(fence.0 + 1)).await, "nor another fence");
}

pub async fn expired_lease_is_not_renewed<W: World>() {
    let world = W::new().await;
    let engine = world.open().await;
    let a = holder("a");
    let fence = acquire(&engine, &a).await.unwrap();
    let gone = async {
        while !retrying(|| async { engine.list().await }).await.is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("it expires");
    assert!(!renew(&engine, &a, fence).await);
}

pub async fn released_lease_is_free_and_its_fence_never_returns<W: World>() {
    let world = W::new().await;
    let engine = world.open().await;
    let mut last = Fence(0);
    for index in 0..3 {
        let holder = holder(&format!("m{index}"));
        let fence = acquire(&engine, &holder).await.expect("the lease is free");
        assert!(fence > last, "{last} {fence}");
        retrying(|| async { engine.release(&name(), &holder, fence).await }).await;
        assert!(!renew(&engine, &holder, fence).await);
        assert_eq!(retrying(|| async { engine.list().await }).await, []);
        last = fence;
    }
    // A release that arrives late does not affect the next holder.
    let (a, b) = (holder("a"), holder("b"));
    let fence = acquire(&engine, &a).await.unwrap();
    retrying(|| async { engine.release(&name(), &b, last).await }).await;
    assert!(renew(&engine, &a, fence).await);
}

pub async fn repeated_request_of_a_holder_gets_its_fence_again<W: World>() {
    let world = W::new().await;
    let engine = world.open().await;
    let a = holder("a");
    let fence = acquire(&engine, &a).await.unwrap();
    assert_eq!(acquire(&engine, &a).await, Some(fence), "the answer was lost");
    assert!(renew(&engine, &a, fence).await);
    assert_eq!(acquire(&engine, &a).await, Some(fence));
    // The same member after a restart is another holder.
    assert_eq!(acquire(&engine, &holder("a")).await, None);
}

pub async fn fences_grow_after_the_engine_has_lost_its_records<W: World>() {
    // In memory, nothing outlives the engine by which it could count on.
    if W::KIND.is_none() {
        return;
    }
    let world = W::new().await;
    let engine = world.open().await;
    let (a, b) = (holder("a"), holder("b"));
    let fence = acquire(&engine, &a).await.unwrap();
    assert!(renew(&engine, &a, fence).await);
    world.wipe().await;
    let wiped = retrying(|| async { engine.renew(&name(), &a, fence, "").await });
    assert!(!wiped.await, "the holder loses it");
    let other = world.open().await;
    let next = acquire(&other, &b).await.expect("it is free");
    assert!(next > fence, "{fence} {next}");
    assert!(!renew(&engine, &a, fence).await);
}

pub async fn live_leases_are_listed_with_their_notes<W: World>() {
    let world = W::new().await;
    let engine = world.open().await;
    let (a, b) = (holder("a"), holder("b"));
    let [one, two]: [LeaseName; 2] = ["one", "two"].map(|name| name.parse().unwrap());
    let noted = r#"{"text":"äöü \" \\"}"#;
    let first = retrying(|| async { engine.acquire(&one, &a, "starting").await }).await;
    let second = retrying(|| async { engine.acquire(&two, &b, "").await }).await;
    retrying(|| async { engine.renew(&one, &a, first.unwrap(), noted).await }).await;
    let found = retrying(|| async { engine.list().await }).await;
    let seen: Vec<_> = found
        .iter()
        .map(|record| {
            (
                &record.name,
                &record.holder,
                Some(record.fence),
                record.note.as_str(),
            )
        })
        .collect();
    assert_eq!(seen, [(&one, &a, first, noted), (&two, &b, second, "")]);
}

pub async fn view_is_replaced_only_at_its_version<W: World>() {
    let world = W::new().await;
    let (engine, other) = (world.open().await, world.open().await);
    assert_eq!(retrying(|| async { engine.view().await }).await, None);
    retrying(|| async { other.view().await }).await;
    let texts: Vec<String> = (0..4).map(|index| format!("first {index}")).collect();
    let shared = &engine;
    let made = join_all(
        texts
            .iter()
            .map(|text| retrying(move || async move { shared.replace_view(None, text).await })),
    )
    .await;
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
    let first = retrying(|| async { other.view().await }).await.unwrap();
    assert!(first.text.starts_with("first"));
    let replace = |base: String| {
        let other = Arc::clone(&other);
        async move { retrying(|| async { other.replace_view(Some(&base), "second").await }).await }
    };
    assert!(replace(first.version.clone()).await);
    assert!(!replace(first.version).await, "it is another one now");
    let second = retrying(|| async { engine.view().await }).await.unwrap();
    assert_eq!(second.text, "second");
}

pub async fn fleets_with_other_names_share_nothing<W: World>() {
    let world = W::new().await;
    let (engine, other) = (world.open_for("fleet").await, world.open_for("other").await);
    let (a, b) = (holder("a"), holder("b"));
    assert!(acquire(&engine, &a).await.is_some());
    assert!(acquire(&other, &b).await.is_some());
    retrying(|| async { engine.replace_view(None, "of fleet").await }).await;
    assert_eq!(retrying(|| async { other.view().await }).await, None);
    let found = retrying(|| async { other.list().await }).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].holder, b);
}

pub async fn keeper_acts_renews_and_releases<W: World>() {
    let world = W::new().await;
    let watcher = world.open().await;
    let mut kept = Kept::start(world.open().await, "a");
    let fence = kept.acts().await;
    kept.note.send_replace("changed".to_owned());
    let noted = async {
        loop {
            let found = retrying(|| async { watcher.list().await }).await;
            if found.first().is_some_and(|record| record.note == "changed") {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, noted).await.expect("the note is written");
    // Longer than without renewals.
    sleep(TTL + TTL / 2).await;
    assert_eq!(kept.fence(), Some(fence));
    kept.done.cancel();
    kept.reaches(|state| *state == LeaseState::Released).await;
    assert_eq!(kept.guard.check(), None);
    let next = take_over(&watcher, &holder("b")).await;
    assert!(next > fence);
}

pub async fn stopped_process_does_not_act_after_a_takeover<W: World>() {
    let Some(kind) = W::KIND else {
        return;
    };
    let world = W::new().await;
    let rival = world.open().await;
    let mut process = Stoppable::start(kind, &world.description());
    let first = process.acts_under().await;
    process.signal("-STOP");
    let before = process.acts();
    let taken = take_over(&rival, &holder("rival")).await;
    assert!(taken > first, "{first} {taken}");
    process.signal("-CONT");
    process.loses().await;
    // One action may have passed its guard before the stop; the fence in what it writes is for that one.
    let late: Vec<Fence> = process.acts().split_off(before.len());
    assert!(late.len() <= 1, "{late:?}");
    assert!(late.iter().all(|fence| *fence < taken));
}
