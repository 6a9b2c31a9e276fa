//! Credentials in addresses, also in those that were written in an unusual form.

use std::borrow::Cow;

use super::registry::without;
use super::{FIELDS, MASK};

/// Returns what may be shown of a value that may be an address, a list of them, or a pasted key.
///
/// It hides too much rather than too little: a value in an unexpected form is often a mistake, and its message is read by more
/// people than the value was meant for.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    if is_document(text) {
        return Cow::Borrowed(MASK);
    }
    if is_path(text) {
        return Cow::Borrowed(text);
    }
    let shown = without(text, userinfos(text));
    let shown = without(&shown, text_in_port_positions(&shown));
    let shown = without(&shown, parameter_values(&shown));
    Cow::Owned(without(&shown, path_secrets(&shown)))
}

/// As [`without_credentials`], of a list of servers that are also written without a scheme: `host:4222`. What follows a colon
/// there without being a port is a password whose host is missing.
pub fn without_credentials_of_servers(text: &str) -> Cow<'_, str> {
    let shown = without_credentials(text);
    let servers = shown.split(',').map(|server| match server.split_once(':') {
        Some((host, rest)) if !rest.starts_with("//") && !host.contains(['@', '[']) => {
            let blanks = server.len() - server.trim_start().len();
            let range = text_in_port_position(server.trim_start());
            let range = range.map(|(from, to)| (from + blanks, to + blanks));
            without(server, range.into_iter().collect())
        }
        _ => server.to_owned(),
    });
    Cow::Owned(servers.collect::<Vec<_>>().join(","))
}

/// Returns the users and passwords in `text`, decoded. A single value without a colon may be a token.
pub(super) fn passwords(text: &str) -> Vec<(Option<String>, String)> {
    if is_document(text) {
        return document_secrets(text);
    }
    if is_path(text) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (start, end) in text_in_port_positions(text) {
        found.push((None, decoded(&text[start..end])));
        found.push((None, text[start..end].to_owned()));
    }
    for (start, end) in userinfos(text) {
        let whole = &text[start..end];
        match whole.split_once(':') {
            Some((user, password)) => {
                found.push((Some(decoded(user)), decoded(password)));
                found.push((None, password.to_owned()));
            }
            // A short one is a user's name.
            None if whole.len() >= 16 => found.push((None, decoded(whole))),
            None => {}
        }
    }
    found
}

/// Returns the values of parameters that are secrets, decoded.
pub(super) fn parameters(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (start, end) in parameter_values(text).into_iter().chain(path_secrets(text)) {
        found.push(text[start..end].to_owned());
        found.push(decoded(&text[start..end]));
    }
    found
}

/// Adds the ranges of users and passwords of addresses in a text: `scheme://HERE@host`.
pub(super) fn credentials(text: &[u8], found: &mut Vec<(usize, usize)>) {
    let mut from = 0;
    while let Some(colon) = text[from..].windows(3).position(|window| window == b"://") {
        let start = from + colon + 3;
        let length = text[start..]
            .iter()
            .take_while(|byte| {
                !byte.is_ascii_whitespace()
                    && !matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'/' | b'`' | b'?')
            })
            .count();
        let authority = &text[start..start + length];
        if let Some(at) = authority
            .iter()
            .rposition(|byte| *byte == b'@')
            .filter(|at| *at > 0)
        {
            found.push((start, start + at));
        } else if let Ok(authority) = std::str::from_utf8(authority) {
            found.extend(text_in_port_position(authority).map(|(from, to)| (start + from, start + to)));
        }
        from = start;
    }
}

/// Returns the ranges of what stands in place of ports in addresses without an `@`.
fn text_in_port_positions(text: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (slashes, _) in text.match_indices("//") {
        let start = slashes + 2;
        let rest = &text[start..];
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | ',' | ';' | '"' | '\''))
            .unwrap_or(rest.len());
        if !rest[..end].contains('@') {
            found.extend(text_in_port_position(&rest[..end]).map(|(from, to)| (start + from, start + to)));
        }
    }
    found
}

/// Returns the range of what stands in place of the port of an authority, and is none: the password of a user whose host is
/// missing, or was cut off by a comma, or follows a full-width `＠`.
fn text_in_port_position(authority: &str) -> Option<(usize, usize)> {
    let authority = authority.split([',', ';']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(_) => authority.find(']')? + 1,
        None => 0,
    };
    let start = host + authority[host..].find(':')? + 1;
    let port = &authority[start..];
    // What follows an address in a sentence.
    let bare = port.trim_end_matches(|c: char| c.is_ascii_punctuation() || c == '…');
    let bare = match bare.find(['\\', '`', ')', '(', '|']) {
        Some(end) if end > 0 && bare[..end].bytes().all(|byte| byte.is_ascii_digit()) => &bare[..end],
        _ => bare,
    };
    let is_number = bare.bytes().all(|byte| byte.is_ascii_digit());
    // `nats://HOST:PORT` in a description.
    let is_placeholder = bare == "PORT";
    (!is_number && !is_placeholder).then_some((start, authority.len()))
}

