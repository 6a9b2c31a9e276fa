//! Why a remote store cannot be reached, for people: client libraries report it in several nested forms.

/// Returns the cause of a failed connection, if the text of the error names a known one.
pub(super) fn reason(text: &str) -> Option<&'static str> {
    const CAUSES: [(&[&str], &str); 5] = [
        (&["connection refused"], "no server accepts connections there"),
        (
            &[
                "dns error",
                "lookup address",
                "name or service not known",
                "no such host",
            ],
            "its name cannot be resolved; check the network of this machine",
        ),
        (&["timed out", "timeout", "deadline"], "it did not answer in time"),
        (
            &["unreachable"],
            "there is no route to it; check the network of this machine",
        ),
        (
            &[
                "connection reset",
                "broken pipe",
                "connection closed",
                "unexpected eof",
            ],
            "the connection broke off",
        ),
    ];
    let text = text.to_ascii_lowercase();
    let is_named = |words: &[&str]| words.iter().any(|word| text.contains(word));
    CAUSES
        .into_iter()
        .find_map(|(words, cause)| is_named(words).then_some(cause))
}
