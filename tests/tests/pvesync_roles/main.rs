//! Changes of roles between two hypervisors: who may run the VM, and that there is always just one that does. On small
//! VMs, a thin volume and a file each.

mod downtime;
mod early;
mod failback;
mod failover;
mod guard;
mod live;
mod migrate;
mod restricted;
mod returned;
mod trial;

use std::process::ExitCode;
use tests::lab::{suite, Options};
use tests::named;

/// Asks for the measurement of a downtime, which takes ten minutes and judges nothing: docs/benchmarks.md.
const DOWNTIME: &str = "DOWNTIME";

fn main() -> ExitCode {
    if std::env::var_os(DOWNTIME).is_some() {
        return suite::run(
            Options::default(),
            named![downtime::it_is_told_how_long_ten_gib_stand_still],
        );
    }
    suite::run(
        Options::default(),
        named![
            trial::a_generation_boots_and_nothing_of_the_test_is_left,
            trial::a_test_that_was_killed_is_swept,
            guard::a_replica_does_not_start_even_if_it_is_unlocked,
            failover::a_source_that_answers_is_not_replaced,
            failover::killed_at_each_record_an_older_generation_takes_over,
            failover::the_old_source_is_refused_when_it_is_back,
            migrate::a_vm_moves_with_all_its_disks,
            migrate::what_has_gone_does_not_start,
            migrate::the_first_sync_back_is_a_delta,
            migrate::killed_at_its_records_it_still_arrives,
            migrate::a_guest_that_does_not_listen_stays,
            live::a_guest_moves_and_does_not_notice,
            live::it_goes_on_where_it_was_when_the_move_is_killed,
            live::what_cannot_go_along_is_refused_while_it_runs,
            early::a_guest_that_waits_early_is_one_whoever_is_killed,
            failback::a_vm_comes_back_after_a_failover,
            restricted::a_key_that_only_adds_keeps_backups,
            restricted::a_key_that_writes_prunes_and_mends_but_moves_nothing,
            restricted::a_key_with_roles_moves_vms_there_and_back,
            restricted::nothing_is_left_of_a_key_that_is_taken_away,
            returned::a_host_that_cannot_ask_does_as_it_is_told,
            returned::a_source_that_was_replaced_does_not_start_its_vm,
        ],
    )
}
