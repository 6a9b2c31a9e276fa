//! `doctor` sends requests to every address that the daemon uses, and reports the cause of what it skips.

use crate::contract::bus::servers::NatsServer;
use crate::support::Home;
use crate::support::process::Sim;

#[test]
fn doctor_names_a_dead_address_of_eventsub_subscriptions() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001"]);
    let run = home.run(&["doctor", "twitch", "-o", "json"]).never_panics();
    assert!(!run.stdout.contains("\"FAIL\""), "{}", run.stdout);
    let home = home.env("BITBRAT_TWITCH__EVENTSUB_REST_URL", "http://127.0.0.1:1/helix");
    let run = home.run(&["doctor", "twitch", "-o", "json"]).exits(1);
    let item = run.item("name", "eventsub api");
    assert_eq!(item["outcome"], "FAIL", "{item}");
    assert!(item["detail"].as_str().unwrap().contains("127.0.0.1"), "{item}");
}

#[test]
fn doctor_of_an_area_names_an_invalid_configuration() {
    let home = Home::new().file("bitbrat.toml", "[web]\nlisten = \"nowhere\"\n");
    for area in ["web", "bus", "store", "twitch"] {
        let run = home.run(&["doctor", area, "-o", "json"]).exits(6);
        let items = run.json();
        let first = &items["items"][0];
        assert_eq!(
            (first["area"].as_str(), first["outcome"].as_str()),
            (Some("configuration"), Some("FAIL")),
            "{first}"
        );
        assert!(
            first["detail"].as_str().unwrap().contains("web.listen"),
            "{first}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_ca_file_is_named_over_nats() {
    let server = NatsServer::start().await;
    for (variable, path) in [
        ("SSL_CERT_FILE", "/nonexistent.pem"),
        ("BITBRAT_BUS__NATS_CA_FILE", "/nowhere.pem"),
    ] {
        let home = Home::new()
            .env("BITBRAT_BUS__URL", &server.url().replace("nats://", "tls://"))
            .env("BUS_PREFIX", "here.")
            .env(variable, path);
        let run = home.run(&["doctor", "bus", "-o", "json"]).never_panics();
        let item = run.item("name", "reachable");
        assert_eq!(item["outcome"], "FAIL", "{item}");
        assert!(item["detail"].as_str().unwrap().contains(path), "{item}");
    }
}
