//! What users read is plain technical English: none of the terms below occurs in help, manual pages, messages, schemas,
//! generated files or documents.
//!
//! The lists are about words of a private vocabulary that a newcomer can neither guess nor search for, about code that acts like a
//! person, and about one spelling.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bitbrat::cli::args::Cli;
use bitbrat::cli::commands::schema;
use clap::CommandFactory as _;

use crate::support::Home;

/// Single terms, and their replacements.
const WORDS: &[(&str, &[&str])] = &[
    (
        "send, publish, report, show",
        &["told", "tell", "tells", "telling", "untold"],
    ),
    ("receive, read", &["heard", "hear", "hears", "hearing"]),
    ("probe, check", &["look", "looks", "looked", "looking"]),
    ("poller, connection", &["lane", "lanes", "roster", "ear", "ears"]),
    ("outbox", &["ledger", "ledgers"]),
    ("sink", &["outlet", "outlets"]),
    (
        "source, monitored",
        &[
            "attend",
            "attends",
            "attended",
            "attending",
            "attendee",
            "attendees",
        ],
    ),
    ("rate limit", &["budget", "budgets"]),
    ("token status", &["standing"]),
    (
        "error, failure",
        &["trouble", "troubles", "troubled", "worry", "worries"],
    ),
    (
        "no one by name: say what is missing",
        &["nobody", "somebody", "anybody", "stranger", "strangers"],
    ),
    (
        "has, supports, needs, reports",
        &["knows", "wants", "believes", "says", "speaks", "hopes", "heeds"],
    ),
];

/// Phrases, and their replacements.
const PHRASES: &[(&str, &str)] = &[
    ("needs you", "needs attention"),
    ("need you", "need attention"),
    ("given again", "log in again"),
    ("no news", "no change"),
    ("taken up", "resumed"),
];

/// Terms that documents may contain: "the log says" is common there, while messages are short.
const FOR_DOCUMENTS: &[&str] = &["says"];

/// Prefixes of British spellings.
const BRITISH: &[&str] = &[
    "authoris",
    "unauthoris",
    "behaviour",
    "cancell",
    "centre",
    "colour",
    "customis",
    "favour",
    "honour",
    "initialis",
    "licence",
    "neighbour",
    "normalis",
    "optimis",
    "organis",
    "recognis",
    "serialis",
    "summaris",
    "synchronis",
];

/// Correct spellings with such a prefix, and names of other projects.
const SPELLED_BY_OTHERS: &[&str] = &[
    "cancellation",
    "cancellationtoken",
    "cancelled",
    "optimistic",
    "optimism",
    "organism",
];

/// Whether a part of a word in lower case is in British spelling; an identifier has several.
fn is_british(word: &str) -> bool {
    word.split('_')
        .any(|part| !SPELLED_BY_OTHERS.contains(&part) && BRITISH.iter().any(|start| part.starts_with(start)))
}

/// Returns the violations in a text.
fn violations(text: &str) -> Vec<String> {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '_' && c != '-')
        .map(|word| word.trim_matches(['-', '\'']).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    let mut found = Vec::new();
    for (place, word) in words.iter().enumerate() {
        // A name or an id is looked up in a table, which is standard.
        let is_lookup = word.starts_with("look") && words.get(place + 1).is_some_and(|next| next == "up");
        for (instead, forbidden) in WORDS {
            if forbidden.contains(&word.as_str()) && !is_lookup {
                found.push(format!("`{word}` ({instead})"));
            }
        }
        if is_british(word) {
            found.push(format!("`{word}` (American spelling)"));
        }
    }
    let joined = format!(" {} ", words.join(" "));
    for (phrase, instead) in PHRASES {
        if joined.contains(&format!(" {phrase} ")) {
            found.push(format!("`{phrase}` ({instead})"));
        }
    }
    found
}

