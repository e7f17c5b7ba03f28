//! Properties of the readers over made-up files.

use crate::{storages, FIXTURES};
use proptest::prelude::*;
use pvesync::disks::resolve;
use pvesync::drive::{format_size, parse_size, DiskKey, Drive};
use pvesync::vm_config::VmConfig;
use pvesync::volid::{Vmid, Volid};
use std::collections::BTreeSet;

fn disk_key() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..4u8).prop_map(|n| format!("ide{n}")),
        (0..31u8).prop_map(|n| format!("scsi{n}")),
        (0..16u8).prop_map(|n| format!("virtio{n}")),
        (0..=255u8).prop_map(|n| format!("unused{n}")),
        Just("efidisk0".to_owned()),
        Just("tpmstate0".to_owned()),
    ]
}

/// Lines as they may stand in a damaged file: good ones, nearly good ones, noise.
fn any_line() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (disk_key(), 0..9u8).prop_map(|(k, n)| format!("{k}: local-lvm:vm-101-disk-{n},size=1G")),
        1 => (disk_key(), ".{0,20}").prop_map(|(k, v)| format!("{k}: {v}")),
        1 => (disk_key(), "[ \t:=]{0,2}").prop_map(|(k, s)| format!("{s}{k}{s}local-lvm:vm-101-disk-0")),
        2 => "(name|memory|args|delete|lock|snapstate): [ -~]{0,12}",
        1 => "\\[(PENDING|special:cloudinit|snap[0-9]|[^\\]]{0,6})\\]",
        1 => "#.{0,20}",
        1 => Just(String::new()),
        1 => ".{0,20}",
    ]
}

/// Disk keys a reader in a hurry finds above the first line that may be a section.
fn disk_keys_of_main(text: &str) -> BTreeSet<DiskKey> {
    text.lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| DiskKey::parse(line.split_once(':')?.0))
        .collect()
}

proptest! {
    #[test]
    fn parsing_loses_neither_bytes_nor_disks(lines in prop::collection::vec(any_line(), 0..20)) {
        let text = lines.join("\n");
        if let Ok(config) = VmConfig::parse(&text) {
            prop_assert_eq!(config.to_string(), text.clone());
            let found: BTreeSet<DiskKey> = config.drives().iter().map(|d| d.key).collect();
            prop_assert_eq!(found, disk_keys_of_main(&text));
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "(?s).{0,200}") {
        if let Ok(config) = VmConfig::parse(&text) {
            prop_assert_eq!(config.to_string(), text);
        }
    }

    #[test]
    fn a_damaged_file_never_passes_with_fewer_disks(
        which in 0..FIXTURES.len(), at in 0..2000usize, byte in any::<char>()
    ) {
        let (_, _, text) = FIXTURES[which];
        let mut chars: Vec<char> = text.chars().collect();
        let at = at % chars.len();
        chars[at] = byte;
        let damaged: String = chars.iter().collect();
        let before = VmConfig::parse(text).unwrap().drives().len();
        if let Ok(config) = VmConfig::parse(&damaged) {
            prop_assert_eq!(config.to_string(), damaged.clone());
            // A disk line may become a comment, another key, or part of its neighbour, but not vanish unseen.
            let lost = before.saturating_sub(config.drives().len());
            let line = damaged.lines().find(|line| !text.lines().any(|l| l == *line));
            let explained = lost <= 1 || line.is_some_and(|l| l.starts_with('['));
            prop_assert!(explained, "{} disks lost by {:?}", lost, line);
        }
    }

    #[test]
    fn every_disk_line_is_accounted_for(
        keys in prop::collection::btree_set(disk_key(), 1..12), options in prop::collection::vec(
            prop_oneof![Just(""), Just(",replicate=0"), Just(",size=8G"), Just(",media=cdrom")], 12)
    ) {
        let lines: Vec<String> = keys.iter().zip(&options).enumerate()
            .map(|(n, (key, options))| format!("{key}: local-lvm:vm-101-disk-{n}{options}\n"))
            .collect();
        let config = VmConfig::parse(&lines.concat()).unwrap();
        match resolve(Vmid::new(101).unwrap(), &config, &storages(), "pve1", &[]) {
            Ok(resolved) => {
                let accounted: BTreeSet<String> = resolved.disks.iter().map(|d| d.key.to_string())
                    .chain(resolved.skipped.iter().map(|s| s.key.clone()))
                    .collect();
                prop_assert_eq!(accounted, keys);
            }
            Err(e) => {
                let cd = lines.iter().any(|l| l.contains("media=cdrom"));
                prop_assert!(cd || e.to_string().contains("no disk"), "{}", e);
            }
        }
    }

    #[test]
    fn drive_lines_come_back(options in prop::collection::btree_map("[a-z][a-z_]{0,7}", "[ -+\\--<>-~]{0,6}", 0..5)) {
        let mut value = "local-lvm:vm-101-disk-0".to_owned();
        for (name, content) in &options {
            value.push_str(&format!(",{name}={content}"));
        }
        if let Ok(drive) = Drive::parse(DiskKey::parse("scsi0").unwrap(), &value) {
            prop_assert_eq!(drive.value(), value);
        }
    }

    #[test]
    fn sizes_come_back(bytes in prop_oneof![any::<u64>(), (0..64u32).prop_map(|s| 1 << s)]) {
        prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
    }

    #[test]
    fn volume_ids_stay_below_their_storage(text in "([a-z]{2}:)?(\\.\\.|\\.|/|-|[a-z]{1,3}|\\PC|\n|\0){0,6}") {
        if let Ok(volid) = Volid::parse(&text) {
            prop_assert_eq!(volid.to_string(), text);
            let below = std::path::Path::new(volid.volname());
            let normal = |c| matches!(c, std::path::Component::Normal(_));
            prop_assert!(below.components().all(normal));
        }
    }
}
