#![allow(clippy::unwrap_used)]

use super::*;

fn spec(key: &str, volume: &str, format: ImageFormat) -> DiskSpec {
    DiskSpec {
        key: key.into(),
        volume: volume.into(),
        size: 1 << 20,
        used: 1 << 20,
        format,
    }
}

fn pool(name: &str, kind: PoolKind) -> Pool {
    Pool {
        name: name.into(),
        kind,
        active: true,
    }
}

/// Where a disk goes in a host with the directories `images` and `fast`, below a directory of the test's.
fn placed(
    root: &Path,
    (disk, source_pool): (&DiskSpec, Option<&str>),
    map: &[(&str, &str)],
    target_vm: &str,
    wanted: Option<ImageFormat>,
) -> Result<String> {
    let pools = [
        pool("default", PoolKind::Dir(root.join("images"))),
        pool("fast", PoolKind::Dir(root.join("fast"))),
        pool("nfs", PoolKind::NetDir(root.join("nfs"))),
        pool("ceph", PoolKind::Other("rbd".into())),
    ];
    let map: Vec<_> = map
        .iter()
        .map(|(a, b)| (a.to_string(), b.to_string()))
        .collect();
    let placing = Placing {
        host: "host2",
        pools: &pools,
        map: &map,
        vm: "web01",
        target_vm,
    };
    let placed = placing.fresh(disk, source_pool, wanted, &BTreeSet::new())?;
    let Location::File { path, .. } = &placed.1 else {
        panic!("no file")
    };
    assert_eq!(placed.0, path.display().to_string());
    Ok(path.strip_prefix(root).unwrap().display().to_string())
}

#[test]
fn files_keep_their_names_where_they_can() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for dir in ["images", "fast"] {
        std::fs::create_dir(root.join(dir)).unwrap();
    }
    let in_images = root.join("images/web01.qcow2").display().to_string();
    let of = |volume: &str, format| spec("vda", volume, format);
    let qcow2 = of(&in_images, ImageFormat::Qcow2);
    let elsewhere = of("/srv/web01.img", ImageFormat::Qcow2);
    let lv = of("/dev/vg0/web01-root", ImageFormat::Raw);
    let foreign = of("local-lvm:vm-101-disk-0", ImageFormat::Raw);
    let none = None;
    let raw = Some(ImageFormat::Raw);
    let fast = root.join("fast").display().to_string();
    let images = root.join("images").display().to_string();
    type Row<'a> = (
        &'a DiskSpec,
        Option<&'a str>,
        Vec<(&'a str, &'a str)>,
        &'a str,
        Option<ImageFormat>,
        &'a str,
    );
    let table: Vec<Row> = vec![
        (&qcow2, None, vec![], "web01", none, "images/web01.qcow2"),
        (
            &qcow2,
            Some("gone"),
            vec![],
            "web01",
            none,
            "images/web01.qcow2",
        ),
        (
            &qcow2,
            Some("fast"),
            vec![],
            "web01",
            none,
            "fast/web01.qcow2",
        ),
        (
            &qcow2,
            Some("default"),
            vec![("default", "fast")],
            "web01",
            none,
            "fast/web01.qcow2",
        ),
        (
            &qcow2,
            Some("default"),
            vec![("vda", "fast")],
            "web01",
            none,
            "fast/web01.qcow2",
        ),
        (
            &qcow2,
            Some("default"),
            vec![("default", "fast")],
            "web01",
            raw,
            "fast/web01.raw",
        ),
        (&qcow2, None, vec![], "web02", none, "images/web02.qcow2"),
        (
            &qcow2,
            None,
            vec![(&images, &fast)],
            "web01",
            none,
            "fast/web01.qcow2",
        ),
        (
            &qcow2,
            None,
            vec![(&images, &fast)],
            "web02",
            raw,
            "fast/web02.raw",
        ),
        (
            &qcow2,
            None,
            vec![(&images, "/nowhere"), ("vda", "fast")],
            "web01",
            none,
            "fast/web01.qcow2",
        ),
        (
            &elsewhere,
            Some("default"),
            vec![],
            "db",
            none,
            "images/db.img",
        ),
        (
            &lv,
            None,
            vec![("vda", &fast)],
            "web01",
            none,
            "fast/web01-root.raw",
        ),
        (
            &lv,
            None,
            vec![("vda", "fast")],
            "x",
            none,
            "fast/x-root.raw",
        ),
        (
            &foreign,
            None,
            vec![],
            "web01",
            none,
            "images/vm-101-disk-0.raw",
        ),
        (
            &foreign,
            None,
            vec![("local-lvm", "fast")],
            "new",
            none,
            "fast/new-vda.raw",
        ),
    ];
    for (disk, pool, map, name, wanted, expected) in table {
        let got = placed(root, (disk, pool), &map, name, wanted).unwrap();
        assert_eq!(got, expected, "{} {map:?} as {name}", disk.volume);
    }
}

#[test]
fn what_has_no_place_is_told_where_it_could_go() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("images")).unwrap();
    let disk = spec("vda", "/nowhere/web01.qcow2", ImageFormat::Qcow2);
    for (pool, map, said) in [
        (None, vec![], "--pool vda=POOL"),
        (Some("gone"), vec![], "--pool gone=POOL"),
        (
            Some("default"),
            vec![("default", "missing")],
            "it has default, fast, nfs, ceph",
        ),
        (Some("default"), vec![("default", "nfs")], "network share"),
        (Some("default"), vec![("default", "ceph")], "type rbd"),
        (
            Some("default"),
            vec![("default", "fast/thin")],
            "no thin pool thin",
        ),
        (None, vec![("/nowhere", "/gone/too")], "no such directory"),
        (None, vec![("vda", "/gone/too")], "no directory /gone/too"),
    ] {
        let refused = placed(root.path(), (&disk, pool), &map, "web01", None).unwrap_err();
        assert!(refused.to_string().contains(said), "{refused} lacks {said}");
    }
    let climbs = spec("vda", "/a/../../etc/passwd", ImageFormat::Raw);
    assert!(placed(root.path(), (&climbs, None), &[("/a", "/b")], "web01", None).is_err());
}

#[test]
fn a_second_disk_of_the_same_name_gets_another() {
    let taken = BTreeSet::from(["/d/a.qcow2".to_owned()]);
    assert_eq!(
        free(Path::new("/d/a.qcow2"), "vdb", &taken),
        Path::new("/d/a-vdb.qcow2")
    );
    assert_eq!(free(Path::new("/d/b"), "vdb", &taken), Path::new("/d/b"));
}

#[test]
fn logical_volumes_are_known_by_their_paths() {
    let of = |path: &str| as_volume(Path::new(path));
    let found = Some(("vg-0".to_owned(), "web-root".to_owned()));
    assert_eq!(of("/dev/vg-0/web-root"), found);
    assert_eq!(of("/dev/mapper/vg--0-web--root"), found);
    assert_eq!(of("/dev/sda"), None);
    assert_eq!(of("/srv/vg/x"), None);
}
