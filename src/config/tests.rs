//! Configuration end to end: layers in, settings or problems out.

use super::*;
use crate::core::source::PlatformName;
use crate::platforms::Probe;
use secrecy::ExposeSecret;

const NOW: &str = "2026-05-01T18:00:00Z";

/// A directory with configuration files, and an environment.
struct Given {
    dir: tempfile::TempDir,
    inputs: Inputs,
}

impl Given {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inputs = Inputs {
            work_dir: dir.path().to_owned(),
            environment: BTreeMap::from([("HOME".to_owned(), "/home/rat".to_owned())]),
            ..Inputs::default()
        };
        Self { dir, inputs }
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn toml(self, text: &str) -> Self {
        self.file("bitbrat.toml", text)
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.inputs.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn load(&self) -> Configuration {
        load(&self.inputs, NOW.parse().unwrap())
    }

    fn settings(&self) -> Settings {
        self.load().checked().unwrap()
    }

    /// The problems, each on one line, with the directory cut out.
    fn problems(&self) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        self.load()
            .problems
            .iter()
            .map(|problem| problem.to_string().replace(&dir, ""))
            .collect()
    }
}

#[test]
fn an_empty_configuration_is_complete() {
    let settings = Given::new().settings();
    assert_eq!(
        settings.store.target,
        StoreTarget::Sqlite("/home/rat/.local/state/bitbrat/bitbrat.db".into())
    );
    assert_eq!(settings.bus.target, BusTarget::Local);
    assert_eq!(settings.web.listen.unwrap().to_string(), "127.0.0.1:8787");
    assert_eq!(
        settings.schedule.cron[&Probe::Connection].as_str(),
        "*/30 * * * * *"
    );
    assert_eq!(settings.twitch.helix_url.as_str(), "https://api.twitch.tv/helix");
    assert_eq!(settings.twitch.eventsub_rest_url, settings.twitch.helix_url);
    assert!(settings.sources.is_empty());
}

#[test]
fn what_is_closer_counts_more() {
    let mut given = Given::new()
        .file(
            "xdg/bitbrat/config.toml",
            "[store]\nurl = \"sqlite:own\"\n[watch]\ngrace = \"1s\"\noutbox = 1001\n",
        )
        .toml("[store]\nurl = \"sqlite:here\"\n[watch]\ngrace = \"2s\"\n[bus]\nprefix = \"toml.\"\n")
        .file(
            ".env",
            "BITBRAT_STORE__URL=sqlite:dotenv\nBUS_PREFIX=dotenv.\nLOG_LEVEL=debug\n",
        )
        .env("BITBRAT_STORE__URL", "sqlite:env");
    given.inputs.environment.insert(
        "XDG_CONFIG_HOME".into(),
        given.dir.path().join("xdg").display().to_string(),
    );
    let settings = given.settings();
    assert_eq!(settings.store.target, StoreTarget::Sqlite("env".into()));
    assert_eq!(settings.bus.prefix, "dotenv.");
    assert_eq!(settings.watch.grace.as_secs(), 2);
    assert_eq!(settings.watch.outbox, 1001);
    given.inputs = given.inputs.flag("store.url", "sqlite:flag", "--store");
    let configuration = given.load();
    assert_eq!(
        configuration.settings.store.target,
        StoreTarget::Sqlite("flag".into())
    );
    let origin = |path: &str| {
        let found = configuration.resolved.iter().find(|found| found.key == path);
        found.unwrap().origin.clone()
    };
    assert_eq!(origin("store.url"), Origin::Flag("--store".into()));
    assert_eq!(
        origin("bus.prefix"),
        Origin::EnvFile(given.dir.path().join(".env"), "BUS_PREFIX".into())
    );
    assert_eq!(
        origin("watch.grace"),
        Origin::File(given.dir.path().join("bitbrat.toml"))
    );
    assert_eq!(origin("web.listen"), Origin::Default);
}

#[test]
fn our_own_name_counts_more_than_the_platforms_and_an_empty_one_does_not_count() {
    let settings = Given::new()
        .env("TWITCH_CLIENT_ID", "platform")
        .env("BITBRAT_TWITCH__CLIENT_ID", "own")
        .env("KICK_CLIENT_ID", "kick")
        .env("BITBRAT_KICK__CLIENT_ID", "")
        .settings();
    assert_eq!(settings.twitch.client_id.as_deref(), Some("own"));
    assert_eq!(settings.kick.client_id.as_deref(), Some("kick"));
}

