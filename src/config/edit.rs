//! Changes the `[[source]]` list of a configuration file and nothing else: comments, order and layout stay.

use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

use super::sources::{SourceAddress, addressed, channel};
use crate::core::source::PlatformName;

/// A source as it is written into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    pub platform: PlatformName,
    /// Its id or name.
    pub address: SourceAddress,
    /// Whether it is subscribed to before others; 0 is not written.
    pub priority: i64,
    /// Discord: the channels that matter.
    pub channels: Vec<String>,
}

impl SourceEntry {
    fn is_at(&self, platform: PlatformName, address: &SourceAddress) -> bool {
        self.platform == platform && self.address == *address
    }

    fn fields(&self) -> Vec<(&'static str, Value)> {
        let (field, text) = match (&self.address, self.platform) {
            (SourceAddress::Id(key), _) => ("id", key.id().to_owned()),
            (SourceAddress::Name(name), platform) => {
                let names = platform.rules().names.as_ref();
                (names.map_or("id", |names| names.field), name.clone())
            }
        };
        let mut fields = vec![("platform", self.platform.as_str().into()), (field, text.into())];
        if self.priority != 0 {
            fields.push(("priority", self.priority.into()));
        }
        if !self.channels.is_empty() {
            fields.push(("channels", self.channels.iter().map(String::as_str).collect()));
        }
        fields
    }
}

/// Why a file cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is not TOML.
    #[error("the file is not TOML: {0}")]
    NotToml(String),
    /// Its `source` is no list of tables.
    #[error("`source` is not a list of tables; write [[source]] above each source")]
    NotAList,
}

/// The text of a file, and how it was written. Windows editors begin it with a byte order mark and end lines with CR LF, and an
/// edit keeps both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    /// The text, without a byte order mark.
    pub text: String,
    encoding: Encoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf8WithMark,
    Utf16Le,
    Utf16Be,
}

impl FileText {
    /// Decodes a file. The error describes the problem with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let encoding = match bytes {
            [0xff, 0xfe, ..] => Encoding::Utf16Le,
            [0xfe, 0xff, ..] => Encoding::Utf16Be,
            [0xef, 0xbb, 0xbf, ..] => Encoding::Utf8WithMark,
            _ => Encoding::Utf8,
        };
        let text = super::text::decode(bytes)?;
        Ok(Self { text, encoding })
    }

    /// Returns the bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let utf16 = |unit: fn(u16) -> [u8; 2]| {
            let marked = std::iter::once(0xfeff).chain(self.text.encode_utf16());
            marked.flat_map(unit).collect()
        };
        match self.encoding {
            Encoding::Utf8 => self.text.clone().into_bytes(),
            Encoding::Utf8WithMark => [b"\xef\xbb\xbf", self.text.as_bytes()].concat(),
            Encoding::Utf16Le => utf16(u16::to_le_bytes),
            Encoding::Utf16Be => utf16(u16::to_be_bytes),
        }
    }
}

impl Default for FileText {
    fn default() -> Self {
        Self {
            text: String::new(),
            encoding: Encoding::Utf8,
        }
    }
}

/// Gives the lines of `after` the ends that they have in `before`. TOML's own editor ends every line with LF.
fn with_line_ends(before: &str, after: &str) -> String {
    if !before.contains('\r') {
        return after.to_owned();
    }
    let bare = |line: &str| line.trim_end_matches(['\r', '\n']).to_owned();
    let old: Vec<&str> = before.split_inclusive('\n').collect();
    let new: Vec<&str> = after.split_inclusive('\n').collect();
    let is_same = |(old, new): &(&&str, &&str)| bare(old) == bare(new);
    let above = old.iter().zip(&new).take_while(is_same).count();
    let below = (old[above..].iter().rev().zip(new[above..].iter().rev()))
        .take_while(is_same)
        .count();
    let returns = old.iter().filter(|line| line.ends_with("\r\n")).count();
    let usual = if returns * 2 > old.len() { "\r\n" } else { "\n" };
    let mut text = String::with_capacity(after.len() + new.len());
    for (place, line) in new.iter().enumerate() {
        let from_end = new.len() - place;
        match (place < above, from_end <= below) {
            (true, _) => text.push_str(old[place]),
            (_, true) => text.push_str(old[old.len() - from_end]),
            _ => {
                text.push_str(line.trim_end_matches(['\r', '\n']));
                if line.ends_with('\n') {
                    text.push_str(usual);
                }
            }
        }
    }
    text
}