/// The contents of a key file in place of its path.
fn is_document(text: &str) -> bool {
    let text = text.trim_start_matches(['\u{feff}', '"', '\'', ' ', '\t', '\n', '\r']);
    // The last two are how `{"` and `{` with a line break begin in base64.
    text.starts_with('{')
        || text.contains("-----BEGIN")
        || text.contains("\"private_key")
        || text.starts_with("eyJ")
        || text.starts_with("ewo")
}

fn document_secrets(text: &str) -> Vec<(Option<String>, String)> {
    let mut found = vec![(None, text.trim().to_owned())];
    if let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(text.trim()) {
        let secrets = ["private_key", "private_key_id", "refresh_token", "client_secret"];
        for value in secrets.iter().filter_map(|name| fields.get(*name)?.as_str()) {
            found.push((None, value.to_owned()));
            // A key has lines, which are quoted one by one.
            found.extend(value.lines().map(|line| (None, line.to_owned())));
        }
    }
    found
}

/// Paths of files may hold an `@`.
fn is_path(text: &str) -> bool {
    ["sqlite:", "file:", "/", "./", "../", "~/"]
        .iter()
        .any(|start| text.starts_with(start) && !text.starts_with("//"))
}

/// Returns the ranges of `user:password` in a list of addresses: all between the start of an address and the last `@` that can
/// belong to it, because a password may contain anything.
fn userinfos(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut previous: Option<usize> = None;
    for (at, _) in text.match_indices('@') {
        let from = previous.map_or(0, |previous: usize| previous + 1);
        let before = &text[from..at];
        let scheme = before.find("//").map(|slashes| from + slashes + 2);
        let next = previous.and_then(|_| before.find([',', ';', ' ', '\n']).map(|comma| from + comma + 1));
        let start = match (scheme, next, previous) {
            // Another `@` of the same password.
            (None, None, Some(_)) => {
                if let Some((_, end)) = found.last_mut() {
                    *end = at;
                }
                previous = Some(at);
                continue;
            }
            (Some(scheme), _, _) => scheme,
            (None, Some(next), _) => next + text[next..at].len() - text[next..at].trim_start().len(),
            (None, None, None) => 0,
        };
        // A list may be separated by blanks; a password in an address without a scheme has none.
        let blank = text[start..at]
            .char_indices()
            .rfind(|(_, letter)| letter.is_whitespace());
        let start = match (scheme, blank) {
            (None, Some((blank, letter))) => start + blank + letter.len_utf8(),
            _ => start,
        };
        let has_password = text[start..at]
            .split_once(':')
            .is_some_and(|(_, password)| !password.is_empty());
        // `TOKEN@host` without a scheme; `kick:@name` is a name that was written as in chat.
        let names_host = text[at + 1..].starts_with(|first: char| first.is_alphanumeric() || first == '[');
        let is_token = names_host && !text[start..at].ends_with(':');
        if start < at && (scheme.is_some() || has_password || is_token) {
            found.push((start, at));
            previous = Some(at);
        }
    }
    found
}

/// Returns the ranges of values of parameters that are secrets by their name or form, of parameters without a name, and of
/// fragments: no configured address needs one, so it was pasted by mistake.
fn parameter_values(text: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (at, mark) in text.match_indices(['?', '&', '#']) {
        let is_hidden = found.last().is_some_and(|(_, end)| at < *end);
        // `#name` is how a channel is written in chat.
        let begins_word = text[..at]
            .chars()
            .next_back()
            .is_none_or(|before| before.is_whitespace() || matches!(before, ',' | ';' | '"' | '\''));
        if is_hidden || begins_word {
            continue;
        }
        let rest = &text[at + 1..];
        let whole = rest.find(['&', '#', ',', ' ']).unwrap_or(rest.len());
        let equals = rest[..whole].find('=');
        let value = equals.map_or(0, |equals| equals + 1);
        let name = equals.map(|equals| match &rest[..equals] {
            name if name.contains(['%', '+']) => Cow::Owned(decoded(name)),
            name => Cow::Borrowed(name),
        });
        let name = name.map(|name| name.to_ascii_lowercase().replace('-', "_"));
        let is_secret = match &name {
            None => true,
            Some(name) => {
                FIELDS.contains(&name.as_str())
                    || ["token", "secret", "pass", "key", "sig", "credential", "auth"]
                        .iter()
                        .any(|part| name.contains(part))
                    || (super::is_random(&rest[value..whole])
                        && !super::names::is_known(&rest.as_bytes()[value..whole]))
            }
        };
        let start = match (is_secret, mark) {
            (true, _) => at + 1 + value,
            (false, "#") => at + 1,
            (false, _) => continue,
        };
        let end = at + 1 + whole;
        if start < end {
            found.push((start, end));
        }
    }
    found
}

