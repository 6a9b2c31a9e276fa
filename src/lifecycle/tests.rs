//! Tests of the daemon's shutdown, on paused time.

use super::*;

const GRACE: Duration = Duration::from_secs(10);

fn lifecycle() -> (Lifecycle, mpsc::Sender<Signal>) {
    let (sender, receiver) = mpsc::channel(4);
    (Lifecycle::with_signals(receiver), sender)
}

#[tokio::test(start_paused = true)]
async fn a_signal_stops_every_task_and_waits_for_its_work() {
    let (lifecycle, signals) = lifecycle();
    let (done, mut drained) = mpsc::channel(1);
    lifecycle.tasks().spawn("worker", |stop| async move {
        stop.requested().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        done.send(()).await.unwrap();
    });
    signals.send(Signal::Terminate).await.unwrap();
    assert_eq!(lifecycle.run(GRACE).await, Ok(ExitCode::Healthy));
    assert!(drained.try_recv().is_ok());
}

#[tokio::test(start_paused = true)]
async fn signal_during_startup_stops_it_and_drains_started_tasks() {
    let (mut lifecycle, signals) = lifecycle();
    let tasks = lifecycle.tasks();
    let (done, mut drained) = mpsc::channel(1);
    let start = async {
        tasks.spawn("worker", |stop| async move {
            stop.requested().await;
            done.send(()).await.unwrap();
        });
        signals.send(Signal::Reload).await.unwrap();
        signals.send(Signal::Interrupt).await.unwrap();
        std::future::pending::<()>().await;
    };
    assert_eq!(lifecycle.starting(start).await, None);
    assert_eq!(lifecycle.run(GRACE).await, Ok(ExitCode::Interrupted));
    assert!(drained.try_recv().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_not_disturbed_is_handed_on() {
    let (mut lifecycle, signals) = lifecycle();
    signals.send(Signal::Reload).await.unwrap();
    let start = tokio::time::sleep(Duration::from_secs(1));
    assert_eq!(lifecycle.starting(start).await, Some(()));
    assert_eq!(
        *lifecycle.reloads().borrow(),
        1,
        "it is looked at after the start"
    );
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_shows_in_the_exit_code() {
    let (lifecycle, signals) = lifecycle();
    lifecycle
        .tasks()
        .spawn("worker", |stop| async move { stop.requested().await });
    signals.send(Signal::Interrupt).await.unwrap();
    assert_eq!(lifecycle.run(GRACE).await, Ok(ExitCode::Interrupted));
}

#[tokio::test(start_paused = true)]
async fn the_second_signal_forces() {
    let (lifecycle, signals) = lifecycle();
    lifecycle
        .tasks()
        .spawn("stubborn", |_| std::future::pending::<()>());
    signals.send(Signal::Terminate).await.unwrap();
    signals.send(Signal::Terminate).await.unwrap();
    let before = tokio::time::Instant::now();
    let failure = lifecycle.run(GRACE).await.unwrap_err();
    assert!(
        failure.what.contains("second signal") && failure.what.contains("stubborn"),
        "{failure}"
    );
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_ends_what_does_not_stop() {
    let (lifecycle, signals) = lifecycle();
    lifecycle
        .tasks()
        .spawn("stubborn", |_| std::future::pending::<()>());
    signals.send(Signal::Terminate).await.unwrap();
    let before = tokio::time::Instant::now();
    let failure = lifecycle.run(GRACE).await.unwrap_err();
    assert!(failure.what.contains("grace period"), "{failure}");
    assert!(before.elapsed() >= GRACE);
}

#[tokio::test(start_paused = true)]
async fn failed_task_stops_the_process_and_is_named() {
    async fn panics(_: Stop) {
        panic!("boom");
    }
    async fn fails(_: Stop) -> Result<(), std::io::Error> {
        Err(std::io::Error::other("no socket"))
    }
    async fn returns(_: Stop) {}
    for (kind, expected) in [
        (0, "task `it` panicked"),
        (1, "task `it` failed"),
        (2, "task `it` exited unexpectedly"),
    ] {
        let (lifecycle, _signals) = lifecycle();
        let tasks = lifecycle.tasks();
        tasks.spawn("other", |stop| async move { stop.requested().await });
        match kind {
            0 => tasks.spawn("it", panics),
            1 => tasks.spawn("it", fails),
            _ => tasks.spawn("it", returns),
        }
        let failure = lifecycle.run(GRACE).await.unwrap_err();
        assert_eq!(
            (failure.what.as_str(), failure.exit),
            (expected, ExitCode::Failed)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_brief_task_may_end_and_a_hang_up_only_reloads() {
    let (lifecycle, signals) = lifecycle();
    let tasks = lifecycle.tasks();
    let mut reloads = lifecycle.reloads();
    tasks.spawn_finite("brief", |_| async {});
    tasks.spawn("reloader", |stop| async move {
        reloads.changed().await.unwrap();
        stop.requested().await;
    });
    signals.send(Signal::Reload).await.unwrap();
    let running = tasks.clone();
    tasks.spawn("observer", |stop| async move {
        while running.running().contains(&"brief".to_owned()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.request_stop();
        stop.requested().await;
    });
    assert_eq!(lifecycle.run(GRACE).await, Ok(ExitCode::Healthy));
}
