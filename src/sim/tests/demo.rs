//! The demo world, source by source, as seen by a client.

use serde_json::json;

use super::answer;
use super::eventually;
use crate::sim::twitch::demo::{self, DemoWorld};
use crate::sim::{Sim, SimOptions};

struct Visitor {
    sim: Sim,
    world: DemoWorld,
    http: reqwest::Client,
}

impl Visitor {
    async fn arrive() -> Self {
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        let world = demo::populate(&sim.twitch);
        Self {
            sim,
            world,
            http: super::client(),
        }
    }

    async fn get(&self, token: &str, path: &str) -> (u16, serde_json::Value) {
        let url = format!("{}{path}", self.sim.twitch.urls().helix);
        answer(
            self.http
                .get(url)
                .bearer_auth(token)
                .header("Client-Id", &self.world.client_id),
        )
        .await
    }

    async fn live(&self) -> Vec<String> {
        let asked = self.world.sources.join("&user_id=");
        let (_, body) = self
            .get(
                &self.world.bot.access,
                &format!("/streams?first=100&user_id={asked}"),
            )
            .await;
        let mut live: Vec<_> = body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stream| stream["user_id"].as_str().unwrap().to_owned())
            .collect();
        live.sort();
        live
    }

    async fn validate(&self, access: &str) -> u16 {
        let url = format!("{}/validate", self.sim.twitch.urls().auth);
        self.http
            .get(url)
            .header("Authorization", format!("OAuth {access}"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    async fn refresh(&self, refresh: &str) -> (u16, serde_json::Value) {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &self.world.client_id),
            ("client_secret", &self.world.client_secret),
            ("refresh_token", refresh),
        ];
        answer(
            self.http
                .post(format!("{}/token", self.sim.twitch.urls().auth))
                .form(&form),
        )
        .await
    }
}

#[tokio::test]
async fn every_demo_source_is_in_the_state_it_stands_for() {
    let visitor = Visitor::arrive().await;
    let bot = &visitor.world.bot;
    assert_eq!(
        visitor.live().await,
        [demo::CROWDED, demo::MODERATED, demo::VIP, demo::RENAMED]
    );
    assert_eq!(
        visitor.get(&bot.access, "/users?id=777010").await.1["data"],
        json!([])
    );
    let (_, moderated) = visitor
        .get(&bot.access, "/moderation/channels?user_id=777100")
        .await;
    assert_eq!(moderated["data"].as_array().unwrap().len(), 2);
    let [velvet, brass, paper] = &visitor.world.broadcasters[..] else {
        panic!("three broadcasters")
    };
    let vips = "/channels/vips?broadcaster_id=777005&user_id=777100";
    assert_eq!(
        visitor.get(&velvet.access, vips).await.1["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    assert_eq!(
        (
            visitor.validate(&bot.access).await,
            visitor.validate(&velvet.access).await
        ),
        (200, 200)
    );
    assert_eq!(visitor.validate(&brass.access).await, 401);
    let (status, renewed) = visitor.refresh(&brass.refresh).await;
    assert_eq!(
        (
            status,
            visitor.validate(renewed["access_token"].as_str().unwrap()).await
        ),
        (200, 200)
    );
    assert_eq!(visitor.validate(&paper.access).await, 401);
    assert_eq!(
        visitor.refresh(&paper.refresh).await,
        (400, json!({"status": 400, "message": "Invalid refresh token"}))
    );
}

#[tokio::test]
async fn the_stream_that_just_began_shows_in_polls_later() {
    let visitor = Visitor::arrive().await;
    visitor.sim.clock.advance(140_000);
    assert!(visitor.live().await.contains(&visitor.world.just_live.user_id));
    let (_, body) = visitor
        .get(&visitor.world.bot.access, "/streams?user_id=777003")
        .await;
    assert_eq!(
        body["data"][0]["id"].as_str().unwrap(),
        visitor.world.just_live.stream_id
    );
}

#[tokio::test]
async fn within_twenty_seconds_one_stream_starts_and_another_ends() {
    let visitor = Visitor::arrive().await;
    let _timeline = demo::start_timeline(&visitor.sim.twitch);
    let moves = async |id: &str, there: bool| visitor.live().await.contains(&id.to_owned()) == there;
    eventually("one goes live", async || {
        visitor.sim.clock.advance(1_000);
        moves(demo::PLAIN, true).await
    })
    .await;
    eventually("another ends", async || {
        visitor.sim.clock.advance(1_000);
        moves(demo::VIP, false).await
    })
    .await;
}
