//! Runs blocking work (files, SQLite) outside the threads that run async tasks.

use std::future::pending;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// Runs `work` on a thread that may block. A panic of it is a panic here.
///
/// When the runtime shuts down before `work` has begun, this future never completes: its caller is about to be dropped with the
/// runtime, and neither a result nor a panic would be correct.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => pending().await,
        },
    }
}

/// Runs `work` on a thread that may block, so that its computations delay no other task. It is dropped with this future. A panic
/// of it is a panic here.
pub async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = Handle::current();
    let (wanted, unwanted) = oneshot::channel::<()>();
    let run = move || {
        runtime.block_on(async move {
            tokio::select! {
                biased;
                _ = unwanted => None,
                done = work => Some(done),
            }
        })
    };
    let done = blocking(run).await;
    drop(wanted);
    match done {
        Some(done) => done,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_of_the_work_is_a_panic_of_who_waits_for_it() {
        let waits = AssertUnwindSafe(blocking(|| panic!("as it was"))).catch_unwind();
        let panic = waits.await.expect_err("it panicked");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"as it was"));
    }

    #[test]
    fn work_that_the_end_of_the_runtime_cancels_is_no_panic() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let (run, running) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let (describe, reported) = mpsc::channel();
        let task = runtime.spawn(async move {
            // The runtime shuts down during this poll; no work begins any more.
            let _ = run.send(());
            let _ = ended.recv();
            let _ = describe.send("goes on");
            let done = AssertUnwindSafe(blocking(|| ())).catch_unwind().await;
            let _ = describe.send(if done.is_ok() { "done" } else { "panicked" });
        });
        running.recv().expect("it runs");
        runtime.shutdown_background();
        end.send(()).expect("it is in the middle of its turn");
        drop(task);
        assert_eq!(reported.iter().collect::<Vec<_>>(), ["goes on"]);
    }
}
