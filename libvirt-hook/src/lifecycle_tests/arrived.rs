//! What lies over the disks of a guest that has come here with its memory is in its definition, and nothing else is.

use super::*;
use crate::overlay;
use rblocksync::hypervisor::LiveHypervisor;

/// A replica whose guest has come, on its disks as `act` leaves them. Tells what may lie over its raw disk.
fn arrived(world: &World, act: impl FnOnce(&mut Domain)) -> (TargetPair, Generation, String) {
    let request = world.request(None, &[]);
    let (generation, _) = world.publish(&request);
    let over = format!("{}.rbs-over-raw", generation.disks[1].target);
    std::fs::write(&over, "").unwrap();
    world.memory.change("web01", |found| {
        let mut live = Domain::parse(&found.xml).unwrap();
        standstill::lift(&mut live);
        act(&mut live);
        found.live = Some(live.to_string());
        found.state = State::Running;
    });
    (world.pair(&request, Role::Primary), generation, over)
}

#[test]
fn what_an_earlier_move_has_left_is_not_taken_for_the_guests() {
    let world = world();
    let (pair, generation, over) = arrived(&world, |_| {});
    world.target.promote_received(&pair, &generation).unwrap();
    let text = world.xml("web01");
    assert!(
        text.contains("taken-over") && !text.contains(&over),
        "{text}"
    );
}

#[test]
fn what_the_guest_has_brought_is_there_when_it_is_started_again() {
    let world = world();
    let (pair, generation, over) = arrived(&world, overlay::impose_present);
    world.target.promote_received(&pair, &generation).unwrap();
    assert!(world.xml("web01").contains(&over));
}

#[test]
fn of_a_guest_that_has_ended_the_files_tell() {
    let world = world();
    let (pair, generation, over) = arrived(&world, overlay::impose_present);
    world.memory.destroy("web01").unwrap();
    world.target.promote_received(&pair, &generation).unwrap();
    assert!(world.xml("web01").contains(&over));
}
