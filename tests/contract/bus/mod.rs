//! The contract of the bus port, checked against every adapter.

mod faults;
mod logins;
mod relay;
pub mod servers;
pub mod suite;

use std::sync::Arc;

use bitbrat::bus::local::LocalBus;
use bitbrat::bus::nats::{NatsBus, NatsOptions};
use bitbrat::bus::pubsub::{PubsubBus, PubsubOptions};
use bitbrat::clock::SystemClock;

use suite::World;

/// Runs every test of the contract against one kind of bus.
macro_rules! contract {
    ($adapter:ident: $($promise:ident)*) => {
        mod $adapter {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::suite::$promise(super::$adapter().await).await;
                }
            )*
        }
    };
}

macro_rules! every_adapter {
    ($($adapter:ident)*) => {
        $(contract!($adapter:
            what_is_published_arrives_as_it_was_sent
            every_name_sees_every_message_and_one_name_sees_it_once
            consumers_of_one_name_share_the_work
            a_name_keeps_its_place_while_nobody_consumes
            what_is_refused_comes_back_but_not_before_its_time
            what_is_given_up_never_comes_back
            what_is_dropped_unsettled_comes_back
            what_a_reader_that_leaves_had_not_looked_at_goes_to_the_next_at_once
            a_thousand_messages_in_one_pipeline_all_arrive
            one_too_large_does_not_stop_its_neighbors
            a_tail_takes_nothing_away_from_anybody
            a_filter_for_many_topics_gets_them_all
            a_look_at_the_bus_tells_about_the_subscription
        );)*
    };
}

every_adapter!(local nats pubsub);

async fn local() -> World {
    World {
        bus: Arc::new(LocalBus::new(Arc::new(SystemClock))),
        max_body: None,
        recognizes_repetition: true,
        counts_deliveries: true,
        remembers_before_subscription: true,
        hands_out_what_is_asked_for: true,
    }
}

async fn nats() -> World {
    let prefix = servers::prefix();
    servers::create_stream(&servers::nats_url(), &prefix).await;
    let bus = NatsBus::connect(&NatsOptions::new(servers::nats_url(), prefix))
        .await
        .unwrap();
    World {
        bus: Arc::new(bus),
        max_body: Some(1024 * 1024),
        recognizes_repetition: true,
        counts_deliveries: true,
        remembers_before_subscription: true,
        hands_out_what_is_asked_for: true,
    }
}

async fn pubsub() -> World {
    let options = PubsubOptions {
        project: format!("bitbrat-{}", servers::prefix().trim_end_matches('.')),
        prefix: "local.".to_owned(),
        emulator: Some(servers::pubsub_host()),
        key: None,
    };
    World {
        bus: Arc::new(PubsubBus::connect(&options).await.unwrap()),
        max_body: Some(10 * 1024 * 1024),
        recognizes_repetition: false,
        counts_deliveries: false,
        remembers_before_subscription: false,
        // The emulator delivers a hundred at once, whatever is requested.
        hands_out_what_is_asked_for: false,
    }
}
