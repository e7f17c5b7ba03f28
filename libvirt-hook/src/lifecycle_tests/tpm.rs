//! The state of an emulated TPM on the way of its domain.

use super::{world, World};
use crate::host::Host;
use crate::source;
use rblocksync::hypervisor::{RoleHypervisor, TrialHypervisor};
use rblocksync::replica::{Generation, Role};
use std::sync::Arc;

/// The domain's UUID.
const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";
const FILE: &str = "tpm2/tpm2-00.permall";

impl World {
    fn with_tpm(&self, text: &str) -> String {
        let tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices>";
        text.replace("</devices>", tpm)
    }

    fn write_state(&self, uuid: &str, bytes: &[u8]) {
        let file = self.dir.path().join("swtpm").join(uuid).join(FILE);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    fn state(&self, uuid: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dir.path().join("swtpm").join(uuid).join(FILE)).ok()
    }

    /// A generation of the domain with a TPM in the state `bytes`.
    fn sealed(&self, bytes: &[u8]) -> Generation {
        let mut request = self.request(None, &[]);
        request.config = self.with_tpm(&request.config);
        self.write_state(UUID, bytes);
        self.memory
            .define(&self.with_tpm(&self.source_text()))
            .unwrap();
        let state = self.target.state("web01").unwrap();
        self.memory.undefine("web01").unwrap();
        let (mut generation, _) = self.publish(&request);
        generation.state = state;
        generation
    }
}

#[test]
fn a_replica_that_is_taken_over_has_the_state_of_its_generation() {
    let world = world();
    let generation = world.sealed(b"sealed");
    assert!(generation.state.is_some());
    // What this host has of an earlier time goes.
    world.write_state(UUID, b"older");
    let pair = world.pair(&world.request(None, &[]), Role::Primary);
    world.target.promote(&pair, &generation).unwrap();
    assert_eq!(world.state(UUID).unwrap(), b"sealed");
    // Once it is the VM's own, it is not touched by somebody who was cut off and does it again.
    world.write_state(UUID, b"the guest's");
    world.target.promote(&pair, &generation).unwrap();
    assert_eq!(world.state(UUID).unwrap(), b"the guest's");
}

#[test]
fn a_clone_has_a_state_of_its_own_that_goes_with_it() {
    let world = world();
    let generation = world.sealed(b"sealed");
    world.write_state(UUID, b"the original's");
    let trial = world.trial(&generation);
    let pair = world.pair(&world.request(None, &[]), Role::Replica);
    world.target.show_clone(&pair, &generation, &trial).unwrap();
    let id = trial.id.to_string();
    assert_eq!(world.state(&id).unwrap(), b"sealed");
    world.target.end_clone(&trial).unwrap();
    assert_eq!(world.state(&id), None);
    assert_eq!(world.state(UUID).unwrap(), b"the original's");
}

#[test]
fn a_point_in_time_reads_the_state_unless_it_is_left_out() {
    let world = world();
    world.write_state(UUID, b"now");
    let text = world.with_tpm(&world.source_text());
    world.memory.define(&text).unwrap();
    let host: Arc<dyn Host> = world.memory.clone();
    let read = |excluded: &[String]| {
        let runtime = source::runtime(&host, "web01", excluded).unwrap();
        runtime.state.and_then(|read| read().unwrap())
    };
    let first = read(&[]).unwrap();
    world.write_state(UUID, b"then");
    assert_ne!(read(&[]).unwrap(), first, "it is read when it is asked for");
    assert_eq!(read(&["tpm".to_owned()]), None);
}
