//! End-to-end tests of the configuration: layers in, settings or problems out.

use super::*;
use crate::core::source::PlatformName;
use crate::platforms::Probe;
use secrecy::ExposeSecret;

const NOW: &str = "2026-05-01T18:00:00Z";

/// A directory with configuration files, and an environment.
struct Given {
    dir: tempfile::TempDir,
    inputs: ConfigInputs,
}

impl Given {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inputs = ConfigInputs {
            work_dir: dir.path().to_owned(),
            environment: BTreeMap::from([("HOME".to_owned(), "/home/rat".to_owned())]),
            ..ConfigInputs::default()
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
        settings.schedule.probes[&Probe::Connection].to_string(),
        "*/30 * * * * *"
    );
    assert_eq!(
        settings.platforms.twitch.helix_url.as_str(),
        "https://api.twitch.tv/helix"
    );
    assert_eq!(
        settings.platforms.twitch.eventsub_rest_url,
        settings.platforms.twitch.helix_url
    );
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
fn own_variable_overrides_platform_variable_unless_empty() {
    let settings = Given::new()
        .env("TWITCH_CLIENT_ID", "platform")
        .env("BITBRAT_TWITCH__CLIENT_ID", "own")
        .env("KICK_CLIENT_ID", "kick")
        .env("BITBRAT_KICK__CLIENT_ID", "")
        .settings();
    assert_eq!(settings.platforms.twitch.client_id.as_deref(), Some("own"));
    assert_eq!(settings.platforms.kick.client_id.as_deref(), Some("kick"));
}

#[test]
fn all_problems_are_reported_with_location_and_key() {
    let given = Given::new()
        .toml(
            "[store]\nurl = \"mysql\"\ncolour = 1\n[schedule]\nstream = \"* * * * *\"\n\
             viewers = \"0 0 0 1 * MON\"\n[web]\nlisten = \"0.0.0.0:8787\"\n[twitch]\nhelix_url = \"api.twitch.tv\"\n\
             client_secret = \"hunter2\"\nclient_id = 5\n[watch]\noutbox = 10\n",
        )
        .env("BITBRAT_STORE__ULR", "memory")
        .env("BITBRAT_BUS__HEARTBEAT", "10s")
        .env("BITBRAT_LOG__LEVEL", "loud");
    let expected = [
        "$BITBRAT_STORE__ULR: is not known",
        "bitbrat.toml: store.colour: is not known",
        "bitbrat.toml: store.url: `mysql` is not a store",
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
        "$BITBRAT_LOG__LEVEL: `loud` is none of error, warn, info, debug, trace",
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
fn configured_source_with_a_random_name_is_shown_in_messages() {
    let name = "wired_name_2024_abcde";
    assert_eq!(crate::secrets::repeated(name), crate::secrets::MASK);
    let given = Given::new().env("BITBRAT_SOURCES", &format!("twitch:{name}"));
    assert!(given.load().problems.is_empty());
    assert_eq!(crate::secrets::repeated(name), name);
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
        [".env: line 2 is malformed, so nothing in this file counts"]
    );
    assert_eq!(given.load().settings.platforms.twitch.client_id, None);
}

#[test]
fn toml_syntax_error_reports_line_but_not_content() {
    let given = Given::new().toml("[store]\nurl = hunter2 hunter2\n");
    let problems = given.problems();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("bitbrat.toml: is not TOML: TOML parse error at line 2"),
        "{problems:?}"
    );
    assert!(!problems[0].contains("hunter2"), "{problems:?}");
    let unclosed = Given::new().toml("[store]\nurl = \"sqlite:/x\n").problems();
    assert!(unclosed[0].contains("expected `\"`"), "{unclosed:?}");
}

#[test]
fn secrets_come_from_the_environment_only_and_are_never_shown() {
    let given = Given::new()
        .env("TWITCH_BOT_ACCESS_TOKEN", "oauthtoken123")
        .env("NATS_URL", "nats://bot:hunter2@10.0.0.1:4222")
        .env("MESSAGE_BUS_DRIVER", "nats");
    let configuration = given.load();
    let text = format!("{:?} {:?}", shown(&configuration), configuration.settings);
    assert!(
        !text.contains("oauthtoken123") && !text.contains("hunter2"),
        "{text}"
    );
    assert!(text.contains("***"));
    let token = configuration.settings.platforms.twitch.bot_access_token.unwrap();
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
        .env("BITBRAT_BUS__PREFIX", "staging-")
        .problems();
    assert_eq!(
        problems,
        ["$BITBRAT_BUS__PREFIX: `staging-` does not end in a dot, so NATS finds no stream for it"]
    );
}

#[test]
fn sources_merge_from_file_and_platform_variables() {
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
    let of_twitch = settings
        .sources
        .iter()
        .filter(|spec| spec.platform == PlatformName::Twitch);
    assert_eq!(of_twitch.count(), 3);
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
fn invalid_sources_are_reported_by_position() {
    let platforms = PlatformName::ALL.map(PlatformName::as_str).join(", ");
    let problems = Given::new()
        .toml(
            "[[source]]\nplatform = \"twitch\"\nid = \"1\"\n[[source]]\nplatform = \"twitch\"\nid = \"1\"\n\
             [[source]]\nid = \"1\"\n[[source]]\nplatform = \"myspace\"\nid = \"1\"\n\
             [[source]]\nplatform = \"twitch\"\nlogn = \"a\"\n[[source]]\nplatform = \"discord\"\npriority = 1\n\
             [[source]]\nplatform = \"kick\"\nslug = \"a b\"\n\
             [[source]]\nplatform = \"kick\"\nid = \"5\"\npriority = \"high\"\nchannels = [\"1\"]\n",
        )
        .problems();
    assert_eq!(
        problems,
        [
            "bitbrat.toml: source: `twitch:1` stands there twice",
            &format!("bitbrat.toml: source #3: platform: is missing; use one of {platforms}")[..],
            &format!(
                "bitbrat.toml: source #4: platform: `myspace` is not a platform; use one of {platforms}"
            ),
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
    assert!(
        !configuration
            .settings
            .schedule
            .probes
            .contains_key(&Probe::Viewers)
    );
}

#[test]
fn schedules_are_intervals_or_cron_expressions() {
    let settings = Given::new()
        .toml("[schedule]\nstream = \"90s\"\nauth = \"0 7 * * * *\"\n")
        .env("BITBRAT_SCHEDULE__VIEWERS", "5m")
        .settings();
    let interval = |probe| {
        settings
            .schedule
            .interval(probe, Timestamp::EPOCH)
            .unwrap()
            .as_secs()
    };
    assert_eq!(
        [Probe::Stream, Probe::Viewers, Probe::Auth].map(interval),
        [90, 300, 3_600]
    );
    for (text, expected) in [
        ("0s", "between 1s"),
        ("1.5m", "1m30s"),
        ("1x", "neither an interval"),
    ] {
        let configuration = Given::new()
            .toml(&format!("[schedule]\nstream = \"{text}\"\n"))
            .load();
        let problems = Problems(configuration.problems).to_string();
        assert!(
            problems.contains("schedule.stream") && problems.contains(expected),
            "{problems}"
        );
    }
}

#[test]
fn demo_ignores_only_real_credentials_and_sources() {
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
    assert_eq!(
        settings.platforms.twitch.helix_url.as_str(),
        "http://127.0.0.1:1234/helix"
    );
    assert!(settings.platforms.twitch.client_secret.is_none());
    assert_eq!(
        settings
            .platforms
            .twitch
            .bot_access_token
            .unwrap()
            .expose_secret(),
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
fn public_address_is_https_and_contains_no_password() {
    for (address, problem) in [
        ("http://bot.example.org", "is not an https address"),
        (
            "https://me:secret@bot.example.org",
            "contains a user name or password",
        ),
    ] {
        let given = Given::new().toml(&format!("web.public_url = \"{address}\""));
        let problems = given.problems();
        assert!(
            problems.iter().any(|found| found.contains(problem)),
            "{problems:?}"
        );
    }
}

#[test]
fn loading_makes_nothing() {
    let given = Given::new();
    given.settings();
    assert_eq!(std::fs::read_dir(given.dir.path()).unwrap().count(), 0);
}

#[test]
fn init_writes_loadable_defaults_and_never_overwrites() {
    let given = Given::new();
    let path = given.dir.path().join("bitbrat.toml");
    init(&path, &toml_template()).unwrap();
    let fresh = Given::new();
    assert_eq!(
        format!("{:?}", given.settings()),
        format!("{:?}", fresh.settings())
    );
    std::fs::write(&path, "mine").unwrap();
    assert!(init(&path, "").unwrap_err().what.contains("is there already"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn every_line_of_the_templates_can_be_switched_on() {
    for (template, sources) in [(toml_template(), 3), (short_template(), 1)] {
        let switched: String = template
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let configuration = Given::new().toml(&switched).load();
        assert_eq!(Problems(configuration.problems).to_string(), "");
        assert_eq!(configuration.settings.sources.len(), sources);
    }
    assert!((10..=14).contains(&short_template().lines().count()));
}

#[test]
fn composed_configuration_is_short_and_valid() {
    let entry = |platform, address| SourceEntry {
        platform,
        address,
        priority: 0,
        channels: Vec::new(),
    };
    let sources = [
        entry(
            PlatformName::Twitch,
            SourceAddress::Name("pixelmeadow".to_owned()),
        ),
        entry(
            PlatformName::Discord,
            SourceAddress::Id("discord:888001".parse().unwrap()),
        ),
    ];
    let text = compose(&[(PlatformName::Twitch, "abc\"d".to_owned())], &sources[..1]).unwrap();
    assert!(text.lines().count() <= 12, "{text}");
    assert!(
        text.contains("client_id = 'abc\"d'") || text.contains(r#"client_id = "abc\"d""#),
        "{text}"
    );
    let text = compose(&[(PlatformName::Twitch, "abcd".to_owned())], &sources).unwrap();
    let settings = Given::new().toml(&text).settings();
    assert_eq!(settings.platforms.twitch.client_id.as_deref(), Some("abcd"));
    assert_eq!(settings.sources.len(), 2);
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

/// The warnings, each on one line, with its hint.
fn warnings(configuration: &Configuration) -> Vec<String> {
    configuration.warnings.iter().map(Problem::with_hint).collect()
}

#[test]
fn variables_of_other_programs_never_stop_a_start() {
    const FOREIGN: &[(&str, &str)] = &[
        ("BITBRAT_PORT", "tcp://10.0.0.9:80"),
        ("BITBRAT_WEB_PORT", "tcp://10.0.0.9:80"),
        ("BITBRAT_WEB_PORT_80_TCP", "tcp://10.0.0.9:80"),
        ("BITBRAT_WEB_PORT_80_TCP_ADDR", "10.0.0.9"),
        ("BITBRAT_WEB_PORT_80_TCP_PORT", "80"),
        ("BITBRAT_WEB_PORT_80_TCP_PROTO", "tcp"),
        ("BITBRAT_WEB_SERVICE_HOST", "10.0.0.9"),
        ("BITBRAT_WEB_SERVICE_PORT", "80"),
        ("BITBRAT_STORE_SERVICE_PORT_HTTP", "80"),
        ("BITBRAT_STORE_NAME", "/app/store"),
        ("BITBRAT_STORE__URL_SERVICE_HOST", "10.0.0.9"),
        ("NATS_PORT", "tcp://10.0.0.8:4222"),
        ("BITBRAT_API_TOKEN", "s3cr3t"),
        ("BITBRAT_ENV", "production"),
    ];
    let given = FOREIGN
        .iter()
        .fold(Given::new(), |given, (name, value)| given.env(name, value));
    let lines: String = FOREIGN
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    for configuration in [given.load(), Given::new().file(".env", &lines).load()] {
        assert_eq!(configuration.problems, []);
        assert_eq!(configuration.warnings, []);
    }
}

#[test]
fn an_unknown_name_with_our_prefix_is_a_warning() {
    for (name, hint) in [
        ("BITBRAT_STORE_URL", "(did you mean `BITBRAT_STORE__URL`?)"),
        ("BITBRAT_SORCES", "(did you mean `BITBRAT_SOURCES`?)"),
        ("BITBRAT_WEB_PORT", "(did you mean"),
        ("BITBRAT_RELEASE_CHANNEL", "is not known to bitbrat"),
    ] {
        let line = format!("{name}=8080\n");
        for given in [Given::new().env(name, "8080"), Given::new().file(".env", &line)] {
            let configuration = given.load();
            assert_eq!(configuration.problems, [], "{name}");
            let warnings = warnings(&configuration);
            assert!(
                warnings.len() == 1 && warnings[0].contains(hint),
                "{name}: {warnings:?}"
            );
        }
    }
}

#[test]
fn a_slip_in_a_variable_of_our_own_form_stops_the_start() {
    for name in [
        "BITBRAT_STORE__ULR",
        "BITBRAT_TWICH__CLIENT_ID",
        "BITBRAT_WEB__TOKN",
    ] {
        let line = format!("{name}=x\n");
        for given in [Given::new().env(name, "x"), Given::new().file(".env", &line)] {
            assert_eq!(given.problems().len(), 1, "{name}");
        }
    }
}

#[test]
fn values_meant_for_other_programs_fall_back_to_the_default() {
    use tracing::level_filters::LevelFilter;
    for (value, level, doubtful) in [
        ("verbose", LevelFilter::DEBUG, false),
        ("WARN", LevelFilter::WARN, false),
        ("silly", LevelFilter::TRACE, false),
        ("30", LevelFilter::INFO, true),
        ("loud", LevelFilter::INFO, true),
    ] {
        let configuration = Given::new().env("LOG_LEVEL", value).load();
        assert_eq!(configuration.problems, [], "{value}");
        assert_eq!(configuration.settings.log.level, level, "{value}");
        assert_eq!(!configuration.warnings.is_empty(), doubtful, "{value}");
    }
    let configuration = Given::new()
        .env("RUST_LOG", "bitbrat=loud")
        .env("NATS_ACK_WAIT_SECONDS", "60s")
        .load();
    assert_eq!(configuration.problems, []);
    assert_eq!(configuration.warnings.len(), 2);
    assert_eq!(configuration.settings.bus.ack_wait.as_secs(), 60);
}

#[test]
fn foreign_values_are_warned_of_with_what_is_used_instead() {
    for (variables, said) in [
        (
            &[("MESSAGE_BUS_DRIVER", "kafka")][..],
            "bus.url = local, the default, is used instead",
        ),
        (
            &[("MESSAGE_BUS_DRIVER", "rabbitmq")],
            "bus.url = local, the default, is used instead",
        ),
        (
            &[("MESSAGE_BUS", "amqp://mq:5672")],
            "bus.url = local, the default, is used instead",
        ),
        (
            &[("MESSAGE_BUS_DRIVER", "pubsub")],
            "bus.url = local, the default, is used instead",
        ),
        (
            &[("MESSAGE_BUS_DRIVER", "kafka"), ("MESSAGE_BUS", "nats")],
            "bus.driver = nats from $MESSAGE_BUS is used instead",
        ),
        (
            &[("MESSAGE_BUS_DRIVER", "nats"), ("BUS_PREFIX", "dev")],
            "`dev.` is used instead",
        ),
        (&[("INSTANCE_ID", "a b")], "a name is generated instead"),
        (&[("INSTANCE_ID", "i/0123")], "a name is generated instead"),
        (
            &[("LOG_LEVEL", "loud")],
            "log.level = info, the default, is used instead",
        ),
        (
            &[("LOG_LEVEL", "loud"), ("BITBRAT_LOG__FILTER", "bitbrat=debug")],
            "log.level = info, the default, is used instead",
        ),
        (
            &[("RUST_LOG", "a=b=c")],
            "log.level = info, the default, is used instead",
        ),
        (
            &[("RUST_LOG", "a=b=c"), ("LOG_LEVEL", "debug")],
            "log.level = debug from $LOG_LEVEL is used instead",
        ),
        (
            &[("NATS_ACK_WAIT_SECONDS", "0")],
            "bus.ack_wait_seconds = 60, the default, is used instead",
        ),
        (
            &[("PERSISTENCE_DRIVER", "firestore")],
            "bitbrat.db is used instead",
        ),
        (
            &[("FIRESTORE_EMULATOR_HOST", "tcp://x")],
            "neither Firestore nor Pub/Sub is used",
        ),
    ] {
        let given = variables
            .iter()
            .fold(Given::new(), |given, (name, value)| given.env(name, value));
        let lines: String = variables
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\"\n"))
            .collect();
        for configuration in [given.load(), Given::new().file(".env", &lines).load()] {
            assert_eq!(configuration.problems, [], "{variables:?}");
            let warnings = warnings(&configuration);
            assert!(
                warnings.len() == 1 && warnings[0].replace("/.env", "").contains(said)
                    || warnings.len() == 1 && said.contains(" from $"),
                "{variables:?}: {warnings:?}"
            );
            assert!(!warnings[0].contains("(none)"), "{warnings:?}");
        }
    }
    // The file's value is next in order.
    let configuration = Given::new()
        .toml("[log]\nlevel = \"debug\"\n[watch]\ninstance = \"w1\"\n")
        .env("LOG_LEVEL", "loud")
        .env("INSTANCE_ID", "a b")
        .load();
    assert_eq!(configuration.problems, []);
    assert_eq!(
        configuration.settings.log.level,
        tracing::level_filters::LevelFilter::DEBUG
    );
    assert_eq!(configuration.settings.watch.instance.as_deref(), Some("w1"));
    // What is written as ours is still rejected.
    for (name, value) in [
        ("BITBRAT_BUS__DRIVER", "kafka"),
        ("BITBRAT_WATCH__INSTANCE", "a b"),
        ("BITBRAT_LOG__LEVEL", "loud"),
    ] {
        assert_eq!(Given::new().env(name, value).problems().len(), 1, "{name}");
    }
}

#[test]
fn sources_are_named_by_id_name_or_address_anywhere() {
    for (toml, name) in [
        ("platform = \"twitch\"\nid = \"777001\"", "twitch:777001"),
        ("platform = \"twitch\"\nid = 777001", "twitch:777001"),
        ("platform = \"twitch\"\nid = \"twitch:777001\"", "twitch:777001"),
        ("id = \"twitch:777001\"", "twitch:777001"),
        (
            "platform = \"twitch\"\nid = \"PixelMeadow\"",
            "twitch:pixelmeadow",
        ),
        (
            "platform = \"twitch\"\nid = \"https://www.twitch.tv/PixelMeadow\"",
            "twitch:pixelmeadow",
        ),
        ("id = \"https://www.twitch.tv/PixelMeadow\"", "twitch:pixelmeadow"),
        (
            "platform = \"twitch\"\nlogin = \"twitch.tv/PixelMeadow\"",
            "twitch:pixelmeadow",
        ),
        (
            "platform = \"twitch\"\nlogin = \"twitch:pixelmeadow\"",
            "twitch:pixelmeadow",
        ),
        ("login = \"twitch:pixelmeadow\"", "twitch:pixelmeadow"),
        ("platform = \"twitch\"\nlogin = \"1234\"", "twitch:1234"),
        (
            "platform = \"kick\"\nslug = \"https://kick.com/Big-Rat\"",
            "kick:big-rat",
        ),
        ("platform = \"kick\"\nid = \"big-rat\"", "kick:big-rat"),
        (
            "platform = \"discord\"\nid = \"https://discord.com/channels/55/66\"",
            "discord:55",
        ),
        (
            "platform = \"discord\"\nid = \"The Rat: Pack\"",
            "discord:the rat: pack",
        ),
    ] {
        let given = Given::new().toml(&format!("[[source]]\n{toml}\n"));
        let names: Vec<String> = given.settings().sources.iter().map(ToString::to_string).collect();
        assert_eq!(names, [name], "{toml}");
    }
    let given = Given::new()
        .env(
            "BITBRAT_SOURCES",
            "https://www.twitch.tv/PixelMeadow,kick.com/big-rat twitch:1 discord:5/6/7 https://discord.com/channels/8/9",
        )
        .env("TWITCH_CHANNELS", "#one https://twitch.tv/two")
        .env("KICK_CHANNELS", "https://kick.com/three")
        .env("DISCORD_GUILD_ID", "https://discord.com/channels/10/11")
        .env("DISCORD_CHANNELS", "12 https://discord.com/channels/10/13");
    let settings = given.settings();
    let names: Vec<String> = settings.sources.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "twitch:pixelmeadow",
            "kick:big-rat",
            "twitch:1",
            "discord:5",
            "discord:8",
            "twitch:one",
            "twitch:two",
            "kick:three",
            "discord:10"
        ]
    );
    assert_eq!(settings.sources[8].channels, ["12", "13"]);
    for (toml, said) in [
        (
            "platform = \"kick\"\nid = \"twitch:1\"",
            "is on twitch, but the platform beside it is kick",
        ),
        (
            "platform = \"twitch\"\nid = \"https://example.com/rat\"",
            "is not the address",
        ),
        (
            "id = \"ratcaster\"",
            "is missing; use one of twitch, kick, discord",
        ),
    ] {
        let problems = Given::new().toml(&format!("[[source]]\n{toml}\n")).problems();
        assert!(
            problems.len() == 1 && problems[0].contains(said),
            "{toml}: {problems:?}"
        );
    }
    let problems = Given::new().env("BITBRAT_SOURCES", "ratcaster").problems();
    assert!(problems[0].contains("has no platform"), "{problems:?}");
}

#[test]
fn floats_in_place_of_ids_are_named_as_floats() {
    for toml in [
        "[twitch]\nbot_user_id = 9.87e17\n",
        "[twitch]\nchannels = [9.87e17]\n",
        "[kick]\nchannels = [1e20, \"rat\"]\n",
        "[kick]\nbot_user_id = 9.87e17\n",
        "[discord]\nguild_id = 9.87e17\n",
        "[discord]\nguild_id = \"1\"\nchannels = [9.87e17]\n",
        "[[source]]\nplatform = \"discord\"\nid = \"1\"\nchannels = [9.87e17]\n",
        "[[source]]\nplatform = \"twitch\"\nlogin = \"9.87e17\"\n",
    ] {
        let problems = Given::new().toml(toml).problems();
        assert!(
            problems.len() == 1 && problems[0].contains("has lost digits"),
            "{toml}: {problems:?}"
        );
    }
    let problems = Given::new().env("TWITCH_CHANNELS", "9.87e+17").problems();
    assert!(problems[0].contains("has lost digits"), "{problems:?}");
    let problems = Given::new().env("TWITCH_BOT_USER_ID", "9.87e+17").problems();
    assert!(problems[0].contains("has lost digits"), "{problems:?}");
}

#[test]
fn drivers_are_named_without_regard_to_case() {
    for (name, value, bus) in [
        ("MESSAGE_BUS_DRIVER", "NATS", "nats://localhost:4222"),
        ("MESSAGE_BUS", "Nats", "nats://localhost:4222"),
        ("MESSAGE_BUS_DRIVER", "NoOp", "local"),
        ("MESSAGE_BUS_DRIVER", "PUBSUB", "pubsub:p1"),
    ] {
        let settings = Given::new()
            .env(name, value)
            .env("GOOGLE_CLOUD_PROJECT", "p1")
            .settings();
        assert_eq!(settings.bus.target.to_string(), bus, "{name}={value}");
    }
    let settings = Given::new()
        .env("PERSISTENCE_DRIVER", "Firestore")
        .env("GCLOUD_PROJECT", "p1")
        .settings();
    assert_eq!(settings.store.target.to_string(), "firestore:p1/(default)");
}

#[test]
fn a_variable_that_hides_the_files_sources_is_warned_about() {
    let given = Given::new()
        .toml("[[source]]\nplatform = \"twitch\"\nid = \"1\"\n[[source]]\nplatform = \"kick\"\nid = \"2\"\n")
        .env("BITBRAT_SOURCES", "kick:77");
    let warnings = warnings(&given.load());
    assert!(
        warnings.len() == 1
            && warnings[0].starts_with("$BITBRAT_SOURCES: replaces the 2 [[source]] tables of ")
            && warnings[0].contains("bitbrat.toml"),
        "{warnings:?}"
    );
    assert_eq!(Given::new().env("BITBRAT_SOURCES", "kick:77").load().warnings, []);
}

#[test]
fn quoted_values_mean_the_same_in_environment_and_file() {
    for (written, meant) in [
        ("\"abc123\"", "abc123"),
        ("'abc123'", "abc123"),
        ("\u{feff}abc123\u{200b}", "abc123"),
        ("oauth:abc123", "abc123"),
        ("Bearer abc123", "abc123"),
    ] {
        // In a file, quotes are parsed once more than a container runtime does.
        let line = format!("TWITCH_BOT_ACCESS_TOKEN=\"{}\"\n", written.replace('"', "\\\""));
        for given in [
            Given::new().env("TWITCH_BOT_ACCESS_TOKEN", written),
            Given::new().file(".env", &line),
        ] {
            let token = given.settings().platforms.twitch.bot_access_token.unwrap();
            assert_eq!(token.expose_secret(), meant, "{written:?}");
        }
    }
    let settings = Given::new()
        .env("TWITCH_CLIENT_ID", "\"abc\"")
        .env("BITBRAT_STORE__URL", "'memory'")
        .env("BITBRAT_SOURCES", "\"kick:77 kick:78\"")
        .settings();
    assert_eq!(settings.platforms.twitch.client_id.as_deref(), Some("abc"));
    assert_eq!(settings.store.target, StoreTarget::Memory);
    assert_eq!(settings.sources.len(), 2);
}

#[test]
fn what_cannot_be_a_token_is_never_used_as_one() {
    for (name, value) in [
        ("TWITCH_BOT_ACCESS_TOKEN", "{\"access_token\":\"hush\"}"),
        ("TWITCH_CLIENT_SECRET", "hu\u{200b}sh"),
        ("KICK_CLIENT_SECRET", "hush hush"),
        ("DISCORD_BOT_TOKEN", "[\"hush\"]"),
        ("KICK_BOT_ACCESS_TOKEN", "hush\u{e9}"),
        ("TWITCH_CLIENT_ID", "hu\u{200d}sh"),
    ] {
        let problems = Given::new().env(name, value).problems();
        assert_eq!(problems.len(), 1, "{name}: {problems:?}");
        assert!(
            problems[0].starts_with(&format!("${name}: ")) && !problems[0].contains("hush"),
            "{problems:?}"
        );
    }
}

#[test]
fn dollar_signs_in_an_env_file_reach_the_settings() {
    let given = Given::new().file(
        ".env",
        "TWITCH_CLIENT_SECRET=\"a$b${c}d\"\nNATS_URL=nats://bot:p$w@h:4222\nBITBRAT_BUS__URL=nats\n",
    );
    let configuration = given.load();
    let warnings = warnings(&configuration);
    assert!(
        warnings.len() == 1 && warnings[0].contains("TWITCH_CLIENT_SECRET: contains `${…}`"),
        "{warnings:?}"
    );
    let settings = configuration.checked().unwrap();
    assert_eq!(
        settings.platforms.twitch.client_secret.unwrap().expose_secret(),
        "a$b${c}d"
    );
    let BusTarget::Nats(servers) = settings.bus.target else {
        panic!()
    };
    assert_eq!(servers[0].password(), Some("p$w"));
}

#[test]
fn files_that_windows_editors_write_are_read() {
    let utf16 = |text: &str| -> Vec<u8> {
        "\u{feff}"
            .chars()
            .chain(text.chars())
            .collect::<String>()
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect()
    };
    let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
    let (env, toml) = ("TWITCH_CLIENT_ID=abc\r\n", "[store]\r\nurl = \"memory\"\r\n");
    for (env, toml) in [(utf16(env), utf16(toml)), (marked(env), marked(toml))] {
        let given = Given::new();
        std::fs::write(given.dir.path().join(".env"), env).unwrap();
        std::fs::write(given.dir.path().join("bitbrat.toml"), toml).unwrap();
        let settings = given.settings();
        assert_eq!(settings.platforms.twitch.client_id.as_deref(), Some("abc"));
        assert_eq!(settings.store.target, StoreTarget::Memory);
    }
    let given = Given::new();
    std::fs::write(
        given.dir.path().join("bitbrat.toml"),
        b"[store]\nurl = \"m\xe4\"\n",
    )
    .unwrap();
    assert_eq!(
        given.problems(),
        ["bitbrat.toml: cannot be read (line 2 is not UTF-8; save it as UTF-8)"]
    );
}

#[test]
fn a_nats_login_is_read_from_the_environment() {
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let given = Given::new()
        .env("BITBRAT_BUS__URL", "tls://h:4222")
        .env("NATS_CREDS", "/etc/bot.creds")
        .env("NATS_NKEY", SEED)
        .env("NATS_CA", "/etc/ca.pem")
        .env("NATS_CERT", "/etc/bot.pem")
        .env("NATS_KEY", "/etc/bot.key")
        .env("NATS_USER", "bot")
        .env("NATS_PASSWORD", "p w\u{e9}$");
    let configuration = given.load();
    assert_eq!(configuration.problems, []);
    // Of several ways to log in one applies, and warnings name the others.
    assert_eq!(configuration.warnings.len(), 2, "{:?}", configuration.warnings);
    let text = format!("{:?} {:?}", shown(&configuration), configuration.settings);
    assert!(!text.contains(SEED) && !text.contains("p w"), "{text}");
    let login = configuration.settings.bus.nats;
    assert_eq!(login.password.unwrap().expose_secret(), "p w\u{e9}$");
    assert_eq!(login.nkey_seed.unwrap().expose_secret(), SEED);
    assert_eq!(login.nkey_file, None);
    assert_eq!(login.creds_file, Some("/etc/bot.creds".into()));
    for (name, said) in [
        ("NATS_USER", "needs bus.nats_password"),
        ("NATS_PASSWORD", "needs bus.nats_user"),
        ("NATS_CERT", "needs bus.nats_key_file"),
        ("NATS_KEY", "needs bus.nats_cert_file"),
    ] {
        let problems = Given::new()
            .env("BITBRAT_BUS__URL", "nats://h")
            .env(name, "x")
            .problems();
        assert!(
            problems.len() == 1 && problems[0].contains(said),
            "{name}: {problems:?}"
        );
        // Without NATS it does not matter.
        assert_eq!(Given::new().env(name, "x").problems(), Vec::<String>::new());
    }
    let problems = Given::new()
        .env("BITBRAT_BUS__URL", "nats://bot:p#w@h:4222")
        .problems();
    assert!(
        problems[0].contains("%23") && !problems[0].contains("p#w"),
        "{problems:?}"
    );
}

#[test]
fn proxy_variable_in_env_file_causes_a_warning() {
    for name in ["HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE"] {
        let configuration = Given::new().file(".env", &format!("{name}=x\n")).load();
        let warnings = warnings(&configuration);
        assert!(
            warnings.len() == 1 && warnings[0].contains("does not count here"),
            "{name}: {warnings:?}"
        );
        assert_eq!(Given::new().env(name, "x").load().warnings, []);
    }
}

#[test]
fn proxy_of_an_unknown_kind_causes_a_warning_with_its_variable() {
    for (name, value, said) in [
        ("HTTP_PROXY", "bogus://127.0.0.1:3128", Some("bogus://")),
        ("all_proxy", "ftp://bot:hunter2@127.0.0.1", Some("ftp://")),
        ("HTTPS_PROXY", "socks5h://127.0.0.1:1080", None),
        ("http_proxy", "127.0.0.1:3128", None),
        ("NO_PROXY", "bogus://x", None),
    ] {
        let all = warnings(&Given::new().env(name, value).load());
        let found = all.iter().find(|warning| warning.contains(&format!("${name}")));
        match said {
            Some(said) => {
                let found = found.expect(value);
                assert!(found.contains(said) && !found.contains("hunter2"), "{found}");
            }
            None => assert_eq!(found, None, "{name}={value}"),
        }
    }
}

#[test]
fn number_in_place_of_a_name_is_never_a_name() {
    for toml in [
        "[[source]]\nplatform = \"kick\"\nid = -5\n",
        "[[source]]\nplatform = \"discord\"\nid = -5\n",
        "[[source]]\nplatform = \"twitch\"\nid = -5\n",
        "[[source]]\nplatform = \"kick\"\nid = \"-5\"\n",
        "[[source]]\nplatform = \"kick\"\nslug = \"-five\"\n",
        "[[source]]\nplatform = \"kick\"\nid = true\n",
        "[kick]\nchannels = [5]\n",
        "[kick]\nchannels = [-5]\n",
        "[twitch]\nchannels = [123456]\n",
        "[discord]\nguild_id = -5\n",
        "sources = [\"kick:-5\"]\n",
        "sources = [\"discord:-5\"]\n",
        "sources = [-5]\n",
    ] {
        let problems = Given::new().toml(toml).problems();
        let [problem] = problems.as_slice() else {
            panic!("{toml}: {problems:?}");
        };
        assert!(
            problem.contains("is a number")
                || problem.contains("begins with `-`")
                || problem.contains("expects"),
            "{toml}: {problem}"
        );
    }
    let given = Given::new().toml("[kick]\nchannels = [\"5\"]\n[[source]]\nplatform = \"kick\"\nid = 5\n");
    assert_eq!(given.settings().sources.len(), 2);
}
