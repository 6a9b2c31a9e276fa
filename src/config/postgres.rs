//! `[store]`, as far as it is about PostgreSQL: how to connect, log in and name the schema.

use secrecy::{ExposeSecret as _, SecretString};

use super::key::Key;
use super::reader::{Reader, clip};
use crate::secrets::without_credentials;
use crate::store::postgres::{PostgresAddress, TlsMode};

const DATABASE_URL: Key = Key::new(
    "store.database_url",
    "The platform's own address of its database; `postgres` stands for it.",
)
.named(&["DATABASE_URL"])
.secret()
.shared();
const PASSWORD: Key = Key::new(
    "store.password",
    "Password of the user at PostgreSQL, where the address has none.",
)
.named(&["PGPASSWORD"])
.secret()
.shared();
const TLS: Key = Key::new(
    "store.tls",
    "verify | insecure | off, for PostgreSQL. Default: sslmode of the address, else verify; off on this machine.",
)
.such_as("verify");
const SCHEMA: Key = Key::new(
    "store.schema",
    "Schema of the tables in PostgreSQL; made when it is missing.",
)
.or("bitbrat");
const POOLER: Key = Key::new(
    "store.pooler",
    "Whether a pooler in transaction mode (PgBouncer) is between here and PostgreSQL.",
)
.or("false");
const PLATFORM_SOURCES: Key = Key::new(
    "store.platform_sources",
    "Whether the platform's own table, public.sources, is kept up to date from ours in PostgreSQL.",
)
.or("false");
const CONNECTIONS: Key = Key::new(
    "store.connections",
    "Maximum number of connections to PostgreSQL.",
)
.named(&["POSTGRES_POOL_SIZE"])
.shared()
.or("4");

pub(super) const KEYS: &[Key] = &[
    DATABASE_URL,
    PASSWORD,
    TLS,
    SCHEMA,
    POOLER,
    PLATFORM_SOURCES,
    CONNECTIONS,
];

/// Longest name of a schema: names of channels and indexes are made from it, and PostgreSQL cuts them at 63 bytes.
const MAX_SCHEMA: usize = 40;

/// What addresses of PostgreSQL do not contain.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// The address that `postgres` stands for.
    pub database_url: Option<SecretString>,
    /// Password where the address has none.
    pub password: Option<SecretString>,
    /// Replaces what the address says about encryption.
    pub tls: Option<TlsMode>,
    /// Schema of our tables.
    pub schema: String,
    /// Whether a pooler in transaction mode is in between.
    pub pooler: bool,
    /// Whether the platform's own table is kept up to date.
    pub platform_sources: bool,
    /// Maximum number of connections.
    pub connections: usize,
}

pub(super) fn read(reader: &mut Reader<'_>) -> PostgresSettings {
    let schema = reader.made(&SCHEMA, |text| match is_schema(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{}` is not the name of a schema: at most {MAX_SCHEMA} of a-z, 0-9 and _, not beginning with pg_",
            clip(text)
        )),
    });
    let connections = reader.number(&CONNECTIONS, 1..=100).unwrap_or(4);
    PostgresSettings {
        database_url: reader.password(&DATABASE_URL),
        password: reader.password(&PASSWORD),
        tls: reader
            .plain(&TLS, "verify, insecure or off")
            .map(|found| found.value),
        schema: schema.map_or_else(|| "bitbrat".to_owned(), |found| found.value),
        pooler: reader.switch(&POOLER),
        platform_sources: reader.switch(&PLATFORM_SOURCES),
        connections: usize::try_from(connections).unwrap_or(4),
    }
}

fn is_schema(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty()
        && text.len() <= MAX_SCHEMA
        && text.bytes().all(is_plain)
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.starts_with("pg_")
}

impl PostgresSettings {
    /// Parses an address, or the word for the platform's own. The error contains the problem and what to do.
    pub(super) fn address(&self, url: &str) -> Result<PostgresAddress, (String, &'static str)> {
        const HINT: &str = "write postgres://HOST:PORT/DATABASE, and give the password in PGPASSWORD";
        let is_own = url != "postgres";
        let url = match (is_own, &self.database_url) {
            (true, _) => url,
            (false, Some(url)) => url.expose_secret(),
            (false, None) => {
                return Err((
                    "`postgres` alone means the configured database, and none is configured".to_owned(),
                    "write postgres://HOST:PORT/DATABASE, with the user in front of the host, or set DATABASE_URL",
                ));
            }
        };
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            let shown = match is_own {
                true => format!("`{}`", clip(&without_credentials(url))),
                false => "DATABASE_URL".to_owned(),
            };
            return Err((format!("{shown} is not an address of PostgreSQL"), HINT));
        }
        let mut address = PostgresAddress::parse(url).map_err(|reason| {
            let shown = match is_own {
                true => format!("`{}`", clip(&without_credentials(url))),
                false => "DATABASE_URL".to_owned(),
            };
            (format!("{shown} cannot be used: {reason}"), HINT)
        })?;
        if let (false, Some(password)) = (address.has_password(), &self.password) {
            address = address.with_password(password.expose_secret());
        }
        if let Some(tls) = self.tls {
            address.tls = tls;
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> PostgresSettings {
        PostgresSettings {
            database_url: None,
            password: None,
            tls: None,
            schema: "bitbrat".to_owned(),
            pooler: false,
            platform_sources: false,
            connections: 4,
        }
    }

    #[test]
    fn platforms_own_address_is_used_by_name() {
        let url = "postgresql://brat:hunter2@db:5432/bitbrat";
        let with_url = PostgresSettings {
            database_url: Some(url.to_owned().into()),
            ..settings()
        };
        let address = with_url.address("postgres").unwrap();
        assert_eq!(address.to_string(), "postgres:db:5432/bitbrat");
        let (_, hint) = settings().address("postgres").unwrap_err();
        assert!(hint.contains("DATABASE_URL"));
    }

    #[test]
    fn password_outside_of_the_address_is_used_where_it_has_none() {
        let with_password = PostgresSettings {
            password: Some("hunter2".to_owned().into()),
            ..settings()
        };
        for (url, password) in [
            ("postgres://brat@db/x", "hunter2"),
            ("postgres://brat:other@db/x", "other"),
        ] {
            let address = with_password.address(url).unwrap();
            assert_eq!(address, settings().address(url).unwrap().with_password(password));
        }
    }

    #[test]
    fn tls_setting_overrides_the_address() {
        let off = PostgresSettings {
            tls: Some(TlsMode::Off),
            ..settings()
        };
        assert_eq!(
            off.address("postgres://brat@db/x?sslmode=require").unwrap().tls,
            TlsMode::Off
        );
    }

    #[test]
    fn schema_has_a_plain_name() {
        for (name, accepted) in [
            ("bitbrat", true),
            ("brat_2", true),
            ("2brat", false),
            ("pg_brat", false),
            ("Brat", false),
            ("brat\"; DROP", false),
            ("", false),
        ] {
            assert_eq!(is_schema(name), accepted, "{name}");
        }
    }

    #[test]
    fn password_is_not_in_the_message_about_an_address() {
        for url in [
            "postgres:brat:hunter2@db/x",
            "postgres://brat:hunter2@db/x?sslmode=maybe",
            "postgres://brat:hunter2",
        ] {
            let (message, _) = settings().address(url).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
