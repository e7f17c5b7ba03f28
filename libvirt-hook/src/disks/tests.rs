#![allow(clippy::unwrap_used)]

use super::*;

fn domain(devices: &str) -> Domain {
    Domain::parse(&format!(
        "<domain type='kvm'><name>web01</name><devices>{devices}</devices></domain>"
    ))
    .unwrap()
}

fn disk(rest: &str) -> String {
    format!("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/d/a.raw'/><target dev='vda'/>{rest}</disk>")
}

#[test]
fn every_kind_of_place_is_found() {
    let found = decide(
        &domain(
            "<disk type='file'><driver type='qcow2'/><source file='/d/a.qcow2'/><target dev='vda'/></disk>\
             <disk type='block' device='disk'><driver type='raw'/><source dev='/dev/vg/lv'/><target dev='vdb'/></disk>\
             <disk type='volume' device='disk'><driver type='raw'/><source pool='p' volume='v.raw'/><target dev='vdc'/><readonly/></disk>\
             <disk type='file' device='cdrom'><source file='/iso/x.iso'/><target dev='sda'/><readonly/></disk>\
             <disk type='file' device='floppy'><target dev='fda'/></disk>",
        ),
        &Choice::default(),
    )
    .unwrap();
    let disks: Vec<_> = found
        .disks
        .iter()
        .map(|d| (d.key.as_str(), d.place.clone(), d.format))
        .collect();
    assert_eq!(
        disks,
        [
            ("vda", Place::Path("/d/a.qcow2".into()), ImageFormat::Qcow2),
            ("vdb", Place::Path("/dev/vg/lv".into()), ImageFormat::Raw),
            (
                "vdc",
                Place::Volume {
                    pool: "p".into(),
                    volume: "v.raw".into()
                },
                ImageFormat::Raw
            ),
        ]
    );
    assert_eq!(
        found.notes,
        [
            "vdc: the guest only reads it; it is replicated all the same",
            "sda: what is in the cdrom drive is not replicated",
        ]
    );
    assert!(found.excluded.is_empty());
}

/// What is refused by name, and what can be left out.
#[test]
fn what_cannot_be_replicated_is_refused_and_can_be_left_out() {
    let table = [
        (disk("<transient/>"), "transient"),
        (disk("<shareable/>"), "shareable"),
        (disk("<readonly/><shareable/>"), "shareable"),
        (disk("<mirror job='copy'/>"), "block job"),
        (disk("<encryption format='luks'/>"), "encrypted"),
        ("<disk type='network' device='disk'><driver type='raw'/><source protocol='rbd' name='p/i'/><target dev='vda'/></disk>".into(), "rbd"),
        ("<disk type='network' device='disk'><driver type='raw'/><source protocol='iscsi' name='x'/><target dev='vda'/></disk>".into(), "iscsi"),
        ("<disk type='nvme' device='disk'><driver type='raw'/><source type='pci'/><target dev='vda'/></disk>".into(), "nvme"),
        ("<disk type='vhostuser' device='disk'><driver type='raw'/><source type='unix'/><target dev='vda'/></disk>".into(), "vhostuser"),
        ("<disk type='block' device='lun'><driver type='raw'/><source dev='/dev/sg'/><target dev='vda'/></disk>".into(), "lun"),
        ("<disk type='file' device='disk'><source file='/d/a'/><target dev='vda'/></disk>".into(), "does not tell its format"),
        ("<disk type='file' device='disk'><driver type='vmdk'/><source file='/d/a'/><target dev='vda'/></disk>".into(), "vmdk"),
        ("<disk type='file' device='disk'><driver type='raw'/><source file='d/a'/><target dev='vda'/></disk>".into(), "absolute"),
        ("<disk type='file' device='disk'><driver type='raw'/><target dev='vda'/></disk>".into(), "nothing is in it"),
    ];
    let other =
        "<disk type='file'><driver type='raw'/><source file='/d/b.raw'/><target dev='vdb'/></disk>";
    for (xml, why) in table {
        let domain = domain(&format!("{xml}{other}"));
        let refused = decide(&domain, &Choice::default()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused, "{xml}");
        assert!(refused.to_string().contains(why), "{refused} lacks {why:?}");
        assert!(refused.to_string().contains("--exclude vda"), "{refused}");
        let without = decide(&domain, &Choice::without(&["vda".into()])).unwrap();
        assert_eq!(without.disks.len(), 1);
        assert_eq!(
            without.excluded,
            [("vda".to_owned(), "--exclude".to_owned())]
        );
        assert_eq!(
            decide(&domain, &Choice::everything()).unwrap().disks.len(),
            1
        );
    }
}