/// Returns the sources in the list, except those that cannot be parsed.
pub fn sources(text: &str) -> Result<Vec<(PlatformName, SourceAddress)>, EditError> {
    Ok(read(&parse(text)?)?.into_iter().flatten().collect())
}

/// Returns `text` with `entry` at the end of the list, or `None` when it is there already.
pub fn add(text: &str, entry: &SourceEntry) -> Result<Option<String>, EditError> {
    let mut document = parse(text)?;
    let known = read(&document)?;
    let is_there = known.iter().flatten();
    if is_there
        .into_iter()
        .any(|(platform, address)| entry.is_at(*platform, address))
    {
        return Ok(None);
    }
    // In a file of comments alone they are what follows the last table; the new one belongs below them.
    let is_bare = document.is_empty();
    let mut above = String::new();
    if is_bare && !text.trim().is_empty() {
        document
            .trailing()
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut above);
        if above.is_empty() {
            text.clone_into(&mut above);
        }
        document.set_trailing("");
        above = above.replace('\r', "");
        if !above.ends_with('\n') {
            above.push('\n');
        }
    }
    let list = document
        .entry("source")
        .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    match list {
        Item::ArrayOfTables(tables) => {
            let mut table = Table::new();
            for (field, value) in entry.fields() {
                table.insert(field, Item::Value(value));
            }
            if !text.trim().is_empty() {
                table.decor_mut().set_prefix(format!("{above}\n"));
            }
            tables.push(table);
        }
        Item::Value(Value::Array(array)) => {
            let mut table = InlineTable::new();
            for (field, value) in entry.fields() {
                table.insert(field, value);
            }
            array.push(table);
        }
        _ => return Err(EditError::NotAList),
    }
    Ok(Some(with_line_ends(text, &document.to_string())))
}

/// Returns `text` without the sources for which `is_meant` holds, and how many these were.
pub fn remove(
    text: &str,
    is_meant: impl Fn(PlatformName, &SourceAddress) -> bool,
) -> Result<(String, usize), EditError> {
    let mut document = parse(text)?;
    let meant: Vec<usize> = read(&document)?
        .iter()
        .enumerate()
        .filter(|(_, entry)| {
            entry
                .as_ref()
                .is_some_and(|(platform, address)| is_meant(*platform, address))
        })
        .map(|(index, _)| index)
        .collect();
    for index in meant.iter().rev() {
        match document.get_mut("source") {
            Some(Item::ArrayOfTables(tables)) => {
                let left = tables
                    .get(*index)
                    .map(|table| comments(table.decor()))
                    .unwrap_or_default();
                tables.remove(*index);
                if left.is_empty() {
                    continue;
                }
                if let Some(next) = tables.get_mut(*index) {
                    let prefix = next.decor().prefix().and_then(|prefix| prefix.as_str());
                    let prefix = above(&left, prefix.unwrap_or_default());
                    next.decor_mut().set_prefix(prefix);
                } else {
                    let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
                    document.set_trailing(above(&left, &trailing));
                }
            }
            Some(Item::Value(Value::Array(array))) => {
                let left = comments(array.remove(*index).decor());
                if left.is_empty() {
                    continue;
                }
                if let Some(next) = array.get_mut(*index) {
                    let prefix = next.decor().prefix().and_then(|prefix| prefix.as_str());
                    let prefix = format!("{left}{}", prefix.unwrap_or_default());
                    next.decor_mut().set_prefix(prefix);
                } else {
                    let trailing = array.trailing().as_str().unwrap_or_default();
                    array.set_trailing(format!("{left}{trailing}"));
                }
            }
            _ => {}
        }
    }
    Ok((with_line_ends(text, &document.to_string()), meant.len()))
}

/// Returns the comments above a source, which stay when it is removed: they may be about the whole list, and what a person has
/// written cannot be restored.
fn comments(decor: &toml_edit::Decor) -> String {
    let prefix = decor.prefix().and_then(|prefix| prefix.as_str());
    prefix
        .filter(|prefix| prefix.contains('#'))
        .unwrap_or_default()
        .to_owned()
}

/// Returns `rest` below comments, separated so that they do not seem to be about what follows.
fn above(comments: &str, rest: &str) -> String {
    let separator = if rest.is_empty() || rest.starts_with(['\n', '\r']) {
        ""
    } else {
        "\n"
    };
    format!("{comments}{separator}{rest}")
}

fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse()
        .map_err(|error: toml_edit::TomlError| EditError::NotToml(error.message().to_owned()))
}

/// Returns platform and address of each source in the list, `None` for one that cannot be parsed.
fn read(document: &DocumentMut) -> Result<Vec<Option<(PlatformName, SourceAddress)>>, EditError> {
    let text = |value: Option<&Value>| match value? {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        _ => None,
    };
    let entry = |field: &dyn Fn(&str) -> Option<String>| {
        let platform = field("platform").map(|platform| platform.parse().ok());
        match (platform, field("id"), field("login").or_else(|| field("slug"))) {
            // Not a platform, or nothing that names a source.
            (Some(None), ..) | (_, None, None) => None,
            (platform, Some(id), _) => addressed(platform.flatten(), &id).ok(),
            (Some(Some(platform)), None, Some(name)) if platform.rules().names.is_some() => {
                Some((platform, channel(platform, &name).ok()?))
            }
            (platform, None, Some(name)) => addressed(platform.flatten(), &name).ok(),
        }
    };
    match document.get("source") {
        None => Ok(Vec::new()),
        Some(Item::ArrayOfTables(tables)) => Ok(tables
            .iter()
            .map(|table| entry(&|field| text(table.get(field).and_then(Item::as_value))))
            .collect()),
        Some(Item::Value(Value::Array(array))) => Ok(array
            .iter()
            .map(|value| entry(&|field| text(value.as_inline_table()?.get(field))))
            .collect()),
        Some(_) => Err(EditError::NotAList),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::SourceKey;

    const FILE: &str = "# of our bot\n[store]\nurl = \"sqlite\" # here\n\n# Sources\n\n# the main channel\n[[source]]\nplatform = \
                        \"twitch\"\nid = \"1\"\n\n# the other\n[[source]]\nplatform = \"kick\"\nslug = \"Big-Rat\" # her\n\n# \
                        the end\n";

    fn entry(text: &str) -> SourceEntry {
        let (platform, rest) = text.split_once(':').unwrap();
        let platform = platform.parse().unwrap();
        let address = match SourceKey::new(platform, rest) {
            Ok(key) => SourceAddress::Id(key),
            Err(_) => SourceAddress::Name(rest.to_owned()),
        };
        SourceEntry {
            platform,
            address,
            priority: 0,
            channels: Vec::new(),
        }
    }

    #[test]
    fn added_source_leaves_comments_and_layout_alone() {
        let added = add(FILE, &entry("twitch:pixelmeadow")).unwrap().unwrap();
        let start = FILE.trim_end_matches("\n# the end\n");
        assert!(added.starts_with(start), "{added}");
        assert!(
            added.contains("\n[[source]]\nplatform = \"twitch\"\nlogin = \"pixelmeadow\"\n"),
            "{added}"
        );
        assert!(added.contains("# the end"), "{added}");
    }

    #[test]
    fn added_source_of_an_empty_file_is_all_there_is() {
        let guild = SourceEntry {
            priority: 5,
            channels: vec!["7".to_owned(), "8".to_owned()],
            ..entry("discord:55")
        };
        assert_eq!(
            add("", &guild).unwrap().unwrap(),
            "[[source]]\nplatform = \"discord\"\nid = \"55\"\npriority = 5\nchannels = [\"7\", \"8\"]\n"
        );
    }

    #[test]
    fn source_that_is_there_already_is_not_added_again() {
        for known in ["twitch:1", "kick:big-rat"] {
            assert_eq!(add(FILE, &entry(known)).unwrap(), None, "{known}");
        }
        for (file, known) in [
            ("[[source]]\nid = \"twitch:1\"\n", "twitch:1"),
            (
                "[[source]]\nplatform = \"kick\"\nid = \"https://kick.com/Big-Rat\"\n",
                "kick:big-rat",
            ),
            (
                "[[source]]\nplatform = \"twitch\"\nlogin = \"twitch.tv/Rat\"\n",
                "twitch:rat",
            ),
        ] {
            assert_eq!(add(file, &entry(known)).unwrap(), None, "{file}");
        }
    }

    #[test]
    fn comments_above_a_removed_source_stay() {
        let meant = entry("twitch:1");
        let (left, count) = remove(FILE, |platform, address| meant.is_at(platform, address)).unwrap();
        assert_eq!(count, 1);
        assert!(!left.contains("id = \"1\""), "{left}");
        assert!(
            left.contains("# the main channel\n\n# the other\n[[source]]"),
            "{left}"
        );
        for kept in [
            "# of our bot",
            "# here",
            "# Sources",
            "# the other",
            "# her",
            "# the end",
        ] {
            assert!(left.contains(kept), "{kept}: {left}");
        }
        let (none, count) = remove(&left, |_, _| true).unwrap();
        assert_eq!((count, none.contains("[[source]]")), (1, false));
        assert!(
            none.ends_with("# Sources\n\n# the main channel\n\n# the other\n\n# the end\n"),
            "{none}"
        );
        let inline =
            "source = [\n  # all of them\n  { id = \"twitch:1\" },\n  { id = \"twitch:2\" }, # last\n]\n";
        for (id, expected) in [
            (
                "twitch:1",
                "source = [\n  # all of them\n  \n  { id = \"twitch:2\" }, # last\n]\n",
            ),
            (
                "twitch:2",
                "source = [\n  # all of them\n  { id = \"twitch:1\" }, # last\n]\n",
            ),
        ] {
            let meant = entry(id);
            let (left, _) = remove(inline, |platform, address| meant.is_at(platform, address)).unwrap();
            assert_eq!(left, expected);
        }
        assert_eq!(remove(FILE, |_, _| false).unwrap(), (FILE.to_owned(), 0));
    }

    #[test]
    fn source_added_to_a_file_of_comments_stands_below_them() {
        for comments in ["# of our bot\n", "# of our bot", "\n# of our bot\n# [store]\n\n"] {
            let added = add(comments, &entry("twitch:1")).unwrap().unwrap();
            let expected = "\n[[source]]\nplatform = \"twitch\"\nid = \"1\"\n";
            assert!(added.starts_with(comments.trim_end()), "{added}");
            assert!(added.ends_with(expected), "{added}");
            // And the next one below that.
            let more = add(&added, &entry("kick:2")).unwrap().unwrap();
            assert!(more.starts_with(&added), "{more}");
        }
    }

    #[test]
    fn line_ends_and_byte_order_mark_of_a_file_stay() {
        let windows = FILE.replace('\n', "\r\n");
        let added = add(&windows, &entry("twitch:pixelmeadow")).unwrap().unwrap();
        assert!(!added.replace("\r\n", "").contains('\n'), "{added:?}");
        assert_eq!(
            added.replace("\r\n", "\n"),
            add(FILE, &entry("twitch:pixelmeadow")).unwrap().unwrap()
        );
        let (left, _) = remove(&windows, |platform, _| platform == PlatformName::Kick).unwrap();
        assert!(!left.replace("\r\n", "").contains('\n'), "{left:?}");
        assert_eq!(remove(&windows, |_, _| false).unwrap().0, windows);
        // Mixed ones stay as they are, line by line.
        let mixed = FILE.replacen('\n', "\r\n", 2);
        let added = add(&mixed, &entry("twitch:pixelmeadow")).unwrap().unwrap();
        assert_eq!(added.matches("\r\n").count(), 2, "{added:?}");

        let utf16: Vec<u8> = "\u{feff}# \u{1f600}\r\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for bytes in [&b"\xef\xbb\xbf# a\r\n"[..], b"# a\n", b"", &utf16] {
            let file = FileText::decode(bytes).unwrap();
            assert!(!file.text.starts_with('\u{feff}'), "{bytes:?}");
            assert_eq!(file.encode(), bytes);
        }
    }

    #[test]
    fn list_of_inline_tables_is_changed_in_place() {
        let file = "source = [{ platform = \"twitch\", id = 1 }] # all\n";
        let added = add(file, &entry("kick:rat")).unwrap().unwrap();
        assert!(
            added.contains("slug = \"rat\"") && added.contains("# all"),
            "{added}"
        );
        let (left, count) = remove(&added, |platform, _| platform == PlatformName::Twitch).unwrap();
        assert_eq!((count, left.contains("id = 1")), (1, false));
    }

    #[test]
    fn file_that_is_not_understood_is_not_changed() {
        for file in ["= 1", "source = 1", "[source]\nid = 1\n"] {
            assert!(add(file, &entry("twitch:1")).is_err(), "{file}");
        }
    }
}
