//! The documents name files of the source: those are there, under that name.

mod grafana;
mod language;
mod packaging;

use std::path::{Path, PathBuf};

/// Returns the files below `folder`.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] })
        .collect()
}

fn is_of_kind(path: &Path, kind: &str) -> bool {
    path.extension().is_some_and(|reported| reported == kind)
}

/// Writes out `a/{b,c}.rs`.
fn spelled_out(name: &str) -> Vec<String> {
    match name
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        Some((before, (middle, after))) => middle
            .split(',')
            .map(|part| format!("{before}{part}{after}"))
            .collect(),
        None => vec![name.to_owned()],
    }
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: Vec<_> = ["src", "tests"]
        .iter()
        .flat_map(|folder| below(&root.join(folder)))
        .collect();
    let documents = below(&root.join("docs"))
        .into_iter()
        .chain([root.join("README.md")]);
    let mut named = 0;
    for document in documents.filter(|path| is_of_kind(path, "md")) {
        let text = std::fs::read_to_string(&document).unwrap();
        // The text between two backticks; a name with `<` in it is a placeholder.
        let quoted = text.split('`').skip(1).step_by(2);
        let files = quoted.filter(|name| is_of_kind(Path::new(name), "rs") && !name.contains(['<', ' ']));
        for name in files.flat_map(spelled_out) {
            assert!(
                sources.iter().any(|path| path.ends_with(&name)),
                "{} names {name}",
                document.display()
            );
            named += 1;
        }
    }
    assert!(named > 10, "only {named} names were found");
}