#[test]
fn every_problem_is_told_at_once_with_its_place_and_key() {
    let given = Given::new()
        .toml(
            "[store]\nurl = \"postgres\"\ncolour = 1\n[schedule]\nstream = \"* * * * *\"\n\
             viewers = \"0 0 0 1 * MON\"\n[web]\nlisten = \"0.0.0.0:8787\"\n[twitch]\nhelix_url = \"api.twitch.tv\"\n\
             client_secret = \"hunter2\"\nclient_id = 5\n[watch]\noutbox = 10\n",
        )
        .env("BITBRAT_STORE_URL", "memory")
        .env("BITBRAT_BUS__HEARTBEAT", "10s")
        .env("LOG_LEVEL", "loud");
    let expected = [
        "$BITBRAT_STORE_URL: is not known",
        "bitbrat.toml: store.colour: is not known",
        "bitbrat.toml: store.url: `postgres` is not a store",
        "$BITBRAT_BUS__HEARTBEAT: 10s is not between 5m and 168h",
        "bitbrat.toml: schedule.stream: `* * * * *` has 5 fields; the first of our 6 fields is the second, so write \
         `0 * * * * *`",
        "bitbrat.toml: schedule.viewers: `0 0 0 1 * MON` sets both the day of the month and the day of the week, which \
         programs read differently; set one and leave the other `*`",
        "bitbrat.toml: watch.outbox: 10 is not between 1000 and 10000000",
        "bitbrat.toml: web.listen: 0.0.0.0:8787 can be reached from other machines, but there is no token",
        "bitbrat.toml: twitch.helix_url: `api.twitch.tv` is not an address (relative URL without a base)",
        "bitbrat.toml: twitch.client_id: expects text in quotes, not 5",
        "bitbrat.toml: twitch.client_secret: is a secret, and this file is not the place for it",
        "$LOG_LEVEL: `loud` is none of error, warn, info, debug, trace",
    ];
    assert_eq!(given.problems(), expected);
    let failure = crate::failure::Failure::from(given.load().checked().unwrap_err());
    assert_eq!(failure.exit.number(), 6);
    let text = failure.to_string();
    assert!(text.contains("did you mean `BITBRAT_STORE__URL`?"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_slip_in_a_key_is_answered_with_the_key_that_was_meant() {
    let configuration = Given::new()
        .toml("[stoer]\nurl = \"memory\"\n[[sources]]\nplatform = \"kick\"\n")
        .load();
    let mut hints: Vec<_> = configuration
        .problems
        .iter()
        .filter_map(|problem| problem.hint.clone())
        .collect();
    hints.sort();
    assert_eq!(
        hints,
        [
            "did you mean `store.url`?",
            "write each source under its own [[source]]"
        ]
    );
}

#[test]
fn a_malformed_line_spoils_the_env_file_without_showing_it() {
    let given = Given::new().file(
        ".env",
        "TWITCH_CLIENT_ID=abc\nTWITCH_CLIENT_SECRET=hunter2 and more\nLOG_LEVEL=debug\n",
    );
    let problems = given.problems();
    assert_eq!(
        problems,
        [".env: the line after TWITCH_CLIENT_ID is malformed, so nothing in this file counts"]
    );
    assert_eq!(given.load().settings.twitch.client_id, None);
}

#[test]
fn broken_toml_is_told_with_its_line_and_without_its_text() {
    let given = Given::new().toml("[store]\nurl = hunter2 hunter2\n");
    let problems = given.problems();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("bitbrat.toml: is not TOML: TOML parse error at line 2"),
        "{problems:?}"
    );
    assert!(!problems[0].contains("hunter2"), "{problems:?}");
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    let mut given = Given::new();
    given.inputs.config_file = Some("other.toml".into());
    given.inputs.env_file = Some("other.env".into());
    let problems = given.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("other.env: cannot be read"),
        "{problems:?}"
    );
    assert!(
        problems[1].starts_with("other.toml: cannot be read"),
        "{problems:?}"
    );
}

#[test]
fn secrets_come_from_the_environment_only_and_are_never_shown() {
    let given = Given::new()
        .env("TWITCH_BOT_ACCESS_TOKEN", "oauthtoken123")
        .env("NATS_URL", "nats://bot:hunter2@10.0.0.1:4222")
        .env("MESSAGE_BUS_DRIVER", "nats");
    let configuration = given.load();
    let text = show(&configuration) + &format!("{:?}", configuration.settings);
    assert!(
        !text.contains("oauthtoken123") && !text.contains("hunter2"),
        "{text}"
    );
    assert!(text.contains("***"));
    let token = configuration.settings.twitch.bot_access_token.unwrap();
    assert_eq!(token.expose_secret(), "oauthtoken123");
    let mut flagged = Given::new();
    flagged.inputs = flagged
        .inputs
        .flag("discord.bot_token", "t0ken", "--discord-token");
    assert_eq!(
        flagged.problems(),
        ["--discord-token: discord.bot_token: is a secret, and other users can read a command line"]
    );
}

#[test]
fn the_platforms_variables_select_store_and_bus() {
    for (variables, store, bus) in [
        (
            vec![
                ("PERSISTENCE_DRIVER", "firestore"),
                ("GCLOUD_PROJECT", "p1"),
                ("GOOGLE_CLOUD_PROJECT", "p2"),
            ],
            "firestore:p1/(default)",
            "local",
        ),
        (
            vec![
                ("MESSAGE_BUS_DRIVER", "pubsub"),
                ("GCLOUD_PROJECT", "p1"),
                ("GOOGLE_CLOUD_PROJECT", "p2"),
            ],
            "sqlite:/home/rat/.local/state/bitbrat/bitbrat.db",
            "pubsub:p2",
        ),
        (
            vec![
                ("MESSAGE_BUS_DRIVER", "nats"),
                ("NATS_URL", "nats://a:4222,nats://b:4222"),
            ],
            "sqlite:/home/rat/.local/state/bitbrat/bitbrat.db",
            "nats://a:4222,nats://b:4222",
        ),
        (
            vec![
                ("MESSAGE_BUS_DRIVER", "noop"),
                ("BITBRAT_STORE__URL", "firestore:x/y"),
            ],
            "firestore:x/y",
            "local",
        ),
    ] {
        let mut given = Given::new();
        for (name, value) in variables {
            given = given.env(name, value);
        }
        let settings = given.settings();
        assert_eq!(
            (
                settings.store.target.to_string().as_str(),
                settings.bus.target.to_string().as_str()
            ),
            (store, bus)
        );
    }
}

#[test]
fn stores_and_buses_of_the_wrong_shape_are_refused() {
    for (variable, value, problem) in [
        ("BITBRAT_STORE__URL", "firestore", "firestore needs a project"),
        ("BITBRAT_STORE__URL", "sqlite:", "`sqlite:` names no file"),
        ("BITBRAT_STORE__URL", "redis://x", "`redis://x` is not a store"),
        (
            "BITBRAT_BUS__URL",
            "pubsub",
            "pubsub needs a project: write pubsub:PROJECT, or set GOOGLE_CLOUD_PROJECT",
        ),
        ("BITBRAT_BUS__URL", "kafka", "`kafka` is not a bus"),
    ] {
        let problems = Given::new().env(variable, value).problems();
        assert_eq!(problems, [format!("${variable}: {problem}")]);
    }
    let problems = Given::new()
        .env("BITBRAT_BUS__URL", "nats")
        .env("BUS_PREFIX", "staging-")
        .problems();
    assert_eq!(
        problems,
        ["$BUS_PREFIX: `staging-` does not end in a dot, so NATS finds no stream for it"]
    );
}

#[test]
fn sources_come_from_the_file_and_the_platforms_variables_together() {
    let settings = Given::new()
        .toml(
            "[[source]]\nplatform = \"twitch\"\nid = 900200\npriority = 7\n\
             [[source]]\nplatform = \"twitch\"\nlogin = \"RatCaster\"\n\
             [[source]]\nplatform = \"kick\"\nslug = \"rat-caster\"\n\
             [[source]]\nplatform = \"discord\"\nid = \"987654321\"\nchannels = [\"11\"]\n",
        )
        .env("TWITCH_CHANNELS", "#ratcaster, catcaster")
        .env("DISCORD_GUILD_ID", "55")
        .env("DISCORD_CHANNELS", "1 2")
        .settings();
    let names: Vec<String> = settings.sources.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "twitch:900200",
            "twitch:ratcaster",
            "kick:rat-caster",
            "discord:987654321",
            "twitch:catcaster",
            "discord:55"
        ]
    );
    assert_eq!(settings.sources[0].priority, 7);
    assert_eq!(settings.sources[3].channels, ["11"]);
    assert_eq!(settings.sources[5].channels, ["1", "2"]);
    assert_eq!(by_platform(&settings.sources)[&PlatformName::Twitch], 3);
}

