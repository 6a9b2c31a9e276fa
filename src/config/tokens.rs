//! `[tokens]`: where tokens are stored.

use std::path::{Path, PathBuf};

use super::file_path;
use super::google::GoogleSettings;
use super::key::Key;
use super::postgres::PostgresSettings;
use super::reader::{Reader, clip};
use super::store::StoreTarget;
use crate::store::postgres::PostgresAddress;

const URL: Key = Key::new(
    "tokens.url",
    "file[:PATH] | keyring[:NAME] | firestore[:PROJECT[/DATABASE]] | postgres[://HOST/DATABASE]: our own, or the platform's.",
)
.or("file");
const BOT_PATH: Key = Key::new(
    "tokens.bot_path",
    "The platform's name for the Twitch bot's token: its document in Firestore without `/token`.",
)
.named(&["TOKEN_DOC_PATH"])
.or("oauth/twitch/bot");
const BROADCASTER_PATH: Key = Key::new(
    "tokens.broadcaster_path",
    "The platform's name for the broadcaster's token: its document in Firestore without `/token`.",
)
.named(&["BROADCASTER_TOKEN_DOC_PATH"])
.or("oauth/twitch/broadcaster");
const REFRESH: Key = Key::new(
    "tokens.refresh",
    "Whether bitbrat refreshes and replaces the platform's tokens; leave it to the platform where it runs.",
)
.or("false");

pub(super) const KEYS: &[Key] = &[URL, BOT_PATH, BROADCASTER_PATH, REFRESH];

/// The name of the entries in a keyring.
const KEYRING: &str = "bitbrat";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenTarget {
    /// A file that only its owner can read.
    File(PathBuf),
    /// The keyring of the desktop, in which the entries have this name.
    Keyring(String),
    /// The platform's documents in Firestore.
    Firestore { project: String, database: String },
    /// The platform's tables in PostgreSQL.
    Postgres(Box<PostgresAddress>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    pub target: TokenTarget,
    /// The token file of this machine, which has the accounts that the platform has no document for.
    pub file: PathBuf,
    /// Document of the Twitch bot's token.
    pub bot_path: String,
    /// Document of the broadcaster's token.
    pub broadcaster_path: String,
    /// Whether tokens of the platform are refreshed and replaced by bitbrat.
    pub refresh: bool,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    state_dir: &Path,
    google: &GoogleSettings,
    postgres: &PostgresSettings,
) -> TokenSettings {
    let file = state_dir.join("tokens.json");
    let target = reader.made(&URL, |text| match text.split_once(':') {
        None if text == "file" => Ok(TokenTarget::File(file.clone())),
        Some(("file", path)) if !path.is_empty() => {
            file_path::check(path)?;
            Ok(TokenTarget::File(path.strip_prefix("//").unwrap_or(path).into()))
        }
        None if text == "keyring" => Ok(TokenTarget::Keyring(KEYRING.to_owned())),
        Some(("keyring", "")) => Ok(TokenTarget::Keyring(KEYRING.to_owned())),
        Some(("keyring", name)) => super::word(name).map(TokenTarget::Keyring),
        _ if text.starts_with("firestore") || text.starts_with("postgres") => {
            match super::store::target(text, state_dir, google, postgres) {
                Ok(StoreTarget::Firestore { project, database }) => {
                    Ok(TokenTarget::Firestore { project, database })
                }
                Ok(StoreTarget::Postgres(address)) => Ok(TokenTarget::Postgres(address)),
                Ok(_) => Err(format!("`{}` is not a token store", clip(text))),
                Err((message, hint)) => Err(format!("{message}; {hint}")),
            }
        }
        _ => Err(format!(
            "`{}` is not a token store; write file, file:PATH, keyring, firestore:PROJECT or postgres://HOST/DATABASE",
            clip(text)
        )),
    });
    let mut document = |key: &Key| reader.text(key).map(|found| found.value).unwrap_or_default();
    let (bot_path, broadcaster_path) = (document(&BOT_PATH), document(&BROADCASTER_PATH));
    TokenSettings {
        target: target.map_or_else(|| TokenTarget::File(file.clone()), |found| found.value),
        file,
        bot_path,
        broadcaster_path,
        refresh: reader.switch(&REFRESH),
    }
}
