//! The program with several domains and jobs, on a host without libvirt: each run of a domain fails in its own words.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let jobs = dir.path().join("etc/virt-blocksync/jobs.d");
        fs::create_dir_all(&jobs).unwrap();
        for dir in [jobs.parent().unwrap(), &jobs] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Place { dir }
    }

    fn job(&self, name: &str, text: &str) {
        let path = self.dir.path().join("etc/virt-blocksync/jobs.d").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn run(&self, line: &str) -> Output {
        // There is no libvirt at a socket that is not there.
        let socket = self.dir.path().join("no-socket");
        let uri = format!("qemu+unix:///system?socket={}", socket.display());
        Command::new(env!("CARGO_BIN_EXE_virt-blocksync"))
            .args(line.split_whitespace())
            .env("LIBVIRT_DEFAULT_URI", uri)
            .env("RBLOCKSYNC_ROOT", self.dir.path())
            .env("RBLOCKSYNC_STATE_DIR", self.dir.path().join("state"))
            .output()
            .unwrap()
    }

    fn code(&self, line: &str) -> (i32, String) {
        let out = self.run(line);
        let said = [out.stdout, out.stderr].concat();
        (out.status.code().unwrap(), String::from_utf8(said).unwrap())
    }
}

fn fleet(out: &Output) -> Value {
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|event| event["event"] == "fleet")
        .unwrap()
}

fn runs(fleet: &Value) -> Vec<String> {
    let rows = fleet["vms"].as_array().unwrap().iter();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let mut runs: Vec<String> = rows
        .map(|row| {
            assert_eq!(row["state"], "failed");
            assert!(text(row, "why").contains("connect to libvirt"), "{row}");
            format!("{} {}", text(row, "vm"), text(row, "to"))
        })
        .collect();
    runs.sort();
    runs
}

#[test]
fn each_domain_is_a_run_of_its_own_and_there_is_one_report() {
    let place = Place::new();
    let out = place.run("--json vm web01 db01 --to host2 --keep 5 --parallel 1");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(runs(&fleet(&out)), ["db01 host2", "web01 host2"]);
}

#[test]
fn a_job_runs_its_domains_to_all_its_hosts() {
    let place = Place::new();
    let text = "vms = [\"web01\", \"-odd name\"]\nto = [\"host2\", \"root@host3\"]\nrpo = \"15m\"\nkeep = 5\n[bridge]\nbr0 = \"br1\"\n";
    place.job("two.toml", text);
    let (code, said) = place.code("job check");
    assert_eq!(code, 0, "{said}");
    let want = "job two: in order; VM -odd name, web01 to host2, root@host3";
    assert!(said.contains(want), "{said}");
    let out = place.run("--json job run two --dry-run");
    assert_eq!(out.status.code(), Some(1));
    let fleet = fleet(&out);
    let want = [
        "-odd name host2",
        "-odd name root@host3",
        "web01 host2",
        "web01 root@host3",
    ];
    assert_eq!(runs(&fleet), want);
    // What the job promises is checked, too.
    let (code, said) = place.code("check");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("web01 to host2 no generation yet"), "{said}");
}

/// Nobody is there: a check cannot tell how things stand, and anything else is a failure.
#[test]
fn another_host_that_cannot_be_reached_is_told() {
    let place = Place::new();
    let config = place.dir.path().join("ssh_config");
    fs::write(
        &config,
        "Host *\n    ProxyCommand /bin/false\n    UserKnownHostsFile /dev/null\n",
    )
    .unwrap();
    let there = format!(
        "--ssh-config {} -c qemu+ssh://kvm1/system",
        config.display()
    );
    let (code, said) = place.code(&format!("{there} check"));
    assert_eq!(code, 3, "{said}");
    assert!(said.starts_with("UNKNOWN: "), "{said}");
    let (code, said) = place.code(&format!("{there} status"));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("kvm1"), "{said}");
}

#[test]
fn wrong_usage_is_found_before_anybody_is_started() {
    let place = Place::new();
    place.job("bad.toml", "all = true\nto = \"host2\"\n\nkeep = 5000\n");
    place.job(
        "pools.toml",
        "all = true\nto = \"host2\"\npools = [\"x\"]\n",
    );
    for (line, want) in [
        ("vm --to host2", "required"),
        ("vm a b", "--to"),
        ("vm a b --to host2 --target-name c", "--target-name"),
        ("vm a b --to host:2", "host"),
        ("job run bad", "bad.toml:4: keep: invalid value '5000'"),
        (
            "job run pools",
            "pools.toml:3: unknown field `pools`; did you mean pool?",
        ),
        ("--connect qemu+tcp://kvm1/system status", "use qemu+ssh://"),
        ("-c qemu+ssh://kvm1/session status", "only the system's"),
        ("status --connect qemu+ssh://kvm1/system", "before the verb"),
        ("schedule add web a --to host2", "--every"),
        (
            "schedule add web a --to host2 --every 15m --target-name b",
            "--target-name",
        ),
        (
            "schedule add web a --to host2 --every 15m --bridge x",
            "--bridge",
        ),
    ] {
        let (code, said) = place.code(line);
        assert_eq!(code, 2, "{line}: {said}");
        assert!(said.contains(want), "{line}: {said}");
    }
}
