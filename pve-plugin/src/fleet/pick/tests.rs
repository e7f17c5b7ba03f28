use super::*;
use clap::Parser;
use std::fs;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    selection: SelectionArgs,
}

/// A cluster of two nodes with all that may be left out.
fn cluster() -> (tempfile::TempDir, PveTree) {
    let dir = tempfile::tempdir().unwrap();
    let pve = dir.path().join("etc/pve");
    let guest = |path: &str, text: &str| {
        let path = pve.join("nodes").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let vm = |id: u32, text: &str| guest(&format!("pve1/qemu-server/{id}.conf"), text);
    vm(101, "name: web\ntags: prod;web\n");
    vm(102, "name: db\ntags: PROD\n");
    vm(103, "name: gold\ntemplate: 1\ntags: prod\n");
    vm(
        104,
        "#[rblocksync] rblocksync-pair: 00000000-0000-0000-0000-000000000007\nlock: migrate\ntags: prod\n",
    );
    vm(105, "name: test\n\n[snap]\ntags: prod\n");
    vm(106, "scsi0: local:x,\u{1}broken\nnot a line\nscsi99999\n");
    guest("pve1/lxc/110.conf", "hostname: ct\ntags: prod\nlxc.x: y\n");
    guest("pve2/qemu-server/201.conf", "name: far\ntags: prod\n");
    guest("pve1/qemu-server/README", "no guest");
    fs::write(
        pve.join("user.cfg"),
        "user:root@pam:1:0::::::\npool:shop:The shop:101,103,201:local:\npool:shop/db::102::\npool:none:::\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("nodes/pve1", pve.join("local")).unwrap();
    let tree = PveTree::new(dir.path());
    (dir, tree)
}

fn selection(words: &str) -> SelectionArgs {
    let words = std::iter::once("x").chain(words.split_whitespace());
    Line::try_parse_from(words).unwrap().selection
}

fn picked(tree: &PveTree, words: &str) -> (String, Vec<String>) {
    let chosen = pick(&selection(words), tree).unwrap();
    (chosen.vms.join(" "), chosen.left_out)
}

#[test]
fn ids_ranges_and_exclusions() {
    let (_dir, tree) = cluster();
    let ids = |words| picked(&tree, words).0;
    assert_eq!(ids("101,102"), "101 102");
    assert_eq!(ids("101 102"), "101 102");
    // What is listed is taken, whether or not it is there. Its own run says what is wrong with it.
    assert_eq!(ids("101,999,201"), "101 201 999");
    assert_eq!(ids("100-102"), "101 102");
    assert_eq!(ids("101-102,101"), "101 102");
    assert_eq!(ids("101-105 --exclude-vm 102"), "101 105");
    assert_eq!(ids("101,102 --exclude-vm 100-101"), "102");
    assert_eq!(ids("1000-999999999"), "");
    let (_, left_out) = picked(&tree, "103-110");
    assert_eq!(
        left_out,
        [
            "110 (containers)",
            "104 (replicas of other hosts' VMs)",
            "103 (templates)"
        ]
    );
}

#[test]
fn all_of_this_node_but_what_is_no_vm_of_its_own() {
    let (_dir, tree) = cluster();
    let (ids, left_out) = picked(&tree, "--all --exclude-vm 106");
    assert_eq!(ids, "101 102 105");
    assert_eq!(
        left_out,
        [
            "110 (containers)",
            "201 (on node pve2)",
            "104 (replicas of other hosts' VMs)",
            "103 (templates)"
        ]
    );
}

#[test]
fn tags_and_pools() {
    let (_dir, tree) = cluster();
    let (ids, left_out) = picked(&tree, "--tag prod");
    assert_eq!(ids, "101 102");
    assert_eq!(left_out.len(), 4);
    assert_eq!(picked(&tree, "--tag web --tag nothing").0, "101");
    let (ids, left_out) = picked(&tree, "--pool shop");
    assert_eq!(ids, "101");
    assert_eq!(left_out, ["201 (on node pve2)", "103 (templates)"]);
    assert_eq!(
        picked(&tree, "--pool shop --pool shop/db 105").0,
        "101 102 105"
    );
    assert_eq!(picked(&tree, "--pool none").0, "");
    let e = pick(&selection("--pool shopp"), &tree).unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
}

#[test]
fn a_vm_that_cannot_be_read_is_a_failure_and_not_left_out() {
    let (dir, tree) = cluster();
    let file = dir.path().join("etc/pve/nodes/pve1/qemu-server/107.conf");
    fs::write(file, [0xff, 0xfe]).unwrap();
    let chosen = pick(&selection("--all"), &tree).unwrap();
    let failed: Vec<String> = chosen.failed.iter().map(|(id, _)| id.to_string()).collect();
    assert!(failed.contains(&"107".to_owned()), "{failed:?}");
    assert_eq!(chosen.vms.len() + failed.len(), 5, "{chosen:?}");
}

#[test]
fn a_replica_that_was_taken_over_is_a_vm() {
    let (dir, tree) = cluster();
    let file = dir.path().join("etc/pve/nodes/pve1/qemu-server/104.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("lock: migrate\n", "")).unwrap();
    assert_eq!(picked(&tree, "104-105").0, "104 105");
}

#[test]
fn a_single_id_is_told_from_a_list() {
    let single = |words| selection(words).single().map(Vmid::get);
    assert_eq!(single("101"), Some(101));
    for words in [
        "101,102",
        "101-101",
        "101 102",
        "101 --exclude-vm 102",
        "101 --all",
        "--all",
        "--tag x",
    ] {
        assert_eq!(single(words), None, "{words}");
    }
    for words in ["", "--exclude-vm 101", "abc", "101-", "99"] {
        let words = std::iter::once("x").chain(words.split_whitespace());
        assert!(Line::try_parse_from(words).is_err());
    }
}
