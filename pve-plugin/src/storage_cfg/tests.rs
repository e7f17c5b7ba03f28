#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const USUAL: &str = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup\n\n\
    lvmthin: local-lvm\n\tthinpool data\n\tvgname pve\n\tcontent rootdir,images\n\n\
    # a comment\nnfs: nas1\n\texport /srv\n\tserver 10.0.0.9\n\tpath /mnt/pve/nas1\n\tcontent images\n\n\
    dir: ssd\n\tpath /mnt/ssd\n\tcontent images\n\tnodes pve1,pve2\n\tis_mountpoint yes\n\n\
    dir: off\n\tdisable\n\tpath /mnt/off\n\tshared 1\n";

fn dir(cfg: &StorageCfg, id: &str) -> (PathBuf, PathBuf, Option<PathBuf>, bool) {
    match &cfg.get(id).unwrap().storage {
        Storage::Dir {
            path,
            images,
            mountpoint,
            volume_chains,
        } => (
            path.clone(),
            images.clone(),
            mountpoint.clone(),
            *volume_chains,
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_usual_file_is_understood_whole() {
    let cfg = StorageCfg::parse(USUAL);
    assert!(cfg.warnings().is_empty(), "{:?}", cfg.warnings());
    let ids: Vec<_> = cfg.entries().iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["local", "local-lvm", "nas1", "ssd", "off"]);
    assert_eq!(
        cfg.get("local-lvm").unwrap().storage,
        Storage::LvmThin {
            vgname: "pve".into(),
            thinpool: "data".into()
        }
    );
    let nas = cfg.get("nas1").unwrap();
    assert_eq!((nas.kind(), nas.shared), ("nfs", true));
    assert!(nas.holds_images() && !cfg.get("local").unwrap().holds_images());
    assert_eq!(
        dir(&cfg, "ssd"),
        (
            "/mnt/ssd".into(),
            "images".into(),
            Some("/mnt/ssd".into()),
            false
        )
    );
    assert!(cfg.get("off").unwrap().disabled && cfg.get("off").unwrap().shared);
}

#[test]
fn usable_says_why_not() {
    let cfg = StorageCfg::parse(USUAL);
    assert!(cfg.usable("ssd", "pve1").is_ok());
    for (id, node, said) in [
        ("ssd", "pve3", "only on pve1, pve2"),
        ("off", "pve1", "is disabled"),
        ("none", "pve1", "there are local, local-lvm, nas1"),
    ] {
        let e = cfg.usable(id, node).unwrap_err();
        assert!(e.to_string().contains(said), "{e}");
    }
}

#[test]
fn a_header_right_below_a_section_is_ignored_as_by_proxmox() {
    let cfg =
        StorageCfg::parse("dir: d1\n\tpath /d1\nlvmthin: thin\n\tvgname pve\n\tthinpool data\n");
    assert!(cfg.get("thin").is_none());
    let e = cfg.usable("thin", "pve1").unwrap_err().to_string();
    assert!(e.contains("line 3 is ignored: \"lvmthin: thin\""), "{e}");
}

#[test]
fn storages_with_faults_are_ignored_with_a_warning() {
    for bad in [
        "lvmthin: thin\n\tvgname pve\n",
        "lvmthin: thin\n\tvgname -f\n\tthinpool data\n",
        "lvmthin: thin\n\tvgname a/b\n\tthinpool data\n",
        "dir: thin\n\tpath relative\n",
        "dir: thin\n\tpath /a/../b\n",
        "dir: thin\n\tpath /a\n\tcontent-dirs images=../x\n",
        "dir: x\n\tpath /a\n",
    ] {
        let cfg = StorageCfg::parse(bad);
        assert_eq!(cfg.entries().len(), 1, "{bad:?}: only local");
        assert_eq!(cfg.warnings().len(), 1, "{bad:?}");
    }
}

#[test]
fn local_is_always_there() {
    for text in [
        "",
        "dir: local\n\tpath /elsewhere\n",
        "nfs: local\n\tpath /x\n",
    ] {
        let cfg = StorageCfg::parse(text);
        assert_eq!(dir(&cfg, "local").0, Path::new("/var/lib/vz"), "{text:?}");
    }
    let cfg = StorageCfg::parse("dir: local\n\tnodes other\n\tcontent iso\n");
    assert!(cfg.usable("local", "pve1").is_ok());
    assert!(!cfg.get("local").unwrap().holds_images());
}

#[test]
fn options_that_move_or_chain_images_are_seen() {
    let cfg = StorageCfg::parse(
        "dir: d1\n\tpath /d1\n\tcontent-dirs iso=i,images=vm/disks\n\tis_mountpoint /d\n\tsnapshot-as-volume-chain 1\n",
    );
    assert_eq!(
        dir(&cfg, "d1"),
        ("/d1".into(), "vm/disks".into(), Some("/d".into()), true)
    );
}

#[test]
fn volumes_are_named_as_proxmox_does() {
    let cfg = StorageCfg::parse(USUAL);
    let vmid = Vmid::new(201).unwrap();
    let name = |id: &str| {
        let e = cfg.get(id).unwrap();
        (
            e.disk_volid(vmid, 3, Format::Raw).unwrap().to_string(),
            e.cloudinit_volid(vmid).unwrap().to_string(),
        )
    };
    assert_eq!(
        name("local-lvm"),
        (
            "local-lvm:vm-201-disk-3".into(),
            "local-lvm:vm-201-cloudinit".into()
        )
    );
    assert_eq!(
        name("ssd"),
        (
            "ssd:201/vm-201-disk-3.raw".into(),
            "ssd:201/vm-201-cloudinit.qcow2".into()
        )
    );
    assert_eq!(name("nas1").0, "nas1:201/vm-201-disk-3.raw");
}

const OTHER_KINDS: &str = "lvm: san\n\tvgname san\n\n\
    nfs: nas2\n\tserver x\n\texport /e\n\n\
    btrfs: data\n\tpath /mnt/data\n\n\
    zfspool: tank\n\tpool rpool/vm\n\n\
    rbd: ceph\n\tnamespace branch\n\n\
    glusterfs: bricks\n\tvolume gv0\n";

#[test]
fn each_kind_names_its_volumes_in_its_own_way() {
    let cfg = StorageCfg::parse(OTHER_KINDS);
    assert!(cfg.warnings().is_empty(), "{:?}", cfg.warnings());
    let vmid = Vmid::new(201).unwrap();
    let names = |id: &str| {
        let entry = cfg.get(id).unwrap();
        let base = entry.base_volid(vmid, 0, Format::Raw).unwrap();
        [
            entry.disk_volid(vmid, 3, Format::Qcow2).unwrap(),
            base,
            entry.cloudinit_volid(vmid).unwrap(),
        ]
        .map(|volid| volid.volname().to_owned())
    };
    assert_eq!(
        names("san"),
        ["vm-201-disk-3.qcow2", "base-201-disk-0", "vm-201-cloudinit"]
    );
    for flat in ["tank", "ceph"] {
        assert_eq!(
            names(flat),
            ["vm-201-disk-3", "base-201-disk-0", "vm-201-cloudinit"]
        );
    }
    assert_eq!(
        names("nas2"),
        [
            "201/vm-201-disk-3.qcow2",
            "201/base-201-disk-0.raw",
            "201/vm-201-cloudinit.qcow2"
        ]
    );
    assert_eq!(names("data")[1], "201/base-201-disk-0.raw");
    assert!(cfg
        .get("bricks")
        .unwrap()
        .disk_volid(vmid, 0, Format::Raw)
        .is_err());
    // Proxmox mounts a share there, and nothing else is one.
    assert_eq!(dir(&cfg, "nas2").2, Some("/mnt/pve/nas2".into()));
    assert!(cfg.get("nas2").unwrap().is_network() && cfg.get("nas2").unwrap().shared);
    assert!(cfg.get("nas2").unwrap().check_present().is_err());
    assert!(!cfg.get("san").unwrap().shared && cfg.get("ceph").unwrap().shared);
    assert_eq!(
        cfg.get("ceph").unwrap().storage,
        Storage::Rbd {
            pool: "rbd".into(),
            namespace: Some("branch".into())
        }
    );
}

#[test]
fn names_that_would_lead_elsewhere_make_no_storage() {
    for bad in [
        "zfspool: tank\n\tpool rpool/../x\n",
        "zfspool: tank\n\tpool /rpool\n",
        "zfspool: tank\n\tpool -f\n",
        "zfspool: tank\n",
        "rbd: ceph\n\tpool a/b\n",
        "rbd: ceph\n\tnamespace ..\n",
        "lvm: san\n\tvgname a b\n",
        "btrfs: data\n\tpath data\n",
        "cifs: smb\n\tpath /a/../b\n",
    ] {
        let cfg = StorageCfg::parse(bad);
        assert_eq!(cfg.entries().len(), 1, "{bad:?}: only local");
        assert_eq!(cfg.warnings().len(), 1, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_always_has_local(text in "(?s)([a-z]{2,6}: [a-z-]{1,5}\n|\t[a-z]{2,8}( [a-z/.]{1,6})?\n|\n|.{0,9}){0,20}") {
        prop_assert!(StorageCfg::parse(&text).get("local").is_some());
    }
}
