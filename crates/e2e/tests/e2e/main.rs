//! The end-to-end tests: the real services against the real servers, each test with topics, groups, keyspace and database
//! of its own.
//!
//! One binary with a harness of its own: the tests share one pool of threads and start in the order of the list below. A test
//! that is not in the list is an unused function, which the compiler reports.
//!
//! `CART_TEST_TIMES=1` prints what each test took, the longest first.

mod audit;
mod auth;
mod cli;
mod clocks;
mod commands;
mod crash;
mod dead_letters;
mod downstream;
mod examples;
mod faults;
mod guards;
mod hostile;
mod http;
mod journal;
mod log_identity;
mod newer_command;
mod openapi;
mod pipeline;
mod projectors;
mod raw_rows;
mod reads;
mod reconcile;
mod recovery;
mod registry;
mod requests;
mod settings;
mod tls;
mod uninstall;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

type Times = Arc<Mutex<Vec<(Duration, &'static str)>>>;

/// A trial that runs an `async` test on a runtime of its own.
fn trial<F>(name: &'static str, times: &Times, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = anyhow::Result<()>>,
{
    let times = times.clone();
    Trial::test(name, move || {
        let started_at = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let result = runtime.block_on(test());
        // Threads that still wait for a server are not waited for.
        runtime.shutdown_background();
        times.lock().unwrap_or_else(PoisonError::into_inner).push((started_at.elapsed(), name));
        result.map_err(|error| Failed::from(format!("{error:?}")))
    })
}

macro_rules! trials {
    ($times:expr, $($test:path),+ $(,)?) => {
        vec![$(trial(stringify!($test), $times, $test)),+]
    };
}

/// All tests. The longest come first, so that none of them is left over at the end.
fn trials(times: &Times) -> Vec<Trial> {
    trials![
        times,
        faults::what_goes_away_and_returns_loses_and_doubles_nothing,
        projectors::two_instances::partitions_move_in_the_middle_of_the_work,
        clocks::a_clock_that_is_a_day_off_costs_nobody_an_answer,
        openapi::the_service_is_what_its_document_says,
        reconcile::each_defect_is_reported,
        recovery::the_journal_and_all_of_kafka_are_made_again,
        log_identity::commands_of_an_accepted_log_are_new,
        recovery::read_tables_and_cart_events_are_made_again,
        log_identity::lost_offsets_are_not_made_up,
        pipeline::what_was_sent_is_in_every_table,
        audit::a_running_system_its_end_and_its_defects,
        clocks::a_clients_time_is_the_purchases_time,
        projectors::item_purchased_events::each_purchase_is_published_once_by_two_instances,
        hostile::hostile_clients_keep_nobody_from_an_answer,
        log_identity::purchases_of_an_accepted_log_are_added,
        downstream::a_consumer_in_python_adds_up_to_the_same,
        guards::timestamps_by_position_keep_an_old_logs_processor_out_of_the_journal,
        cli::a_cart_is_filled_and_bought_from_the_command_line,
        guards::timestamps_by_position_keep_a_late_writer_out,
        guards::the_offset_in_the_database_keeps_a_stale_instance_out,
        projectors::two_instances::an_instance_that_does_not_come_back_to_its_group_begins_anew,
        journal::what_was_appended_is_loaded_and_a_late_write_changes_nothing,
        projectors::fifth::an_added_read_model_includes_each_purchase_once,
        projectors::crash::a_killed_projector_goes_on_where_it_was,
        auth::url::keys_come_from_their_issuer,
        requests::a_crash_between_the_tables_of_the_journal_loses_no_request,
        requests::a_key_stands_for_one_request_and_its_outcome,
        guards::what_was_journalled_is_published_by_the_successor,
        guards::who_is_no_member_any_more_commits_nothing,
        projectors::item_purchased_events::each_purchase_is_published_once_whatever_is_killed,
        projectors::offset_guard::a_database_that_does_not_answer_is_asked_again,
        commands::conditions_and_batches_are_decided_in_the_order_of_the_log,
        projectors::two_instances::an_instance_that_was_paused_does_no_harm,
        projectors::garbage::garbage_stops_its_partition_until_it_is_skipped,
        commands::what_has_become_of_a_command_can_be_asked_after_restarts_too,
        examples::what_the_pages_show_is_what_the_service_answers,
        crash::between_the_journal_write_and_the_transaction,
        crash::before_the_journal_write,
        crash::inside_the_transaction,
        crash::after_the_commit,
        http::late::a_command_that_could_not_be_sent_in_time_is_not_sent_later,
        projectors::redelivery::what_comes_again_changes_nothing,
        projectors::two_instances::what_comes_back_is_not_what_it_was,
        guards::what_was_aborted_is_not_read,
        registry::other_schemas_under_our_names_are_refused,
        http::refusals::what_is_no_command_is_refused_and_not_logged,
        projectors::offset_guard::the_database_says_where_to_go_on,
        projectors::startup::projectors_may_be_started_before_setup,
        auth::each_may_do_what_is_theirs_and_nothing_else,
        reads::vendors::what_vendors_sold_includes_what_was_just_bought,
        http::idempotency::a_repeat_gets_the_first_outcome_also_after_crashes_and_a_snapshot,
        tls::certificates_change_while_the_service_runs,
        dead_letters::each_is_there_once_after_crashes,
        dead_letters::each_undecidable_record_is_a_dead_letter_and_its_partition_goes_on,
        uninstall::an_installation_is_removed_and_its_neighbour_stays,
        http::outcomes::every_rule_is_told_and_a_checkout_begins_another_session,
        http::browsers::pages_of_named_origins_may_use_the_api,
        http::in_flight::what_is_too_much_is_not_taken_and_never_carried_out,
        http::outcomes::prices_and_names_are_told_as_they_were_sent,
        http::ending::kept_connections_are_told_to_leave_before_they_are_closed,
        projectors::exact_sums::sums_are_exact_and_days_are_utc,
        settings::a_topic_can_be_used_once_it_is_made,
        raw_rows::each_row_is_refused_with_its_reason_or_accepted_by_rule,
        http::ending::what_is_under_way_gets_its_outcome,
        http::reads::a_get_after_a_200_shows_that_write,
        http::idempotency::concurrent_duplicates_through_two_ingests_are_one_command,
        requests::a_log_from_before_version_0_2_goes_on,
        newer_command::a_command_that_is_too_new_stops_its_partition_only,
        reads::journal_pages::a_journal_is_shown_page_by_page,
        http::pending::without_an_outcome_in_time_a_command_is_pending_and_a_retry_finds_it,
        settings::a_topic_that_is_there_keeps_its_settings_and_setup_tells_what_differs,
        http::pending::each_request_under_a_key_is_answered_with_its_own_outcome,
        projectors::startup::many_may_register_a_schema_at_once,
        reads::progress::a_group_is_followed_through_what_transactions_leave_behind,
        http::ending::a_service_that_still_waits_for_others_ends_at_once,
        auth::nobody_serves_everybody_by_accident,
        settings::the_sample_names_every_option_with_its_default,
        examples::checks::what_is_wrong_on_a_page_is_reported,
        settings::a_kafka_setting_that_guarantees_depend_on_is_refused_at_the_start,
    ]
}

fn main() -> ExitCode {
    let times = Times::default();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials(&times));
    if std::env::var_os("CART_TEST_TIMES").is_some() {
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        times.sort_unstable();
        for (time, name) in times.iter().rev() {
            anstream::println!("{:7.1} s  {name}", time.as_secs_f32());
        }
    }
    conclusion.exit_code()
}
