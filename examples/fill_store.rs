//! Multiplies what a store in a file knows, until it holds as many sources as asked for, so that commands can be timed on a
//! large one made of real looks.
//!
//! `bitbrat --demo --set store.url=sqlite:FILE probe; cargo run --example fill_store FILE 1000`
#![expect(
    clippy::print_stdout,
    reason = "an example tells what it did on standard output"
)]

use std::path::Path;

use bitbrat::core::document::SourceDocument;
use bitbrat::core::source::SourceKey;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};
use bitbrat::store::{SourceStore, Write};
use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, wanted] = arguments.as_slice() else {
        return Err("usage: fill_store FILE SOURCES".into());
    };
    let wanted: usize = wanted.parse()?;
    let store = SqliteStore::open(Path::new(file), SqliteOptions::default()).await?;
    let known: Vec<SourceDocument> = store
        .load_all()
        .await?
        .into_iter()
        .filter_map(|stored| Some(stored.document.ok()?.value))
        .collect();
    if known.is_empty() {
        return Err("nothing is in there to multiply".into());
    }
    let more = known.iter().cycle().take(wanted.saturating_sub(known.len()));
    let writes = more.enumerate().map(|(number, document)| {
        let key = SourceKey::new(document.key.platform(), &format!("{}", 10_000_000 + number))?;
        let copy = SourceDocument::from_stored(key, Value::Object(document.to_stored()))?;
        Ok(Write::new(copy, None))
    });
    let writes: Vec<Write> = writes.collect::<Outcome<_>>()?;
    for saved in store.save(&writes).await {
        saved?;
    }
    println!("{} sources in {file}", known.len() + writes.len());
    Ok(())
}