#[test]
fn what_is_no_disk_and_holds_data_all_the_same() {
    let base = disk("");
    let tpm = format!(
        "{base}<tpm model='tpm-crb'><backend type='emulator'><source type='dir' path='/t'/></backend></tpm>"
    );
    let dimm = format!("{base}<memory model='nvdimm'><source><path>/d/n</path></source></memory>");
    for (devices, key) in [(tpm, TPM), (dimm, NVDIMM)] {
        let domain = domain(&devices);
        let refused = decide(&domain, &Choice::default()).unwrap_err();
        assert!(
            refused.to_string().contains(&format!("--exclude {key}")),
            "{refused}"
        );
        let without = decide(&domain, &Choice::without(&[key.into()])).unwrap();
        assert_eq!(without.excluded[0].0, key);
        assert_eq!(without.notes.len(), 1);
    }
    // What swtpm keeps where libvirt has it keep it is replicated, unless it is left out.
    let tpm = format!("{base}<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>");
    let with = decide(&domain(&tpm), &Choice::default()).unwrap();
    assert!(with.excluded.is_empty() && with.notes[0].contains("TPM"));
    let without = decide(&domain(&tpm), &Choice::without(&[TPM.into()])).unwrap();
    assert_eq!(without.excluded[0].0, TPM);
    let text = "<domain xmlns:qemu='q'><name>w</name><devices><disk><driver type='raw'/><source file='/a'/><target dev='vda'/></disk></devices>\
                <qemu:commandline><qemu:arg value='-drive'/><qemu:arg value='file=/x'/></qemu:commandline></domain>";
    let refused = decide(&Domain::parse(text).unwrap(), &Choice::default()).unwrap_err();
    assert!(
        refused.to_string().contains("--exclude commandline"),
        "{refused}"
    );
}

#[test]
fn the_firmware_s_variables_are_a_disk() {
    let text = "<domain><name>w</name><os><nvram template='/t'>/var/lib/libvirt/qemu/nvram/w_VARS.fd</nvram></os>\
                <devices><disk><driver type='raw'/><source file='/a'/><target dev='vda'/></disk></devices></domain>";
    let found = decide(&Domain::parse(text).unwrap(), &Choice::default()).unwrap();
    assert_eq!(found.disks[1].key, NVRAM);
    assert_eq!(
        found.disks[1].place,
        Place::Path("/var/lib/libvirt/qemu/nvram/w_VARS.fd".into())
    );
    let newer = text.replace(
        ">/var/lib/libvirt/qemu/nvram/w_VARS.fd<",
        " type='file' format='qcow2'><source file='/n'/><",
    );
    let found = decide(&Domain::parse(&newer).unwrap(), &Choice::default()).unwrap();
    assert_eq!(found.disks[1].place, Place::Path("/n".into()));
    assert_eq!(found.disks[1].format, ImageFormat::Qcow2);
}

#[test]
fn names_that_mean_nothing_are_refused() {
    let usage = decide(&domain(&disk("")), &Choice::without(&["vdz".into()])).unwrap_err();
    assert_eq!(usage.kind(), Kind::Usage);
    for key in ["", "nvram", "../x", "a b"] {
        let xml =
            format!("<disk><driver type='raw'/><source file='/a'/><target dev='{key}'/></disk>");
        assert!(
            decide(&domain(&xml), &Choice::default()).is_err(),
            "{key:?}"
        );
    }
    let twice = format!("{0}{0}", disk(""));
    assert!(decide(&domain(&twice), &Choice::default()).is_err());
    assert!(decide(&domain(""), &Choice::default()).is_err());
    for text in [
        "<network/>",
        "<domain><name>a/b</name></domain>",
        "<domain><name>..</name></domain>",
        "<domain/>",
    ] {
        assert!(Domain::parse(text).is_err(), "{text}");
    }
}

#[test]
fn what_ties_a_domain_to_its_host_is_named() {
    let devices = format!(
        "{}<hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/></source></hostdev>\
         <filesystem type='mount'><source dir='/srv/share'/></filesystem>",
        disk("")
    );
    let found = decide(&domain(&devices), &Choice::default()).unwrap();
    assert_eq!(
        found.notes,
        [
            "the pci device 3b:00.0 of this host that is passed through stays behind",
            "the directory /srv/share that the guest shares with this host is not replicated",
        ]
    );
}

proptest::proptest! {
    /// Whatever a definition has become, it is read or refused; and what may not start can be put right again.
    #[test]
    fn no_definition_makes_it_panic(at in 0..4000_usize, cut in 0..40_usize, with in "[<>/'= a-z0-9&;:]{0,12}") {
        let text = include_str!("../fixtures/web01.xml");
        let from = at.min(text.len());
        let to = (from + cut).min(text.len());
        if let (Some(head), Some(tail)) = (text.get(..from), text.get(to..)) {
            if let Ok(domain) = Domain::parse(&format!("{head}{with}{tail}")) {
                let _ = decide(&domain, &Choice::default());
                let _ = decide(&domain, &Choice::everything());
                let mut changed = domain.clone();
                crate::standstill::impose(&mut changed);
                crate::standstill::lift(&mut changed);
                proptest::prop_assert_eq!(changed, domain);
            }
        }
    }
}
