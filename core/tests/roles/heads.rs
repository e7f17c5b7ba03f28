//! What a driver under a policy may write to while a guest waits on the heads of its replica.

use rblocksync::agent::restrict::Policy;
use rblocksync::lvm::LvId;
use rblocksync::replica::{
    own_files, write_json, Layout, Location, Maps, Standing, TakeOver, TargetPair,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use uuid::Uuid;

const FORK: &str = "/dev/pve/rbs-fork_vm-101-disk-0";
const HEAD: &str = "/dev/pve/vm-101-disk-0";

fn writable(layout: &Layout, roles: bool) -> Vec<PathBuf> {
    let policy = format!("access = \"write\"\nroles = {roles}\nvms = [\"101\"]");
    let own = own_files(layout, &Policy::parse(&policy).unwrap()).unwrap();
    own.images.into_iter().map(|image| image.path).collect()
}

#[test]
fn heads_may_be_written_as_long_as_a_guest_waits_on_them() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().to_owned());
    let id = Uuid::new_v4();
    let mut pair = TargetPair {
        pair: id,
        source_host: Uuid::new_v4(),
        source_name: "host1".into(),
        vm: "101".into(),
        target_vm: "101".into(),
        volumes: BTreeMap::new(),
        storage_map: Vec::new(),
        maps: Maps::default(),
        forks: vec![Location::ThinLv {
            lv: LvId::new("pve", "vm-101-disk-0").unwrap(),
            pool: LvId::new("pve", "data").unwrap(),
        }],
        pinned: BTreeSet::new(),
        head: Some(1),
        last: 0,
        standing: Standing::replica(),
    };
    write_json(&layout.target_pair(id), &pair).unwrap();
    let fork = [PathBuf::from(FORK)];
    let both = [PathBuf::from(FORK), PathBuf::from(HEAD)];
    assert_eq!(writable(&layout, true), fork, "no guest waits");

    let order = TakeOver {
        pair: id,
        generation: 2,
        epoch: 2,
    };
    write_json(&layout.landing(id), &order).unwrap();
    assert_eq!(writable(&layout, true), both);
    assert_eq!(writable(&layout, false), fork, "none may come");

    write_json(&layout.sealing(id), &json!(null)).unwrap();
    assert_eq!(writable(&layout, true), fork, "they are being sealed");
    std::fs::remove_file(layout.sealing(id)).unwrap();

    pair.head = Some(2);
    write_json(&layout.target_pair(id), &pair).unwrap();
    assert_eq!(writable(&layout, true), fork, "they are sealed");
}