#[test]
fn a_list_in_the_environment_replaces_the_file() {
    let settings = Given::new()
        .toml("[[source]]\nplatform = \"twitch\"\nid = \"1\"\n")
        .env("BITBRAT_SOURCES", "kick:77 twitch:catcaster")
        .settings();
    let names: Vec<String> = settings.sources.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["kick:77", "twitch:catcaster"]);
}

#[test]
fn each_wrong_source_is_told_by_its_place() {
    let problems = Given::new()
        .toml(
            "[[source]]\nplatform = \"twitch\"\nid = \"1\"\n[[source]]\nplatform = \"twitch\"\nid = \"1\"\n\
             [[source]]\nid = \"1\"\n[[source]]\nplatform = \"myspace\"\nid = \"1\"\n\
             [[source]]\nplatform = \"twitch\"\nlogn = \"a\"\n[[source]]\nplatform = \"discord\"\nlogin = \"a\"\n\
             [[source]]\nplatform = \"kick\"\nslug = \"a b\"\n\
             [[source]]\nplatform = \"kick\"\nid = \"5\"\npriority = \"high\"\nchannels = [\"1\"]\n",
        )
        .problems();
    assert_eq!(
        problems,
        [
            "bitbrat.toml: source: `twitch:1` stands there twice",
            "bitbrat.toml: source #3: platform: is missing; use one of twitch, kick, discord",
            "bitbrat.toml: source #4: platform: `myspace` is not a platform; use one of twitch, kick, discord",
            "bitbrat.toml: source #5: logn: is not known",
            "bitbrat.toml: source #5: needs `id` or `login`",
            "bitbrat.toml: source #6: needs `id`",
            "bitbrat.toml: source #7: slug: `a b` cannot be a name on kick",
            "bitbrat.toml: source #8: priority: expects a whole number",
            "bitbrat.toml: source #8: channels: is for Discord only, not for kick",
        ]
    );
}

