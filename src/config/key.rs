//! A setting: its names, its default, its description.

use super::file_path;
use crate::secrets;

#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path in `bitbrat.toml`, for example `store.url`.
    pub path: &'static str,
    /// Its default as it would be written; `None` when there is none or it depends on something else.
    pub default: Option<&'static str>,
    /// Environment variables that the rest of the platform uses for it, in order of precedence.
    pub names: &'static [&'static str],
    /// Whether it is a secret: then it is taken from the environment, a credential or `.env` only.
    pub secret: bool,
    /// Whether it is a list, separated by spaces or commas.
    pub list: bool,
    /// Whether it is left out of files, which have a better form for it.
    pub environment_only: bool,
    /// Whether other programs read the same variables, with values of their own: one that cannot be read is a warning then.
    pub shared: bool,
    /// Whether it is the path of a file or directory.
    pub(super) file: bool,
    /// How a value is shown that may contain credentials of several servers.
    pub(super) show: Option<fn(&str) -> String>,
    /// The key that counts where a value of this one cannot be used.
    pub(super) overrides: Option<&'static str>,
    /// What follows where a value cannot be used and nothing else is set.
    pub(super) otherwise: &'static str,
    /// Description, in one sentence.
    pub help: &'static str,
    /// An example value, where there is no default.
    pub example: &'static str,
}

impl Key {
    pub(crate) const fn new(path: &'static str, help: &'static str) -> Self {
        Self {
            path,
            default: None,
            names: &[],
            secret: false,
            list: false,
            environment_only: false,
            shared: false,
            file: false,
            show: None,
            overrides: None,
            otherwise: "it does not count",
            help,
            example: "",
        }
    }

    pub(crate) const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// Sets the names that the platform uses.
    pub(crate) const fn named(mut self, names: &'static [&'static str]) -> Self {
        self.names = names;
        self
    }

    pub(crate) const fn such_as(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    pub(crate) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Marks a setting whose variables other programs read too.
    pub(crate) const fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Marks the path of a file or directory.
    pub(crate) const fn file(mut self) -> Self {
        self.file = true;
        self
    }

    /// Sets how a value that names servers is shown.
    pub(super) const fn shown_by(mut self, show: fn(&str) -> String) -> Self {
        self.show = Some(show);
        self
    }

    /// Sets the key that counts where a value of this one cannot be used.
    pub(super) const fn overriding(mut self, other: &'static str) -> Self {
        self.overrides = Some(other);
        self
    }

    /// Sets what follows where a value cannot be used and nothing else is set.
    pub(super) const fn otherwise(mut self, consequence: &'static str) -> Self {
        self.otherwise = consequence;
        self
    }

    /// Marks a setting that files have a better form for.
    pub(crate) const fn environment_only(mut self) -> Self {
        self.environment_only = true;
        self
    }

    pub(crate) const fn list(mut self) -> Self {
        self.list = true;
        self
    }

    /// Returns its own environment variable: `BITBRAT_`, upper snake case, two underscores between levels.
    pub fn variable(&self) -> String {
        format!("BITBRAT_{}", self.path.replace('.', "__").to_uppercase())
    }

    /// Returns every environment variable that sets it, in order of precedence.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.variable()).chain(self.names.iter().map(|name| (*name).to_owned()))
    }

    /// Returns a value of it in the form in which it may be shown: without credentials, and without a secret in the wrong place.
    pub fn shown(&self, value: &str) -> String {
        // A client's id has the form of its secret, and is public.
        let is_public = self.name() == "client_id" && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // `platform:name`: a token may be in the place of either.
        let in_part = || self.list && value.split(':').any(secrets::is_credential);
        let is_secret = !is_public && (secrets::is_credential(value) || in_part());
        let is_text_of_file = self.file && file_path::check(value).is_err();
        if self.secret || secrets::is_nkey_seed(value) || is_secret || is_text_of_file {
            return secrets::MASK.to_owned();
        }
        match self.show {
            Some(show) => show(value),
            None => secrets::without_credentials(value).into_owned(),
        }
    }

    /// Returns the table of the TOML file that contains it; empty for the top level.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }
}
