//! The contract of the platform port, checked against every adapter on its simulated platform.

mod scenario;
mod suite;
mod worlds;

use worlds::{DiscordWorld, KickWorld, TwitchWorld};

/// Runs every situation of the suite on one platform.
macro_rules! contract {
    ($platform:ident, $world:ty: $($situation:ident)*) => {
        mod $platform {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $situation() {
                    super::suite::$situation::<$world>().await;
                }
            )*
        }
    };
}

macro_rules! every_platform {
    ($($platform:ident $world:ident)*) => {
        $(contract!($platform, super::$world:
            live_source_is_online_and_another_one_offline
            ended_stream_is_offline
            missing_source_is_an_error_without_stream_state
            source_removed_while_live_has_no_stream
            source_that_exists_again_is_connected_at_once
            a_failed_probe_never_turns_a_missing_channel_offline
            a_500_never_writes_offline
            a_503_never_writes_offline
            a_429_never_writes_offline
            a_reset_never_writes_offline
            a_timeout_never_writes_offline
            a_web_page_never_writes_offline
            an_empty_200_never_writes_offline
            a_200_without_data_never_writes_offline
            garbage_never_writes_offline
            truncated_json_never_writes_offline
            an_answer_cut_off_never_writes_offline
            a_body_of_100_mb_never_writes_offline
            error_with_status_200_never_writes_offline
            network_that_is_down_disconnects_and_recovers
            foreign_401s_never_revoke_and_never_stop_requests
            one_odd_row_does_not_blind_the_others
            failed_stream_list_leaves_other_results
            failed_token_check_leaves_other_results
            failed_permission_request_leaves_permissions_unknown
            permission_follows_the_role
            banned_bot_may_not_write
            revoked_token_is_detected_within_one_probe
            revoked_token_never_yields_yes
            new_login_ends_the_revocation
            expired_token_never_yields_yes
            failed_token_check_is_no_evidence
            every_source_needs_the_account_of_the_bot
            missing_source_is_a_problem_of_the_source
            revoked_token_is_a_problem_of_the_account
            outage_is_a_problem_of_the_platform
            secret_in_an_error_is_masked
            every_request_is_counted
            progress_ends_with_all_expected_calls
            ten_sources_share_their_calls
            no_sources_take_no_requests
            source_given_twice_is_probed_once
            rate_limit_with_a_wait_is_waited_out
            one_failed_request_is_repeated
            observations_are_dated_by_the_injected_clock
            answer_is_dated_by_when_it_was_asked_for
            clock_ahead_of_the_platform_dates_nothing_in_the_future
            cancelled_probe_leaves_nothing_half
            two_probes_may_run_at_the_same_time
            names_are_resolved_in_order_and_unknown_ones_to_nothing
            failed_resolution_is_an_error_and_not_an_unknown_name
        );)*
    };
}

every_platform! {
    twitch TwitchWorld
    kick KickWorld
    discord DiscordWorld
}
