//! NATS servers that require credentials: users, tokens, keys and certificates.

use bitbrat::bus::nats::{NatsBus, NatsLogin, NatsOptions};
use bitbrat::bus::{BusError, EventBus as _, Recovery};

use super::servers::NatsServer;
use super::suite;
use crate::support::certificates::Certificates;

/// A pair from NATS's documentation.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

fn secret(text: &str) -> secrecy::SecretString {
    text.to_owned().into()
}

/// Publishes an event over a bus with this login.
async fn publishes(url: &str, login: NatsLogin) -> Result<(), BusError> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let options = NatsOptions {
        login,
        ..NatsOptions::new(url, "here.")
    };
    let bus = NatsBus::connect(&options).await?;
    let inspected = bus.inspect(&suite::subscription("logins")).await.map(|_| ());
    let published = match inspected {
        Ok(()) => bus.publish(suite::message(1)).await.map(|_| ()),
        Err(error) => Err(error),
    };
    bus.close().await;
    published
}

/// Makes the stream that a deployment has, logged in as its owner.
async fn create_stream(server: &NatsServer, owner: async_nats::ConnectOptions) {
    let client = owner.connect(server.url()).await.unwrap();
    let config = async_nats::jetstream::stream::Config {
        name: "HERE".to_owned(),
        subjects: vec!["here.>".to_owned()],
        ..Default::default()
    };
    async_nats::jetstream::new(client)
        .create_stream(config)
        .await
        .unwrap();
}

#[track_caller]
fn is_refused_with(result: Result<(), BusError>, said: &str) {
    let error = result.expect_err("the server refuses this login");
    assert!(matches!(error, BusError::Refused { .. }), "{error}");
    assert_eq!(error.recovery(), Recovery::RetrySlowly);
    assert!(error.to_string().contains(said), "{error}");
}

#[tokio::test]
async fn nats_user_and_password_in_the_address_are_used() {
    let server =
        NatsServer::start_as("authorization { users = [ {user: \"b@t\", password: \"p:w/#?\"} ] }").await;
    let at = server.url().replace("nats://", "");
    let full = format!("nats://b%40t:p%3Aw%2F%23%3F@{at}");
    let owner = async_nats::ConnectOptions::with_user_and_password("b@t".into(), "p:w/#?".into());
    create_stream(&server, owner).await;
    publishes(&full, NatsLogin::default()).await.unwrap();
    let login = NatsLogin {
        user: Some(("b@t".into(), secret("p:w/#?"))),
        ..NatsLogin::default()
    };
    publishes(&server.url(), login.clone()).await.unwrap();
    // Separate credentials take precedence over those in the address.
    publishes(&format!("nats://x:y@{at}"), login).await.unwrap();
}

#[tokio::test]
async fn refused_nats_credentials_are_named_as_such() {
    let server = NatsServer::start_as("authorization { user: bot, password: hunter2 }").await;
    let at = server.url().replace("nats://", "");
    for url in [
        server.url(),
        format!("nats://bot:wrong@{at}"),
        format!("nats://hunter2@{at}"),
    ] {
        is_refused_with(
            publishes(&url, NatsLogin::default()).await,
            "refuses our credentials",
        );
    }
}

#[tokio::test]
async fn a_nats_server_that_is_away_is_not_a_refusal() {
    let mut server = NatsServer::start().await;
    let url = server.url();
    server.kill().await;
    let error = publishes(&url, NatsLogin::default()).await.unwrap_err();
    assert!(matches!(error, BusError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_denied_nats_permission_is_named_as_such() {
    let server = NatsServer::start_as(
        "authorization { users = [ {user: bot, password: pw, permissions: {publish: \"nothing\", subscribe: \">\"}} ] }",
    )
    .await;
    let url = server.url().replace("nats://", "nats://bot:pw@");
    is_refused_with(
        publishes(&url, NatsLogin::default()).await,
        "Permissions Violation",
    );
}

#[tokio::test]
async fn a_nats_token_is_used_from_the_address_and_apart() {
    let server = NatsServer::start_as("authorization { token: \"s3cr3t\" }").await;
    let url = server.url().replace("nats://", "nats://s3cr3t@");
    create_stream(&server, async_nats::ConnectOptions::with_token("s3cr3t".into())).await;
    publishes(&url, NatsLogin::default()).await.unwrap();
    let login = NatsLogin {
        token: Some(secret("s3cr3t")),
        ..NatsLogin::default()
    };
    publishes(&server.url(), login).await.unwrap();
}

#[tokio::test]
async fn a_nats_nkey_signs_what_the_server_asks_for() {
    let server = NatsServer::start_as(&format!("authorization {{ users = [ {{nkey: {PUBLIC}}} ] }}")).await;
    let login = NatsLogin {
        nkey_seed: Some(secret(SEED)),
        ..NatsLogin::default()
    };
    // A client without the key can create nothing there, so the missing stream proves that the login was accepted.
    let error = publishes(&server.url(), login).await.unwrap_err();
    assert!(matches!(error, BusError::NoTopic { .. }), "{error}");
    is_refused_with(
        publishes(&server.url(), NatsLogin::default()).await,
        "refuses our credentials",
    );
    let mistyped = NatsLogin {
        nkey_seed: Some(secret("SUX")),
        ..NatsLogin::default()
    };
    is_refused_with(
        publishes(&server.url(), mistyped).await,
        "the NKey seed (NATS_NKEY_SEED) is not one",
    );
}

async fn tls_server(certificates: &Certificates, verify: bool) -> NatsServer {
    let path = |name| certificates.path(name).display().to_string();
    let (certificate, key, authority) = (path("server.pem"), path("server.key"), path("ca.pem"));
    NatsServer::start_as(&format!(
        "tls {{ cert_file: \"{certificate}\", key_file: \"{key}\", ca_file: \"{authority}\", verify: {verify} }}"
    ))
    .await
}

#[tokio::test]
async fn nats_over_tls_trusts_the_configured_authority_alone() {
    let certificates = Certificates::new(&[]);
    let server = tls_server(&certificates, false).await;
    let login = |ca: Option<&str>| NatsLogin {
        ca_file: ca.map(|name| certificates.path(name)),
        ..NatsLogin::default()
    };
    let error = publishes(&server.url(), login(Some("ca.pem"))).await.unwrap_err();
    assert!(matches!(error, BusError::NoTopic { .. }), "{error}");
    is_refused_with(publishes(&server.url(), login(None)).await, "not trusted");
    is_refused_with(
        publishes(&server.url(), login(Some("missing.pem"))).await,
        "missing.pem (NATS_CA) cannot be read",
    );
    is_refused_with(
        publishes(&server.url(), login(Some("client.key"))).await,
        "holds no certificate",
    );
}

#[tokio::test]
async fn nats_server_requiring_client_certificate_receives_it() {
    let certificates = Certificates::new(&[]);
    let server = tls_server(&certificates, true).await;
    let login = |client: bool| NatsLogin {
        ca_file: Some(certificates.path("ca.pem")),
        client_cert: client.then(|| (certificates.path("client.pem"), certificates.path("client.key"))),
        ..NatsLogin::default()
    };
    let error = publishes(&server.url(), login(true)).await.unwrap_err();
    assert!(matches!(error, BusError::NoTopic { .. }), "{error}");
    is_refused_with(publishes(&server.url(), login(false)).await, "client certificate");
}
