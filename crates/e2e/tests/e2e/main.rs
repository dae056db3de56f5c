//! The end-to-end tests: the real services against the real servers. Each test has its own topics, groups, keyspace and
//! database.
//!
//! They are one binary with its own harness: the tests share one pool of threads and start in the order of the list below. A
//! test that is not in the list is an unused function, which the compiler reports.
//!
//! `CART_TEST_SECURE=FOLDER` has those on the secured servers instead; the folder is that of the users' passwords.
//! `CART_TEST_OWN_SERVERS=1` has those instead that start servers of their own, `CART_TEST_LONG=1` those that take long.
//! `CART_TEST_BROWSER=1` adds to all others those that need Chromium and its driver. `CART_TEST_TIMES=1` prints the time of each
//! test, the longest first.

mod audit;
mod auth;
mod cassandra;
mod certificates;
mod cli;
mod clocks;
mod commands;
mod console;
mod control;
mod crash;
mod dead_letters;
mod deployment;
mod doctor;
mod downstream;
mod event_streams;
mod examples;
mod explain;
mod faults;
mod guards;
mod hostile;
mod http;
mod journal;
mod kafka;
mod log_identity;
mod logs;
mod losses;
mod metrics;
mod newer_command;
mod openapi;
mod operators;
mod parking;
mod pipeline;
mod projectors;
mod raw_rows;
mod reads;
mod rebuild;
mod reconcile;
mod recovery;
mod registry;
mod rehearse;
mod requests;
mod secure;
mod settings;
mod tls;
mod traces;
mod uninstall;
mod webdriver;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