/// Collects violations, with their places.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn check(&mut self, place: &str, text: &str) {
        self.check_but(place, text, &[]);
    }

    fn check_but(&mut self, place: &str, text: &str, allowed: &[&str]) {
        for line in text.lines() {
            for wrong in violations(line) {
                if allowed.iter().any(|word| wrong.starts_with(&format!("`{word}`"))) {
                    continue;
                }
                self.0.push(format!("{place}: {wrong} in: {}", line.trim()));
            }
        }
    }

    #[track_caller]
    fn assert_none(self) {
        assert!(
            self.0.is_empty(),
            "{} findings:\n{}",
            self.0.len(),
            self.0.join("\n")
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn help_of_every_command_is_in_plain_language() {
    fn walk(command: &mut clap::Command, path: &str, findings: &mut Findings, seen: &mut usize) {
        *seen += 1;
        findings.check(path, &command.render_long_help().to_string());
        findings.check(path, &command.render_help().to_string());
        let names: Vec<String> = command
            .get_subcommands()
            .map(|sub| sub.get_name().to_owned())
            .collect();
        for name in names {
            if let Some(sub) = command.find_subcommand_mut(&name) {
                walk(sub, &format!("{path} {name}"), findings, seen);
            }
        }
    }
    let mut findings = Findings::default();
    let mut command = Cli::command();
    command.build();
    let mut seen = 0;
    walk(&mut command, "bitbrat", &mut findings, &mut seen);
    assert!(seen > 30, "only {seen} commands");
    findings.assert_none();
}

#[test]
fn generated_pages_files_and_schemas_are_in_plain_language() {
    let home = Home::new();
    let mut findings = Findings::default();
    home.run(&["man", "--out", "pages"]).exits(0);
    let pages = super::below(&home.work().join("pages"));
    assert!(pages.len() > 25, "only {} pages", pages.len());
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap().replace("\\-", "-");
        findings.check(&page.file_name().unwrap().to_string_lossy(), &text);
    }
    home.run(&["config", "init"]).exits(0);
    let file = std::fs::read_to_string(home.work().join("bitbrat.toml")).unwrap();
    findings.check("config init", &file);
    for words in [
        &["config", "show", "-o", "json"][..],
        &["help", "exit-codes"],
        &["help", "errors"],
    ] {
        findings.check(&words.join(" "), &home.run(words).exits(0).stdout);
    }
    for described in schema::ALL {
        findings.check(&format!("schema {}", described.name), &schema::text(described));
    }
    let example = std::fs::read_to_string(root().join(".env.example")).unwrap();
    findings.check(".env.example", &example);
    findings.assert_none();
}

/// Returns the words of a document: without names between backquotes, without the targets of links.
fn prose(markdown: &str) -> String {
    let mut fenced = false;
    let mut text = String::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        // In an example everything is shown as it is printed.
        let mut rest = line.to_owned();
        if !fenced {
            let outside: Vec<&str> = line.split('`').step_by(2).collect();
            rest = outside.join(" x ");
            while let Some(start) = rest.find("](") {
                let end = rest[start..].find(')').map_or(rest.len(), |end| start + end);
                rest.replace_range(start..end, "]");
            }
        }
        text.push_str(&rest);
        text.push('\n');
    }
    text
}

#[test]
fn documents_are_in_plain_language() {
    let mut findings = Findings::default();
    let pages = super::below(&root().join("docs"));
    let mut checked = 0;
    for page in pages.into_iter().chain([root().join("README.md")]) {
        if super::is_of_kind(&page, "md") {
            let place = page.strip_prefix(root()).unwrap().display().to_string();
            let text = prose(&std::fs::read_to_string(&page).unwrap());
            findings.check_but(&place, &text, FOR_DOCUMENTS);
            checked += 1;
        }
    }
    assert!(checked > 18, "only {checked} documents");
    findings.assert_none();
}

/// Returns the string literals of a source file with their lines, without those of its tests.
fn literals(source: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    let starts = |at: usize, text: &str| {
        text.chars()
            .enumerate()
            .all(|(i, c)| chars.get(at + i) == Some(&c))
    };
    while at < chars.len() {
        let is_word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        if starts(at, "#[cfg(test)]\nmod ") {
            let rest: String = chars[at..].iter().take(200).collect();
            let header = rest.lines().nth(1).unwrap_or_default();
            // A module in this file is at its end; one of another file is excluded by its name.
            if header.ends_with('{') {
                break;
            }
        }
        match chars[at] {
            '\n' => {
                line += 1;
                at += 1;
            }
            '/' if starts(at, "//") => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '\'' => {
                // A character, or the name of a lifetime.
                let end = if chars.get(at + 1) == Some(&'\\') {
                    (at + 3..at + 12).find(|end| chars.get(*end) == Some(&'\''))
                } else {
                    (chars.get(at + 2) == Some(&'\'')).then_some(at + 2)
                };
                at = end.unwrap_or(at) + 1;
            }
            'r' if !is_word_before && (starts(at, "r\"") || starts(at, "r#\"")) => {
                let hashes = usize::from(chars[at + 1] == '#');
                let mut end = at + 2 + hashes;
                let begin = end;
                while end < chars.len()
                    && !(chars[end] == '"' && (hashes == 0 || chars.get(end + 1) == Some(&'#')))
                {
                    end += 1;
                }
                let text: String = chars[begin..end.min(chars.len())].iter().collect();
                let lines = text.matches('\n').count();
                found.push((line, text));
                line += lines;
                at = end + 1 + hashes;
            }
            '"' => {
                let (first, mut text) = (line, String::new());
                at += 1;
                while at < chars.len() && chars[at] != '"' {
                    match (chars[at], chars.get(at + 1)) {
                        ('\\', Some('\n')) => {
                            at += 1;
                            while chars.get(at).is_some_and(|c| c.is_whitespace()) {
                                line += usize::from(chars[at] == '\n');
                                at += 1;
                            }
                        }
                        ('\\', Some(escaped)) => {
                            text.push(if matches!(escaped, 'n' | 't' | 'r') {
                                ' '
                            } else {
                                *escaped
                            });
                            at += 2;
                        }
                        (c, _) => {
                            line += usize::from(c == '\n');
                            text.push(c);
                            at += 1;
                        }
                    }
                }
                at += 1;
                found.push((first, text));
            }
            _ => at += 1,
        }
    }
    found
}

