//! The hookscript, run for real by the shell that a node has.
#![allow(clippy::unwrap_used)]

use pvesync::guard::script;
use rblocksync::replica::{clear_guard, set_guard, Layout, Role, Standing};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

const PHASES: [&str; 4] = ["pre-start", "post-start", "pre-stop", "post-stop"];

struct Host {
    dir: tempfile::TempDir,
    layout: Layout,
    script: PathBuf,
}

impl Host {
    fn new() -> Host {
        // A name that a shell would take apart.
        let dir = tempfile::Builder::new()
            .prefix("it's $HOME ")
            .tempdir()
            .unwrap();
        let layout = Layout::new(dir.path().join("state"));
        let path = dir.path().join("guard.sh");
        fs::write(&path, script(&layout)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Host {
            layout,
            script: path,
            dir,
        }
    }

    fn is(&self, role: Role, why: &str) {
        set_guard(&self.layout, "101", Standing { role, epoch: 3 }, why).unwrap();
    }

    fn call(&self, arguments: &[&str]) -> Output {
        Command::new(&self.script).args(arguments).output().unwrap()
    }

    fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.call(arguments).status.code()
    }

    /// The VM has a hookscript of its own that does this.
    fn chain(&self, text: &str) {
        let own = self.dir.path().join("own script.sh");
        fs::write(&own, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        let path = self.layout.guard("101.chain");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{}\n", own.display())).unwrap();
    }
}

#[test]
fn only_a_primary_starts_and_only_the_start_is_refused() {
    let host = Host::new();
    for role in [Role::Replica, Role::Retired, Role::Held, Role::Primary] {
        host.is(role, "it went to hvb");
        for phase in PHASES {
            let ended = host.call(&["101", phase]);
            let refused = phase == "pre-start" && role != Role::Primary;
            assert_eq!(ended.status.success(), !refused, "{role} {phase}");
            let said = String::from_utf8(ended.stderr).unwrap();
            let words = format!("VM 101 must not start on this host: it is {role} here since epoch 3: it went to hvb\n");
            assert_eq!(said.starts_with(&words), refused, "{said}");
        }
    }
}

#[test]
fn a_vm_that_is_not_known_starts() {
    let host = Host::new();
    assert_eq!(
        host.code(&["101", "pre-start"]),
        Some(0),
        "there is no state"
    );
    host.is(Role::Retired, "gone");
    assert_eq!(host.code(&["102", "pre-start"]), Some(0));
    for odd in [&["../guard/101", "pre-start"][..], &["", "pre-start"], &[]] {
        assert_eq!(host.code(odd), Some(0), "{odd:?}");
    }
    assert_ne!(host.code(&["101", "pre-start"]), Some(0));
    clear_guard(&host.layout, "101").unwrap();
    assert_eq!(host.code(&["101", "pre-start"]), Some(0));
}

#[test]
fn a_file_that_says_nothing_or_something_else_is_no_permission() {
    let host = Host::new();
    host.is(Role::Retired, "gone");
    let path = host.layout.guard("101");
    for content in [
        "",
        "\n",
        "primaryish 1 x\n",
        "PRIMARY 1\n",
        " \n",
        "* 1 *\n",
    ] {
        fs::write(&path, content).unwrap();
        assert_ne!(host.code(&["101", "pre-start"]), Some(0), "{content:?}");
    }
    // Without the line's end, as an editor may leave it.
    fs::write(&path, "primary 4").unwrap();
    assert_eq!(host.code(&["101", "pre-start"]), Some(0));
}

#[test]
fn the_reason_is_only_text() {
    let host = Host::new();
    let touched = host.dir.path().join("touched");
    let hostile = format!(
        "$(touch '{0}') `touch '{0}'` %s%n \\n ; touch {0} & | \" ' primary\n1 * \u{1b}[31m",
        touched.display()
    );
    host.is(Role::Replica, &hostile);
    let ended = host.call(&["101", "pre-start"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(!touched.exists());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("%s%n \\n ; touch"), "{said}");
    assert!(!said.contains('\u{1b}'));
    assert_eq!(said.lines().count(), 2);
}

#[test]
fn the_vms_own_script_is_called_as_if_alone() {
    let host = Host::new();
    host.chain("echo \"$# $1 $2\"; [ $2 != pre-start ] || exit 7");
    let ended = host.call(&["101", "pre-start"]);
    assert_eq!(ended.status.code(), Some(7));
    assert_eq!(ended.stdout, b"2 101 pre-start\n");
    host.is(Role::Primary, "");
    assert_eq!(host.code(&["101", "pre-start"]), Some(7));
    assert_eq!(host.code(&["101", "post-stop"]), Some(0));
    host.is(Role::Retired, "gone");
    let ended = host.call(&["101", "pre-start"]);
    assert_eq!(
        (ended.status.code(), ended.stdout.as_slice()),
        (Some(1), &b""[..]),
        "what must not start is not prepared either"
    );
    assert_eq!(
        host.call(&["101", "post-stop"]).stdout,
        b"2 101 post-stop\n"
    );
    // One that is gone stops the start, as Proxmox itself would.
    host.is(Role::Primary, "");
    fs::remove_file(host.dir.path().join("own script.sh")).unwrap();
    assert_ne!(host.code(&["101", "pre-start"]), Some(0));
}

#[test]
fn a_guest_that_is_awaited_is_let_through_as_long_as_somebody_waits() {
    let host = Host::new();
    host.is(Role::Replica, "the next sync overwrites it");
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let began = stat.rsplit_once(')').unwrap().1;
    let began: u64 = began.split_whitespace().nth(19).unwrap().parse().unwrap();
    let me = std::process::id();
    let door = host.layout.guard("101.incoming");
    for (text, opens) in [
        (format!("{me} {began}\n"), true),
        // Another process has that number by now.
        (format!("{me} {}\n", began + 1), false),
        (format!("{me}\n"), false),
        (format!("4194305 {began}\n"), false),
        (format!("self {began}\n"), false),
        (String::new(), false),
    ] {
        fs::write(&door, &text).unwrap();
        let code = host.code(&["101", "pre-start"]);
        assert_eq!(code == Some(0), opens, "{text:?}: {code:?}");
    }
    fs::write(&door, format!("{me} {began}\n")).unwrap();
    host.chain("exit 7");
    assert_eq!(
        host.code(&["101", "pre-start"]),
        Some(7),
        "the VM's own one"
    );
}
