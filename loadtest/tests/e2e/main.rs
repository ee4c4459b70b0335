//! The acceptance of the whole: real binaries, real machines, clients of our own.
//!
//! One stack for all tests, made on first use in a directory of its own beside nobody's, and taken
//! down at the end however the end comes (see `teststack`). Tests run one after the other, as they
//! count processes and namespaces of the whole installation.
//!
//! Needs root, the release binaries beside this one (or `WRENN_BIN_DIR`) and a built image in
//! `WRENN_DIR` (default: `.wrenn` of the clone): what `make check` makes before.

mod blanks;
mod capsules;
mod disk_full;
mod egress;
mod events;
mod fixture;
mod guest;
mod host;
mod images;
mod invocations;
mod kills;
mod load;
mod pools;
mod reaper;
mod refusals;
mod reuse;
mod s3;
mod scenarios;
mod start;
mod streams;
mod teststack;
mod ttl;
mod tuning;
mod two_hosts;
mod wakes;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use fixture::{Fixture, minutes};

/// Tests by name, in the order in which they run, each with its longest time in minutes.
macro_rules! trials {
    ($fixture:expr; $($minutes:literal $module:ident::$test:ident;)*) => {
        vec![$($fixture.trial(stringify!($test), minutes($minutes), $module::$test)),*]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let fixture = Fixture::new();
    let trials = trials! { fixture;
        1 start::stack_answers_health_and_describes_itself;
        1 start::starting_a_running_stack_again_changes_nothing;
        4 invocations::each_of_thirty_invocations_has_a_machine_of_its_own;
        4 streams::echo_streams_both_ways_over_every_protocol;
        1 streams::websocket_echoes_over_http1;
        4 capsules::sandbox_serves_a_large_file_pauses_and_resumes_on_request;
        3 wakes::requests_share_a_resume_and_learn_of_a_crash;
        4 images::twelve_rounds_of_pause_and_resume_lose_nothing_and_pile_up_nothing;
        3 images::snapshots_of_running_and_paused_sandboxes_are_restored_twice;
        2 reuse::reused_sandbox_serves_so_many_and_says_which;
        1 reuse::without_reuse_every_request_has_another_sandbox;
        2 reuse::broken_request_ends_its_reused_sandbox;
        2 tuning::pool_is_warmed_up_and_drained_on_request;
        2 tuning::floor_that_the_host_cannot_hold_is_refused_with_the_sum;
        2 tuning::scheduled_time_raises_the_floor_and_its_end_lowers_it;
        2 tuning::every_field_of_a_policy_is_changed_at_once_and_outlives_the_agent;
        1 events::pools_are_followed_at_a_steady_pace;
        2 events::stream_of_events_outlives_the_agent;
        2 ttl::expired_sandbox_leaves_no_trace;
        2 ttl::expired_sandbox_that_asked_for_it_is_paused;
        2 reaper::ends_are_acted_on_within_a_second;
        2 reaper::ends_that_passed_without_an_agent_are_made_up_for;
        2 reaper::idle_warm_sandboxes_go_after_their_time;
        2 reaper::invocation_past_its_time_ends_with_its_sandbox;
        2 ttl::idle_pool_drains_to_nothing;
        1 refusals::bad_hosts_and_calls_have_their_own_codes;
        3 refusals::bad_deploys_have_their_own_codes_and_leave_nothing;
        2 egress::sandbox_reaches_no_listener_of_its_host;
        6 scenarios::every_scenario_runs_in_small_and_leaves_nothing;
        3 scenarios::killed_agent_is_noticed_and_recovered_from;
        2 blanks::burst_over_what_is_warm_is_answered;
        2 blanks::burst_outlives_the_page_server;
        2 blanks::killed_blank_costs_the_next_restore_nothing_but_time;
        2 blanks::killed_agent_leaves_no_blank_and_no_warm_machine;
        8 kills::six_kills_each_of_agent_pager_and_edge_lose_nothing;
        3 disk_full::full_disk_refuses_snapshots_and_harms_nothing;
        5 two_hosts::function_of_one_host_is_served_by_another;
        3 start::stopped_stack_leaves_nothing_running;
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    fixture.end(conclusion.has_failed());
    conclusion.exit_code()
}
