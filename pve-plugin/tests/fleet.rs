//! The program with several VMs, jobs and schedules, on a file tree that is a node's. Nothing can be synced there: its
//! children look for a node at `/`, and there is none, which is a failure of each of them.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let vms = dir.path().join("etc/pve/nodes/pve1/qemu-server");
        fs::create_dir_all(&vms).unwrap();
        for (id, text) in [
            (101, "name: a\ntags: prod\n"),
            (102, "name: b\ntags: prod\n"),
            (103, "name: gold\ntemplate: 1\ntags: prod\n"),
        ] {
            fs::write(vms.join(format!("{id}.conf")), text).unwrap();
        }
        std::os::unix::fs::symlink("nodes/pve1", dir.path().join("etc/pve/local")).unwrap();
        let jobs = dir.path().join("etc/pvesync/jobs.d");
        fs::create_dir_all(&jobs).unwrap();
        for dir in [jobs.parent().unwrap(), &jobs] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Node { dir }
    }

    fn job(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join("etc/pvesync/jobs.d").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pvesync"))
            .args(line.split_whitespace())
            .env("RBLOCKSYNC_ROOT", self.dir.path())
            .env("RBLOCKSYNC_STATE_DIR", self.dir.path().join("state"))
            .output()
            .unwrap()
    }

    fn code(&self, line: &str) -> (i32, String) {
        let out = self.run(line);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        (out.status.code().unwrap(), said)
    }
}

fn events(out: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn is_no_node() -> bool {
    !Path::new("/etc/pve/nodes").exists()
}

#[test]
fn each_vm_fails_in_its_own_words_and_the_report_has_them_all() {
    assert!(is_no_node(), "this test is not for a Proxmox node");
    let node = Node::new();
    let out = node.run("--json vm --tag prod --to host2 --keep 5");
    // None was done: the code is theirs.
    assert_eq!(out.status.code(), Some(1));
    let events = events(&out);
    let fleets: Vec<&Value> = events.iter().filter(|e| e["event"] == "fleet").collect();
    assert_eq!(fleets.len(), 1);
    let rows = fleets[0]["vms"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["state"], "failed");
        let why = row["why"].as_str().unwrap();
        assert!(why.contains("not a working Proxmox VE node"), "{why}");
    }
    assert_eq!(fleets[0]["left_out"][0], "103 (templates)");
    // What the children said is there as well, with their VM.
    let theirs = |vm: &str| {
        let of = |e: &&Value| e["event"] == "error" && e["vm"] == vm;
        events.iter().filter(of).count()
    };
    assert_eq!((theirs("101"), theirs("102")), (1, 1));
}

#[test]
fn people_get_a_line_when_one_starts_and_when_it_ends() {
    assert!(is_no_node(), "this test is not for a Proxmox node");
    let node = Node::new();
    let (code, said) = node.code("vm 101,102 --to host2 --parallel 1");
    assert_eq!(code, 1);
    for want in [
        "VM 101 to host2: started, no generation yet",
        "VM 102 to host2: failed: ",
        "2 runs: 0 done, 2 failed or not started",
        "pvesync: 2 of 2 failed or were not started: VM 101, 102",
    ] {
        assert!(said.contains(want), "{want}: {said}");
    }
    let (code, said) = node.code("--quiet vm 101,102 --to host2");
    assert_eq!(code, 1);
    assert!(!said.contains("started,") && said.contains("VM 101 to host2: failed: "));
}

#[test]
fn wrong_usage_is_found_before_anybody_is_started() {
    let node = Node::new();
    for (line, want) in [
        ("vm --to host2", "required"),
        ("vm 101-99 --to host2", "VMID"),
        ("vm 101,x --to host2", "VMID"),
        ("vm 101,102", "--to"),
        ("vm 101,102 --to host2 --target-vmid 900", "--target-vmid"),
        ("vm 101,102 --to host2 --parallel 0", "parallel"),
        ("vm 101,102 --to host2 --rpo 0s", "rpo"),
        ("vm 101,102 --to host:2", "host"),
        ("job run", "NAME"),
        ("schedule add web 101 --to host2", "--every"),
    ] {
        let (code, said) = node.code(line);
        assert_eq!(code, 2, "{line}: {said}");
        assert!(said.contains(want), "{line}: {said}");
    }
    assert_eq!(node.code("vm 300-400 --to host2").0, 1);
}

#[test]
fn jobs_are_checked_with_file_and_line() {
    let node = Node::new();
    assert_eq!(node.code("job check").0, 1);
    node.job(
        "good.toml",
        "tags = [\"prod\"]\nto = \"host2\"\nkeep = 5\nschedule = \"*:0/15\"\n",
    );
    let (code, said) = node.code("job check");
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("job good: in order; VM 101, 102 to host2"),
        "{said}"
    );
    assert!(said.contains("left out: 103 (templates)"), "{said}");

    // The program itself says which values its options take.
    node.job("bad.toml", "all = true\nto = \"host2\"\n\nkeep = 5000\n");
    node.job(
        "time.toml",
        "all = true\nto = \"host2\"\nschedule = \"25:00\"\n",
    );
    let (code, said) = node.code("job check");
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("bad.toml:4: keep: invalid value '5000'"),
        "{said}"
    );
    assert!(said.contains("job time: \"25:00\" is no time"), "{said}");
    assert!(said.contains("job good: in order"), "{said}");
    assert_eq!(node.code("job check good").0, 0);
    assert_eq!(node.code("job run bad").0, 2);
    assert_eq!(node.code("job run none").0, 1);

    let path = node.job("open.toml", "all = true\nto = \"host2\"\n");
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    let (code, said) = node.code("job run open");
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("writable by others"), "{said}");
}

#[test]
fn a_job_runs_its_vms_to_all_its_hosts() {
    assert!(is_no_node(), "this test is not for a Proxmox node");
    let node = Node::new();
    node.job(
        "two.toml",
        "vms = \"101-102\"\nto = [\"host2\", \"root@host3\"]\nrpo = \"15m\"\n",
    );
    let out = node.run("--json job run two --dry-run");
    assert_eq!(out.status.code(), Some(1));
    let events = events(&out);
    let fleet = events.iter().find(|e| e["event"] == "fleet").unwrap();
    let mut runs: Vec<String> = fleet["vms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            format!(
                "{} {}",
                r["vm"].as_str().unwrap(),
                r["to"].as_str().unwrap()
            )
        })
        .collect();
    runs.sort();
    assert_eq!(
        runs,
        ["101 host2", "101 root@host3", "102 host2", "102 root@host3"]
    );
    assert!(fleet["vms"]
        .as_array()
        .unwrap()
        .iter()
        .all(|r| r["late"] == true));
}

#[test]
fn check_and_metrics_know_what_jobs_promise() {
    let node = Node::new();
    // Neither jobs nor an age: nobody can tell.
    assert_eq!(node.code("check").0, 3);
    node.job(
        "prod.toml",
        "tags = [\"prod\"]\nto = \"root@host2\"\nrpo = \"15m\"\n",
    );
    let (code, said) = node.code("check");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("VM 101 to host2 no generation yet"), "{said}");
    let file = node.dir.path().join("rblocksync.prom");
    let (code, said) = node.code(&format!("status --metrics {}", file.display()));
    assert_eq!(code, 0, "{said}");
    let text = fs::read_to_string(file).unwrap();
    let want = "rblocksync_rpo_seconds{side=\"source\",vm=\"102\",peer=\"host2\"} 900";
    assert!(text.lines().any(|l| l == want), "{text}");
    node.job("broken.toml", "x = 1\n");
    assert_eq!(node.code("check").0, 3);
}
