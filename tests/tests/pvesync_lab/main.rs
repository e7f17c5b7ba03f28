//! `pvesync` between two hypervisors: real thin pools, real QEMU, real SSH; what it did is read from both
//! hosts, not from what it says.

mod changes;
mod delta;
mod fleet;
mod flow;
mod moments;
mod refusals;

use std::process::ExitCode;
use tests::lab::{suite, Options};
use tests::named;

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        named![
            flow::a_dry_run_tells_the_plan_and_changes_nothing,
            flow::the_first_sync_copies_both_disks,
            flow::the_second_sync_of_the_running_vm_sends_what_it_wrote,
            flow::generations_are_verified_and_damage_is_found,
            flow::old_generations_go,
            flow::monitoring_is_told_how_old_a_replica_is,
            flow::generations_are_pinned_and_pruned,
            flow::a_replica_in_use_is_left_alone,
            moments::every_generation_of_a_writing_vm_shows_one_instant,
            moments::its_configuration_is_carried_over,
            moments::proxmox_could_roll_back_to_a_generation,
            refusals::the_vm_must_be_here_and_replicable,
            refusals::the_target_must_be_reachable,
            refusals::the_target_must_have_the_storages_and_room,
            refusals::what_others_have_on_the_target_is_left_alone,
            refusals::a_running_vms_disk_that_has_no_snapshots_needs_scratch_space,
            changes::a_replica_can_have_another_id_and_storage,
            changes::a_disk_may_come_and_another_grow,
            changes::a_replica_whose_disks_are_in_use_is_left_alone,
            changes::a_disk_that_is_gone_goes_with_its_last_generation,
            changes::two_runs_of_one_vm_exclude_each_other,
            changes::a_run_ends_before_the_sources_pool_is_full,
            changes::a_replica_may_be_overwritten_where_there_is_no_room_for_two,
            changes::in_one_cluster_the_configuration_is_kept_aside,
            delta::changes_that_are_not_proved_are_not_trusted,
            delta::a_replica_may_be_a_file,
            delta::only_what_changed_is_read,
            fleet::one_broken_vm_does_not_stop_the_rest_of_a_fleet,
        ],
    )
}