/// Returns a literal without its placeholders.
fn without_placeholders(text: &str) -> String {
    let mut rest = text;
    let mut left = String::new();
    while let Some(start) = rest.find('{') {
        left.push_str(&rest[..start]);
        left.push_str(" x ");
        rest = rest[start..].split_once('}').map_or("", |(_, after)| after);
    }
    left + rest
}

/// Literals that are no text for people: columns of a database, and the name of a control of the simulator.
fn is_internal(text: &str) -> bool {
    let sql = [
        "CREATE TABLE",
        "SELECT ",
        "UPDATE ",
        "INSERT ",
        "DELETE ",
        "ALTER TABLE",
    ];
    let start = text.trim_start();
    sql.iter().any(|word| start.starts_with(word)) || text == "trouble"
}

#[test]
fn messages_are_in_plain_language() {
    let mut findings = Findings::default();
    let mut seen = 0;
    let is_of_tests = |path: &PathBuf| {
        let inside = path.strip_prefix(root()).unwrap();
        inside.file_stem().is_some_and(|stem| stem == "tests")
            || inside
                .components()
                .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "stories")
    };
    for path in super::below(&root().join("src")) {
        if !super::is_of_kind(&path, "rs") || is_of_tests(&path) {
            continue;
        }
        let place = path.strip_prefix(root()).unwrap().display().to_string();
        for (line, text) in literals(&std::fs::read_to_string(&path).unwrap()) {
            seen += 1;
            if !is_internal(&text) {
                findings.check(&format!("{place}:{line}"), &without_placeholders(&text));
            }
        }
    }
    assert!(seen > 5_000, "only {seen} literals");
    findings.assert_none();
}

#[test]
fn identifiers_and_comments_are_in_american_spelling() {
    let mut findings = Vec::new();
    let mut seen = 0;
    for path in ["src", "tests"]
        .iter()
        .flat_map(|dir| super::below(&root().join(dir)))
    {
        if !super::is_of_kind(&path, "rs") {
            continue;
        }
        let place = path.strip_prefix(root()).unwrap().display().to_string();
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            // Literals are between quotes; those that users read are checked as messages.
            let outside = line.split('"').step_by(2);
            let words = outside.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'));
            for word in words.filter(|word| !word.is_empty()) {
                seen += 1;
                if is_british(&word.to_lowercase()) {
                    findings.push(format!("{place}:{}: `{word}`", number + 1));
                }
            }
        }
    }
    assert!(seen > 100_000, "only {seen} words");
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn forbidden_words_are_found_whatever_is_around_them() {
    for (text, expected) in [
        ("What is told on the bus", 1),
        ("Look at it, then look again", 2),
        ("its id is looked up once", 0),
        ("4 need you", 1),
        ("the Authorisation's colour", 2),
        ("colours_of_a_row", 1),
        ("a bookkeeper, a hearth, planets, the outlook", 0),
        ("the error is unknown; an answer is expected", 0),
        ("canceled by an optimistic lock", 0),
    ] {
        assert_eq!(violations(text).len(), expected, "{text}: {:?}", violations(text));
    }
    let source = "fn a() { b('\"', \"one \\\"two\\\"\", r#\"thr\"ee\"#); } // \"four\"\n#[cfg(test)]\nmod tests {\n\"five\"";
    let texts: BTreeSet<String> = literals(source).into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        texts,
        BTreeSet::from(["one \"two\"".to_owned(), "thr\"ee".to_owned()])
    );
    assert_eq!(
        prose("a `told` [b](told.md)\n```\ntold\n```")
            .matches("told")
            .count(),
        1
    );
}
