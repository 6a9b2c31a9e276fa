//! Random faults compared with the simulator's state: the real program with all three platforms, its SQLite store and its push
//! connections, while platforms fail, the daemon is killed, stopped or paused, clocks jump, tokens are revoked and replaced. When
//! every fault is over and time has passed, every document must match the simulator and every history must be a chain without a
//! lost or doubled stream.
//!
//! A seed decides the whole story. `scripts/campaign.sh` runs more of them; a failing seed prints its story.

mod check;
mod cluster;
mod story;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// How many stories run concurrently. Each is mostly waiting.
const SIDE_BY_SIDE: u64 = 10;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn random_faults_leave_no_wrong_state() {
    let first = setting("BITBRAT_CAMPAIGN_SEED", 1);
    let next = AtomicU64::new(first);
    let end = first + setting("BITBRAT_CAMPAIGN_SEEDS", 20);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let run = std::panic::catch_unwind(|| story::run(seed));
                    let report = match run {
                        Ok(Ok(())) => continue,
                        Ok(Err(report)) => report,
                        Err(_) => format!("seed {seed} panicked; its message stands above"),
                    };
                    failures.lock().push(report);
                }
            });
        }
    });
    let failures = failures.into_inner();
    assert!(
        failures.is_empty(),
        "{} of {} seeds ended in a wrong state (repeat one with BITBRAT_CAMPAIGN_SEED=N BITBRAT_CAMPAIGN_SEEDS=1):\n\n{}",
        failures.len(),
        end - first,
        failures.join("\n\n")
    );
}
