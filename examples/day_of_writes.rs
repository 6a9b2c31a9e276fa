//! Prints what a day of 200 sources costs at Firestore's default heartbeat: every write of a simulated day, counted.
//!
//! `cargo run --example day_of_writes [SOURCES]`; takes seconds, touches no network.
#![expect(
    clippy::print_stdout,
    reason = "an example tells its figures on standard output"
)]

use bitbrat::persist::write_policy::WritePolicy;

#[path = "../tests/stories/day.rs"]
mod day;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sources = std::env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(200);
    let figures = day::simulate(sources, WritePolicy::every(std::time::Duration::from_mins(5))).await;
    println!("sources                  {}", figures.sources);
    println!("observations             {}", figures.observations);
    println!("documents written        {}", figures.documents_written);
    println!("history entries written  {}", figures.history_written);
    println!(
        "writes                   {}   (limit for 200 sources: 60000)",
        figures.writes()
    );
    println!(
        "writes predicted         {}   (as `bitbrat doctor` does, on the high side)",
        figures.predicted
    );
    println!("documents read           {}", figures.reads);
    println!(
        "transitions stored       {} of {}",
        figures.transitions_stored, figures.transitions_happened
    );
}
