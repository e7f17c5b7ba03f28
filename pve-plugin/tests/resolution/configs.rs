//! Reading configurations: nothing lost, sections kept apart.

use crate::{fixture, FIXTURES};
use pvesync::vm_config::{SectionKind, VmConfig};

fn keys(config: &VmConfig) -> Vec<String> {
    config.drives().iter().map(|d| d.key.to_string()).collect()
}

#[test]
fn files_come_back_byte_for_byte() {
    for (name, _, text) in FIXTURES {
        for text in [text.to_owned(), text.replace('\n', "\r\n")] {
            let config = VmConfig::parse(&text).unwrap();
            assert_eq!(config.to_string(), text, "{name}");
            assert!(
                config.warnings().is_empty(),
                "{name}: {:?}",
                config.warnings()
            );
        }
    }
}

#[test]
fn line_ends_of_dos_change_nothing_else() {
    for (name, _, text) in FIXTURES {
        let (unix, dos) = (
            VmConfig::parse(text).unwrap(),
            VmConfig::parse(&text.replace('\n', "\r\n")).unwrap(),
        );
        assert_eq!(unix.drives(), dos.drives(), "{name}");
        assert!(unix.main().entries().eq(dos.main().entries()), "{name}");
        assert_eq!(unix.main().description(), dos.main().description());
        assert!(unix
            .snapshots()
            .map(|s| s.0)
            .eq(dos.snapshots().map(|s| s.0)));
    }
}

#[test]
fn only_the_main_section_says_which_disks_there_are() {
    let (_, config) = fixture("snapshots");
    assert_eq!(keys(&config), ["scsi0", "scsi1", "unused0"]);
    assert_eq!(
        config.drives()[0].target.to_string(),
        "local-lvm:vm-120-disk-3"
    );
    assert_eq!(config.get("memory"), Some("4096"));
    assert_eq!(config.pending().unwrap().get("delete"), Some("scsi1"));
    let snapshots: Vec<_> = config
        .snapshots()
        .map(|(name, s)| (name, s.get("parent"), s.get("snaptime"), s.get("vmstate")))
        .collect();
    assert_eq!(
        snapshots,
        [
            (
                "after-upgrade",
                Some("before_upgrade"),
                Some("1743100000"),
                Some("local-lvm:vm-120-state-after-upgrade")
            ),
            ("before_upgrade", None, Some("1743000000"), None),
        ]
    );
    assert_eq!(config.main().description(), "Main notes");
    let (_, first) = config.snapshots().next().unwrap();
    assert_eq!(first.description(), "after the upgrade");
}

#[test]
fn a_description_never_turns_into_disks_or_sections() {
    let (_, config) = fixture("description");
    assert_eq!(keys(&config), ["virtio0"]);
    assert_eq!(config.snapshots().count(), 0);
    assert!(config.pending().is_none());
    assert_eq!(
        config.main().description(),
        "scsi7: local-lvm:vm-140-disk-7,size=7G\n[PENDING]\n\
         scsi8: local-lvm:vm-140-disk-8,size=8G\n[before]\n\
         two\nlines in one\n[rblocksync] rblocksync-pair: 11111111-1111-4111-8111-111111111111\n\
         100% done, Gr\u{fc}\u{df}e\nan old style line: scsi9"
    );
}

#[test]
fn sections_proxmox_skips_are_skipped_with_a_warning() {
    let config = VmConfig::parse(
        "scsi0: aa:vm-101-disk-0\n\n[a]\nscsi1: aa:vm-101-disk-1\n\n[special:other]\nscsi2: x\n\n\
         [has blank]\nnonsense\n\n[Pending]\nscsi3: aa:vm-101-disk-3\n",
    )
    .unwrap();
    assert_eq!(keys(&config), ["scsi0"]);
    assert_eq!(*config.pending().unwrap().kind(), SectionKind::Pending);
    let lines: Vec<_> = config.warnings().iter().map(|w| w.line).collect();
    assert_eq!(lines, [3, 6, 9]);
}

#[test]
fn lines_that_mean_nothing_are_skipped_with_a_warning() {
    let config = VmConfig::parse("delete: scsi0\n???\nname:\n Name: x\nname: y\n").unwrap();
    assert_eq!(config.name(), Some("y"));
    assert_eq!(config.warnings().len(), 4, "{:?}", config.warnings());
}

#[test]
fn a_file_that_may_hide_a_disk_is_refused_naming_the_line() {
    let cases = [
        "scsi31: a1:vm-101-disk-0\n",
        " scsi0: a1:vm-101-disk-0\n",
        "\u{feff}scsi0: a1:vm-101-disk-0\n",
        "SCSI0: a1:vm-101-disk-0\n",
        "scsi0 a1:vm-101-disk-0\n",
        "scsi0:\n",
        "scsi0: size=3G\n",
        "scsi0: disk.raw\n",
        "scsi0: a1:../etc/shadow\n",
        "scsi0: a1:vm-101-disk-0\nscsi0: a1:vm-101-disk-1\n",
        "cdrom: none\nide2: a1:vm-101-disk-0\n",
        "[snap\nscsi0: a1:vm-101-disk-0\n",
        "[snap] x\n",
        "[s1]\n[s1]\n",
        "[PENDING]\n[pending]\n",
        "virtio0: a1:vm-101-disk-0,size=1\u{1b}[2J\n",
    ];
    let texts: Vec<String> = cases
        .iter()
        .map(|text| {
            let text = format!("name: x\n{text}");
            format!("{}", VmConfig::parse(&text).unwrap_err())
        })
        .collect();
    insta::assert_snapshot!(texts.join("\n"));
}