#[test]
fn a_schedule_that_never_fires_is_a_warning_and_off_is_off() {
    let configuration = Given::new()
        .toml("[schedule]\nauth = \"0 0 0 31 2 *\"\nviewers = \"off\"\n")
        .load();
    assert!(configuration.problems.is_empty());
    let warnings: Vec<String> = configuration.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings[0].ends_with("schedule.auth: `0 0 0 31 2 *` never fires"),
        "{warnings:?}"
    );
    assert!(!configuration.settings.schedule.cron.contains_key(&Probe::Viewers));
}

#[test]
fn a_demo_keeps_real_credentials_and_sources_apart_but_heeds_the_rest() {
    let mut given = Given::new()
        .toml("[[source]]\nplatform = \"twitch\"\nid = \"1\"\n[web]\nlisten = \"127.0.0.1:9999\"\n")
        .env("TWITCH_CLIENT_SECRET", "real")
        .env("TWITCH_CHANNELS", "ratcaster")
        .env("BITBRAT_BUS__URL", "nats://127.0.0.1:4222");
    given.inputs.demo = Some(Demo {
        platforms: vec![
            ("twitch.helix_url".into(), "http://127.0.0.1:1234/helix".into()),
            ("twitch.bot_access_token".into(), "demotoken".into()),
            ("sources".into(), "twitch:1001 kick:2001".into()),
        ],
        fallbacks: vec![("store.url".into(), "memory".into())],
    });
    let settings = given.settings();
    assert_eq!(settings.twitch.helix_url.as_str(), "http://127.0.0.1:1234/helix");
    assert!(settings.twitch.client_secret.is_none());
    assert_eq!(
        settings.twitch.bot_access_token.unwrap().expose_secret(),
        "demotoken"
    );
    assert_eq!(settings.sources.len(), 2);
    assert_eq!(settings.store.target, StoreTarget::Memory);
    assert_eq!(settings.bus.target.to_string(), "nats://127.0.0.1:4222");
    assert_eq!(settings.web.listen.unwrap().port(), 9999);
    given = given.env("BITBRAT_STORE__URL", "sqlite:mine.db");
    assert_eq!(
        given.settings().store.target,
        StoreTarget::Sqlite("mine.db".into())
    );
}

#[test]
fn loading_makes_nothing() {
    let given = Given::new();
    given.settings();
    assert_eq!(std::fs::read_dir(given.dir.path()).unwrap().count(), 0);
}

#[test]
fn init_writes_a_file_that_loads_to_the_defaults_and_never_overwrites() {
    let given = Given::new();
    let path = given.dir.path().join("bitbrat.toml");
    init(&path).unwrap();
    let fresh = Given::new();
    assert_eq!(
        format!("{:?}", given.settings()),
        format!("{:?}", fresh.settings())
    );
    std::fs::write(&path, "mine").unwrap();
    assert!(init(&path).unwrap_err().what.contains("is there already"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn every_line_of_the_template_can_be_switched_on() {
    let switched: String = toml_template()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let configuration = Given::new().toml(&switched).load();
    assert_eq!(Problems(configuration.problems).to_string(), "");
    assert_eq!(configuration.settings.sources.len(), 3);
}

#[test]
fn every_line_of_env_example_can_be_switched_on() {
    let switched: String = env_example()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && rest.contains('=') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let configuration = Given::new().file(".env", &switched).load();
    assert_eq!(Problems(configuration.problems).to_string(), "");
}

#[test]
fn the_shipped_env_example_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(path, env_example()).unwrap();
    }
    let shipped = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        shipped == env_example(),
        ".env.example differs from the table of keys; run this test with UPDATE_GENERATED=1"
    );
}