type Times = Arc<Mutex<Vec<(Duration, &'static str)>>>;

/// A trial that runs an `async` test on a new runtime.
fn trial<F>(name: &'static str, times: &Times, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = anyhow::Result<()>>,
{
    let times = times.clone();
    Trial::test(name, move || {
        let started_at = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let result = runtime.block_on(test());
        // Do not wait for threads with open requests.
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

/// All tests. The longest come first, so that no long one runs alone at the end.
fn trials(times: &Times) -> Vec<Trial> {
    trials![
        times,
        log_identity::lost_offsets_are_not_guessed,
        pipeline::every_table_has_what_was_sent,
        console::figures::the_page_shows_what_was_sent_and_what_the_tables_have,
        audit::audits_a_running_system_its_end_and_its_defects,
        clocks::a_clients_time_is_the_purchases_time,
        projectors::item_purchased_events::each_purchase_is_published_once_by_two_instances,
        downstream::a_consumer_in_python_adds_up_to_the_same,
        parking::bad_carts_wait_while_the_others_of_their_partition_go_on,
        cli::a_cart_is_filled_and_bought_from_the_command_line,
        guards::timestamps_by_position_keep_a_late_writer_out,
        guards::the_offset_in_the_database_keeps_a_stale_instance_out,
        journal::what_was_appended_is_loaded_and_a_late_write_changes_nothing,
        projectors::control::a_pause_holds_until_it_is_resumed,
        projectors::added::an_added_read_model_includes_each_purchase_once,
        projectors::crash::a_killed_projector_continues_where_it_was,
        auth::url::keys_are_loaded_and_refreshed_from_the_issuer,
        requests::a_crash_between_the_tables_of_the_journal_loses_no_request,
        requests::a_key_stands_for_one_request_and_its_outcome,
        guards::a_successor_publishes_what_was_journalled,
        guards::a_former_member_cannot_commit,
        guards::a_marker_is_in_the_transaction_that_passes_its_command,
        projectors::item_purchased_events::each_purchase_is_published_once_whatever_is_killed,
        commands::conditions_and_batches_are_decided_in_the_order_of_the_log,
        projectors::two_instances::an_instance_that_was_paused_does_no_harm,
        projectors::garbage::garbage_stops_its_partition_until_it_is_skipped,
        commands::the_status_of_a_command_survives_restarts,
        deployment::compose::what_it_starts_answers_its_checks,
        examples::the_service_answers_as_the_pages_show,
        traces::a_checkout_is_one_trace_from_the_request_to_each_row,
        crash::between_the_journal_write_and_the_transaction,
        crash::before_the_journal_write,
        crash::inside_the_transaction,
        crash::after_the_commit,
        console::viewers::viewers_that_do_not_read_disturb_no_others,
        console::operations::an_operator_acts_at_the_page_as_with_cartctl,
        console::read_models::the_page_shows_generations_and_requests_tries_of_rows,
        http::late::a_command_that_could_not_be_sent_in_time_is_not_sent_later,
        projectors::redelivery::redelivered_records_change_nothing,
        projectors::two_instances::a_reassigned_partition_reloads_its_totals,
        projectors::control::a_member_that_does_not_read_the_control_topic_first_applies_records,
        guards::aborted_records_are_not_read,
        cassandra::grouped_rows_are_all_written_and_a_late_write_changes_nothing,
        cassandra::a_log_has_one_epoch_until_another_log_is_accepted,
        registry::foreign_schemas_under_the_systems_subjects_are_rejected,
        http::refusals::invalid_requests_are_rejected_and_not_appended,
        projectors::offset_guard::the_database_has_the_next_offset,
        projectors::startup::projectors_may_be_started_before_setup,
        projectors::startup::a_projector_whose_committed_offsets_are_lost_ends,
        auth::each_token_opens_only_its_own_resources,
        reads::vendors::vendors_reads_include_the_latest_purchase,
        reads::generations::readers_follow_the_active_generation,
        http::idempotency::a_repeat_gets_the_first_outcome_also_after_crashes_and_a_snapshot,
        tls::certificates_change_while_the_service_runs,
        dead_letters::each_dead_letter_is_written_once_after_crashes,
        dead_letters::each_undecidable_record_is_a_dead_letter_and_its_partition_goes_on,
        traces::a_collector_that_hangs_changes_nothing_but_a_counter,
        doctor::each_misconfiguration_is_named_with_what_to_do,
        doctor::all_checks_hold_and_nothing_is_left,
        http::outcomes::every_rule_is_reported_and_a_checkout_begins_another_session,
        http::browsers::pages_of_named_origins_may_use_the_api,
        event_streams::kills::a_reconnecting_client_sees_each_event_once,
        event_streams::live::a_stream_has_the_history_and_what_follows,
        event_streams::limits::streams_are_limited_and_free_what_they_hold,
        logs::each_event_is_one_line_without_cart_ids_and_secrets,
        http::in_flight::requests_above_the_limit_are_rejected_and_never_executed,
        http::outcomes::prices_and_names_are_returned_as_they_were_sent,
        http::ending::kept_connections_get_connection_close_before_they_are_closed,
        projectors::exact_sums::sums_are_exact_and_days_are_utc,
        settings::a_topic_is_usable_once_setup_has_made_it,
        doctor::servers_that_do_not_answer_are_named,
        raw_rows::each_row_is_rejected_with_its_reason_or_accepted_by_rule,
        http::ending::requests_in_flight_get_their_outcomes,
        http::reads::a_get_after_a_200_shows_that_write,
        http::idempotency::concurrent_duplicates_through_two_ingests_are_one_command,
        requests::a_log_from_before_version_0_2_goes_on,
        newer_command::a_command_that_is_too_new_stops_its_partition_only,
        reads::journal_pages::a_journal_is_shown_page_by_page,
        http::pending::without_an_outcome_in_time_a_command_is_pending_and_a_retry_finds_it,
        settings::an_existing_topic_keeps_its_settings_and_setup_reports_differences,
        http::pending::each_request_under_a_key_is_answered_with_its_own_outcome,
        projectors::startup::concurrent_registrations_of_a_schema_succeed,
        reads::progress::progress_passes_over_markers_and_aborted_records,
        kafka::records_and_offsets_are_committed_together_or_not_at_all,
        kafka::a_batcher_keeps_the_order_of_each_partition_and_returns_the_offsets,
        kafka::a_tail_has_what_is_appended_after_it_was_opened,
        http::ending::a_service_that_still_waits_for_servers_ends_at_once,
        certificates::a_rejected_certificate_is_explained_with_the_option_to_change,
        auth::refuses_to_start_without_auth_unless_allowed,
        console::operations::actions_that_everybody_could_do_are_refused_at_the_start,
        settings::the_sample_names_every_option_with_its_default,
        deployment::compose::the_file_is_valid,
        deployment::compose::each_setting_reaches_the_services,
        deployment::compose::the_audit_can_keep_its_checkpoint,
        deployment::compose::images_have_the_versions_of_the_tests,
        deployment::compose::the_image_has_what_is_started,
        deployment::compose::health_checks_of_servers_ask_them,
        deployment::image::the_dockerfile_keeps_the_rules,
        deployment::kubernetes::variables_are_options,
        deployment::kubernetes::manifests_agree_with_each_other,
        deployment::kubernetes::the_audit_keeps_its_checkpoint,
        deployment::kubernetes::members_are_not_added_for_what_is_paused_or_stopped,
        deployment::kubernetes::alerts_are_those_of_prometheus,
        deployment::kubernetes::examples_of_servers_have_what_is_needed,
        deployment::kubernetes::the_example_of_a_kafka_user_has_its_grants,
        deployment::pods::members_can_commit_and_leave_before_they_are_killed,
        deployment::pods::ingest_answers_its_requests_before_it_is_killed,
        deployment::pods::only_the_small_overlay_admits_anonymous_clients,
        deployment::pods::the_audit_has_memory_for_the_rate_of_production,
        deployment::pods::the_pod_of_operators_is_permitted_what_it_needs,
        deployment::users::each_service_has_a_user_of_its_own_in_postgres,
        deployment::users::the_example_of_postgres_has_the_users,
        examples::checks::errors_of_a_page_are_reported,
        metrics::the_page_lists_what_is_exported,
        metrics::dashboard_and_rules_use_metrics_that_exist,
        metrics::each_alert_leads_to_its_heading,
        settings::a_kafka_setting_that_guarantees_depend_on_is_rejected_at_the_start,
    ]
}

/// Those that take long (`scripts/test --all`).
fn long_trials(times: &Times) -> Vec<Trial> {
    trials![
        times,
        control::operators_pause_skip_and_see_what_groups_do,
        recovery::read_tables_and_cart_events_are_rebuilt,
        reconcile::each_defect_is_reported,
        hostile::hostile_clients_block_no_other_client,
        guards::timestamps_by_position_keep_an_old_logs_processor_out_of_the_journal,
        log_identity::commands_of_an_accepted_log_are_new,
        log_identity::purchases_of_an_accepted_log_are_added,
        projectors::two_instances::an_instance_stuck_in_a_rebalance_joins_its_group_again,
        parking::a_parked_row_is_no_finding_and_a_read_does_not_promise_it,
        console::away::a_server_that_is_away_is_named_and_the_others_are_shown,
        uninstall::an_installation_is_removed_and_its_neighbour_stays,
        openapi::the_service_matches_its_document,
        projectors::offset_guard::a_database_that_does_not_answer_is_retried,
        projectors::two_instances::partitions_move_in_the_middle_of_the_work,
        recovery::the_journal_and_all_of_kafka_are_rebuilt,
        clocks::a_clock_that_is_a_day_off_delays_no_answer,
        parking::a_crash_at_any_point_of_parking_changes_nothing,
        projectors::parked_rows::rows_that_cannot_be_kept_are_parked_and_the_others_are_exact,
        projectors::parked_rows::a_crash_while_rows_are_parked_or_tried_changes_nothing,
        projectors::parked_rows::a_retry_that_comes_late_adds_nothing_twice,
        projectors::parked_rows::retries_that_are_killed_or_come_twice_add_each_record_once,
        projectors::parked_arrivals::purchases_that_arrive_during_a_try_count_once,
        projectors::parked_guard::a_batch_that_passes_a_record_over_sees_a_try_that_comes_late,
        projectors::parked_guard::a_projector_that_knows_no_parked_rows_stops_at_them,
        projectors::parked_full::a_partition_with_too_many_parked_rows_is_drained_by_retries,
        operators::parked::tries_that_are_killed_or_come_twice_decide_each_command_once,
        operators::together::of_two_operators_at_once_one_comes_last_or_is_refused,
        operators::killed::a_killed_pause_resume_or_skip_is_done_by_its_repeat,
        operators::generations::a_paused_generation_is_built_after_the_resume,
        operators::generations::a_skip_holds_for_all_generations_or_is_refused,
        operators::parked::a_cart_is_parked_while_generations_are_switched,
        parking::discard::a_discarded_command_is_one_dead_letter_and_those_behind_it_are_decided,
        parking::discard::a_killed_discard_is_done_by_its_repeat,
        parking::discard::of_two_discards_at_once_there_is_one_dead_letter,
        parking::markers::markers_that_cannot_be_restored_stop_their_partition_only,
        parking::markers::carts_are_tried_in_a_partition_that_has_too_many,
        newer_command::a_command_that_is_too_new_parks_its_cart_where_that_is_wanted,
        newer_command::a_stop_ends_when_another_member_passes_the_command,
        rebuild::switches::readers_see_no_fall_while_generations_are_switched,
        rebuild::miscount::a_generation_that_miscounts_is_named_row_by_row_and_refused,
        rebuild::kills::a_killed_builder_and_a_killed_switch_go_on,
        rebuild::kills::a_switch_that_is_killed_between_its_records_goes_on,
        rebuild::kills::a_killed_drop_is_done_by_its_repeat,
        rebuild::kills::a_killed_rebuild_in_place_is_done_by_its_repeat,
        rebuild::operators::what_comes_in_the_middle_of_a_switch_is_seen,
        rebuild::parked_rows::parked_rows_count_as_a_difference_and_nothing_is_switched_to_them,
        rebuild::settling::without_the_wait_for_readers_one_sees_less_than_another,
        rebuild::in_place::a_table_known_by_name_gets_the_rows_of_another_generation,
        deployment::compose::compose_and_haproxy_accept_their_files,
        rebuild::in_place::balances_known_by_name_are_those_of_another_generation,
    ]
}

/// Those that need a browser, and more time.
fn browser_trials(times: &Times) -> Vec<Trial> {
    trials![
        times,
        console::browser::a_visitor_sees_what_the_tables_have_and_buys_with_the_keyboard,
        openapi::page::requests_are_sent_from_the_page,
    ]
}

/// Those that need the secured servers (`CART_SECURE=1 scripts/services up`), with the settings of the user `admin`.
fn secure_trials(times: &Times) -> Vec<Trial> {
    trials![
        times,
        secure::renewal::servers_take_new_certificates_without_an_error_of_a_client,
        secure::removal::each_grant_is_needed_by_the_service_that_has_it,
        secure::whole::the_whole_system_works_with_the_least_grants,
        secure::grants::a_grant_that_is_missing_or_too_many_is_named_by_the_doctor,
        secure::refused::wrong_clients_are_refused_and_say_why,
        secure::refused::plain_clients_are_refused_but_behind_the_registrys_proxy,
    ]
}

/// Those that start servers of their own at the ports of the fault tests, so that each runs alone.
fn own_servers_trials(times: &Times) -> Vec<Trial> {
    trials![
        times,
        faults::killed_servers_and_restarts_lose_and_double_nothing,
        doctor::own_servers::settings_of_whole_servers_are_named_with_what_to_do,
        losses::each_server_loses_all_its_data_and_is_restored,
        parking::damaged_file::a_cart_in_a_damaged_file_is_parked_until_the_file_is_whole,
        secure::clients::certificates_and_tokens_are_renewed_without_an_error,
    ]
}

fn main() -> ExitCode {
    let times = Times::default();
    let is_set = |name| std::env::var_os(name).is_some();
    let trials = if is_set("CART_TEST_SECURE") {
        secure_trials(&times)
    } else if is_set("CART_TEST_OWN_SERVERS") {
        own_servers_trials(&times)
    } else if is_set("CART_TEST_LONG") {
        long_trials(&times)
    } else {
        let mut trials = trials(&times);
        if is_set("CART_TEST_BROWSER") {
            trials.extend(browser_trials(&times));
        }
        trials
    };
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    if std::env::var_os("CART_TEST_TIMES").is_some() {
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        times.sort_unstable();
        for (time, name) in times.iter().rev() {
            anstream::println!("{:7.1} s  {name}", time.as_secs_f32());
        }
    }
    conclusion.exit_code()
}
