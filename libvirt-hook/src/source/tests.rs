#![allow(clippy::unwrap_used)]

use super::*;
use crate::host::memory::Memory;

const DOMAIN: &str = "<domain><name>web01</name><uuid>00000000-0000-0000-0000-000000000001</uuid><os/><devices>\
    <disk type='file' device='disk'><driver type='raw'/><source file='@DIR@/a.raw'/><target dev='vda'/></disk>\
    <disk type='volume' device='disk'><driver type='raw'/><source pool='p' volume='b.raw'/><target dev='vdb'/></disk>\
    </devices></domain>";

fn world(dir: &Path) -> (Arc<Memory>, Arc<dyn Host>) {
    for name in ["a.raw", "b.raw"] {
        std::fs::write(dir.join(name), vec![1; 1 << 20]).unwrap();
    }
    let memory = Arc::new(Memory::default().with_dir_pool("p", dir));
    memory
        .define(&DOMAIN.replace("@DIR@", &dir.display().to_string()))
        .unwrap();
    (memory.clone(), memory)
}

#[test]
fn a_domain_is_resolved_with_its_volumes() {
    let dir = tempfile::tempdir().unwrap();
    let (_, host) = world(dir.path());
    let vm = resolve(&host, "web01", &Choice::default()).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let disks: Vec<_> = vm
        .disks
        .iter()
        .map(|d| (d.spec.key.clone(), d.spec.volume.clone(), d.spec.size))
        .collect();
    assert_eq!(
        disks,
        [
            ("vda".to_owned(), path("a.raw"), 1 << 20),
            ("vdb".to_owned(), path("b.raw"), 1 << 20)
        ]
    );
    assert_eq!(
        vm.identity.as_deref(),
        Some("00000000-0000-0000-0000-000000000001")
    );
    let config = Domain::parse(&vm.config).unwrap();
    let pools = marks::pools_of(&config);
    assert_eq!(
        pools.len(),
        2,
        "the one that is in it by its path, too: {pools:?}"
    );
    assert_eq!((vm.config_now)().unwrap(), vm.config);
    assert!(resolve(&host, "db", &Choice::default()).is_err_and(|e| e.kind() == Kind::NotFound));
}

#[test]
fn a_change_of_the_definition_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (memory, host) = world(dir.path());
    let runtime = runtime(&host, "web01", &[]).unwrap();
    assert!((runtime.stopped)().unwrap());
    memory.change("web01", |d| d.state = State::Running);
    assert!(!(runtime.stopped)().unwrap());
    memory.change("web01", |d| d.xml.push('\n'));
    assert_eq!((runtime.stopped)().unwrap_err().kind(), Kind::Busy);
}

#[test]
fn a_domain_in_no_state_to_be_replicated_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    type Change = fn(&mut Found);
    let table: [(Change, &str); 5] = [
        (|d| d.persistent = false, "transient"),
        (|d| d.saved = true, "managedsave-remove"),
        (|d| d.state = State::Crashed, "crashed"),
        (|d| d.state = State::Asleep, "dompmwakeup"),
        (
            |d| {
                d.state = State::Running;
                d.live = Some(d.xml.replace("a.raw", "overlay.raw"));
            },
            "its definition says",
        ),
    ];
    for (change, said) in table {
        let (memory, host) = world(dir.path());
        memory.change("web01", change);
        let refused = resolve(&host, "web01", &Choice::default())
            .map(drop)
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        assert!(
            refused.to_string().contains(said),
            "{refused} lacks {said:?}"
        );
    }
}

#[test]
fn variables_of_a_firmware_that_never_ran_are_no_disk_yet() {
    let dir = tempfile::tempdir().unwrap();
    let (memory, host) = world(dir.path());
    let nvram = dir.path().join("vars.fd");
    let os = format!("<os><nvram>{}</nvram></os>", nvram.display());
    memory.change("web01", |d| d.xml = d.xml.replace("<os/>", &os));
    let vm = resolve(&host, "web01", &Choice::default()).unwrap();
    assert_eq!(vm.disks.len(), 2);
    assert!(vm.notes[0].contains("never started"), "{:?}", vm.notes);
    std::fs::write(&nvram, vec![0; 540_672]).unwrap();
    let vm = resolve(&host, "web01", &Choice::default()).unwrap();
    assert_eq!(vm.disks[2].spec.key, NVRAM);
    // A disk that is not there is another matter.
    std::fs::remove_file(dir.path().join("a.raw")).unwrap();
    assert!(resolve(&host, "web01", &Choice::default()).is_err());
}