/// Returns the ranges of secrets that are segments of a web address's path, as in webhooks.
fn path_secrets(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for scheme in ["https://", "http://", "wss://", "ws://"] {
        for (at, _) in text.match_indices(scheme) {
            let start = at + scheme.len();
            let rest = &text[start..];
            let end = rest.find([' ', ',', '?', '#']).unwrap_or(rest.len());
            let mut from = start;
            for step in rest[..end].split('/') {
                let digits = step.bytes().filter(u8::is_ascii_digit).count();
                if from > start && step.len() >= 20 && digits >= 3 && super::is_random(step) {
                    found.push((from, from + step.len()));
                }
                from += step.len() + 1;
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn decoded(text: &str) -> String {
    let plain = text.replace('+', "%2B");
    let pair = format!("v={plain}");
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map_or_else(|| text.to_owned(), |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_unusual_addresses_are_hidden() {
        for (text, shown) in [
            ("nats://bot:hunter2@10.0.0.1:4222", "nats://***@10.0.0.1:4222"),
            ("nats://a:b@one:1,nats://two:2", "nats://***@one:1,nats://two:2"),
            ("bot:hunter2@nats:4222", "***@nats:4222"),
            ("//bot:hunter2@nats:4222", "//***@nats:4222"),
            ("nats://s3cr3ttoken@nats:4222", "nats://***@nats:4222"),
            ("a:b@one:1, c:d@two:2;e:f@three", "***@one:1, ***@two:2;***@three"),
            ("nats://bot:p@ss@host", "nats://***@host"),
            ("nats://bot:p,q@host:1", "nats://***@host:1"),
            ("nats://bot:p/q?r#s@host:1", "nats://***@host:1"),
            ("https://h/x?token=abc&y=1", "https://h/x?token=***&y=1"),
            (
                "https://h/x?y=1&api-key=abc#access_token=d",
                "https://h/x?y=1&api-key=***#access_token=***",
            ),
            (
                "nats://h?pass=p,nats://i?user=u",
                "nats://h?pass=***,nats://i?user=u",
            ),
            ("{\"type\":\"service_account\",\"private_key\":\"x\"}", "***"),
            ("-----BEGIN PRIVATE KEY-----\nabc", "***"),
            ("eyJ0eXBlIjoic2VydmljZV9hY2NvdW50In0=", "***"),
            ("/etc/bitbrat/private_key.json", "/etc/bitbrat/private_key.json"),
            ("sqlite:/var/lib/a@b.db", "sqlite:/var/lib/a@b.db"),
            ("/etc/keys/bot@work:x@y.json", "/etc/keys/bot@work:x@y.json"),
            ("twitch:pixel kick:@meadow", "twitch:pixel kick:@meadow"),
            ("nats://localhost:4222", "nats://localhost:4222"),
            ("t0ken@nats:4222", "***@nats:4222"),
            ("t0ken@[::1]:4222", "***@[::1]:4222"),
            ("one:4222,t0ken@two:4222", "***@two:4222"),
            ("nats://h:1#t0ken", "nats://h:1#***"),
            ("h:4222#t0ken", "h:4222#***"),
            ("https://h/x#a=t0ken", "https://h/x#***"),
            ("https://h/x?t0ken", "https://h/x?***"),
            ("https://h/x?code=abcdefgh12345678", "https://h/x?code=***"),
            (
                "https://h/api/webhooks/1234567890123456789/abcdefgh1234_5678-ijkl",
                "https://h/api/webhooks/1234567890123456789/***",
            ),
            ("#ratcaster #catcaster,#rat", "#ratcaster #catcaster,#rat"),
            ("https://api.twitch.tv/helix", "https://api.twitch.tv/helix"),
            ("nats://bot:hunter2", "nats://bot:***"),
            ("nats://bot:hunter2\u{ff20}host:4222", "nats://bot:***"),
            ("nats://bot:hun,two:4222", "nats://bot:***,two:4222"),
            (
                "nats://[::1]:4222,nats://[::1]:p",
                "nats://[::1]:4222,nats://[::1]:***",
            ),
            ("write nats://HOST:PORT", "write nats://HOST:PORT"),
            ("http://127.0.0.1:8787: refused", "http://127.0.0.1:8787: refused"),
        ] {
            assert_eq!(without_credentials(text), shown, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_may_stand_for_an_address(text in "(\\PC|[ @:/?&=#,;%\u{2003}]){0,40}") {
            let _ = (without_credentials(&text), passwords(&text), parameters(&text));
        }
    }

    #[test]
    fn what_stands_in_place_of_a_port_is_hidden_in_a_list_of_servers() {
        for (text, shown) in [
            ("bot:hunter2", "bot:***"),
            ("one:4222,bot:hunter2", "one:4222,bot:***"),
            ("one:4222, two:4222", "one:4222, two:4222"),
            ("nats://bot:hunter2,two", "nats://bot:***,two"),
            ("bot:hunter2\u{ff20}host", "bot:***"),
            ("[::1]:4222", "[::1]:4222"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(without_credentials_of_servers(text), shown, "{text}");
        }
    }

    #[test]
    fn passwords_of_addresses_are_taken_decoded() {
        let found = passwords("nats://bot:hunter%402@one:1,nats://c:d@two");
        let words: Vec<&str> = found.iter().map(|(_, password)| password.as_str()).collect();
        assert_eq!(words, ["hunter@2", "hunter%402", "d", "d"]);
        assert_eq!(parameters("wss://h/?token=a%2Bb"), ["a%2Bb", "a+b"]);
    }
}
