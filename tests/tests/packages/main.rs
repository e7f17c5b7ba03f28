//! The Debian packages in roots of Debian 12 and 13: what they install, and what an upgrade, a removal and a purge leave.
//!
//! With LAB_DEBS they are those that `make deb` has built; else they are put together from the programs that the other tests
//! use, and how cargo builds them for packages is not tested here.

mod newcomer;

use libtest_mimic::{Arguments, Failed, Trial};
use pvesync::guard;
use rblocksync::replica::Layout;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;
use tests::debian::{alone, listing, lower_version, Built, Root, Suite, PACKAGES};
use tests::lab::{Error, Result};

const STATE: &str = "/var/lib/rblocksync";
const HOOK: &str = "/etc/libvirt/hooks/qemu.d/50-virt-blocksync";

fn main() -> ExitCode {
    alone(|| {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = Some(1);
        if !rustix::process::geteuid().is_root() && !arguments.list {
            eprintln!("skipped: roots of Debian are made by root");
            return ExitCode::SUCCESS;
        }
        let built: Arc<std::sync::OnceLock<Built>> = Arc::default();
        let trials = TESTS.iter().map(|(name, test)| {
            let built = Arc::clone(&built);
            Trial::test(*name, move || {
                let built = get(&built)?;
                let began = Instant::now();
                let result = test(built);
                println!("{:.0} s", began.elapsed().as_secs_f64());
                Ok::<(), Failed>(result?)
            })
        });
        libtest_mimic::run(&arguments, trials.collect()).exit_code()
    })
}

fn get(built: &std::sync::OnceLock<Built>) -> Result<&Built> {
    if built.get().is_none() {
        // One thread runs the tests.
        let _ = built.set(Built::get()?);
    }
    built.get().ok_or_else(|| Error::new("no packages"))
}

type Test = fn(&Built) -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    (
        "a_version_that_differs_is_refused",
        a_version_that_differs_is_refused,
    ),
    (
        "the_files_are_those_that_are_written_down",
        the_files_are_those_that_are_written_down,
    ),
    ("debian_12_installs_and_removes", |built| {
        installs_and_removes(built, Suite::Bookworm)
    }),
    ("debian_13_installs_and_removes", |built| {
        installs_and_removes(built, Suite::Trixie)
    }),
    (
        "nothing_is_started_even_where_systemd_runs",
        nothing_is_started_even_where_systemd_runs,
    ),
    (
        "an_upgrade_brings_the_state_along",
        an_upgrade_brings_the_state_along,
    ),
    (
        "a_purge_keeps_what_is_about_vms",
        a_purge_keeps_what_is_about_vms,
    ),
    ("a_purge_removes_history", a_purge_removes_history),
    ("a_newcomer_to_libvirt_on_debian_12", |built| {
        newcomer::to_libvirt(built, Suite::Bookworm)
    }),
    ("a_newcomer_to_libvirt_on_debian_13", |built| {
        newcomer::to_libvirt(built, Suite::Trixie)
    }),
];

fn files(built: &Built, names: &[&str]) -> Result<Vec<PathBuf>> {
    names.iter().map(|name| built.file(name)).collect()
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Fails the test if a text does not say this.
fn says(text: &str, what: &str) {
    assert!(text.contains(what), "no {what:?} in:\n{text}");
}

fn a_version_that_differs_is_refused(_: &Built) -> Result<()> {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| {
        let to = dir.path().join(name);
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        std::fs::copy(top().join(name), &to).expect("a copy");
        to
    };
    let script = place("packaging/check-version.sh");
    place("Cargo.toml");
    let changelog = place("debian/changelog");
    let ends_well = || Command::new(&script).output().expect("sh").status.success();
    assert!(ends_well());
    let text = std::fs::read_to_string(&changelog).expect("a text");
    let version = env!("CARGO_PKG_VERSION");
    let other = text.replacen(&format!("({version}-"), &format!("({version}.1-"), 1);
    assert_ne!(text, other);
    std::fs::write(&changelog, other).expect("a file");
    assert!(!ends_well());
    Ok(())
}

/// With PACKAGES_UPDATE=1 the lists are written anew.
fn the_files_are_those_that_are_written_down(built: &Built) -> Result<()> {
    let lists = top().join("tests/tests/packages/files");
    for package in PACKAGES {
        let found = listing(&built.file(package)?)?;
        let list = lists.join(format!("{package}.list"));
        if std::env::var_os("PACKAGES_UPDATE").is_some() {
            std::fs::write(&list, &found).expect("a file");
        }
        let wanted = std::fs::read_to_string(&list).unwrap_or_default();
        assert!(found == wanted, "{package} has other files:\n{found}");
    }
    Ok(())
}

/// On a plain system of that release: the programs run, nothing is enabled, and a removal leaves configuration, state, and
/// hooks that let every VM start.
fn installs_and_removes(built: &Built, suite: Suite) -> Result<()> {
    let root = Root::fresh(suite)?;
    let said = root.install(&files(built, &PACKAGES)?)?;
    says(&said, "systemctl reload libvirtd");
    for program in PACKAGES {
        let version = root.run_ok(&format!("{program} --version"))?;
        assert_eq!(
            version.trim(),
            format!("{program} {}", env!("CARGO_PKG_VERSION"))
        );
    }
    for tool in ["ssh", "lvs", "thin_delta", "qemu-img", "qemu-nbd"] {
        root.run_ok(&format!("command -v {tool}"))?;
    }
    assert_eq!(
        root.run_ok(&format!("stat -c '%a %U' {STATE}"))?.trim(),
        "700 root"
    );
    let enabled = root.run_ok("find /etc/systemd -name 'pvesync*' -o -name 'virt-blocksync*'")?;
    assert_eq!(enabled, "");
    let started = root.read("/var/log/policy-rc.d");
    assert!(
        !PACKAGES.iter().any(|package| started.contains(package)),
        "{started}"
    );

    // Two VMs of Proxmox VE that the guard is asked about, one of which has gone.
    let script = guard::script(&Layout::new(STATE));
    root.write("/var/lib/vz/snippets/pvesync-guard.sh", &script, 0o755)?;
    root.write(
        &format!("{STATE}/guard/101"),
        "retired 2 it went to host2\n",
        0o600,
    )?;
    root.write("/etc/pvesync/jobs.d/night.toml", "# a job\n", 0o644)?;
    let start = |vm: u32| {
        root.run(&format!(
            "/var/lib/vz/snippets/pvesync-guard.sh {vm} pre-start"
        ))
    };
    assert_eq!((start(101)?.0, start(102)?.0), (1, 0));

    root.run_ok("apt-get remove -y rblocksync pvesync virt-blocksync")?;
    for program in PACKAGES {
        assert!(!root.has(&format!("/usr/bin/{program}")));
    }
    assert!(root.has("/etc/pvesync/jobs.d/night.toml"));
    // What holds a VM off is the state, and that stays; of all others nothing is known.
    assert_eq!((start(101)?.0, start(102)?.0), (1, 0));
    for words in [
        "web01 prepare begin -",
        "web01 start begin -",
        "web01 reconnect begin -",
    ] {
        assert_eq!(
            root.run(&format!("echo '<domain/>' | {HOOK} {words}"))?,
            (0, String::new())
        );
    }
    // Back again, with what was there.
    root.install(&files(built, &PACKAGES)?)?;
    assert_eq!((start(101)?.0, start(102)?.0), (1, 0));
    Ok(())
}

/// A systemctl that only notes what it is asked, and says that all is enabled and nothing runs: apart from reading its units again, nothing is
/// asked of systemd.
fn nothing_is_started_even_where_systemd_runs(built: &Built) -> Result<()> {
    let root = Root::fresh(Suite::Bookworm)?;
    root.install(&files(built, &PACKAGES)?)?;
    root.run_ok("dpkg --purge rblocksync pvesync virt-blocksync; mkdir -p /run/systemd/system")?;
    root.write(
        "/usr/bin/systemctl",
        "#!/bin/sh\necho \"$@\" >> /var/log/systemctl\ncase $* in *is-active*) exit 3 ;; *is-enabled*) echo enabled ;; esac\n",
        0o755,
    )?;
    // If somebody asked for a start, it would not be refused.
    root.run_ok("rm /usr/sbin/policy-rc.d")?;
    let asked = || {
        let text = root.read("/var/log/systemctl");
        let lines = text.lines().filter(|line| !line.contains("daemon-reload"));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        root.write("/var/log/systemctl", "", 0o644).expect("a file");
        lines.join("\n")
    };
    root.install(&files(built, &PACKAGES)?)?;
    assert_eq!(asked(), "");

    // A job's timer is stopped with the program, and goes on with it.
    let timer = "/etc/systemd/system/pvesync-job@night.timer";
    let mark = rblocksync::verbs::schedule::MARK;
    root.write(
        timer,
        &format!("{mark}\n[Timer]\nOnCalendar=daily\n"),
        0o644,
    )?;
    root.run_ok(&format!("mkdir -p /etc/systemd/system/timers.target.wants; ln -s {timer} /etc/systemd/system/timers.target.wants/"))?;
    root.write(
        "/etc/systemd/system/pvesync-job@mine.timer",
        "[Timer]\n",
        0o644,
    )?;
    root.install(&files(built, &PACKAGES)?)?;
    root.run_ok("cd /tmp && dpkg -i pvesync_*.deb")?;
    let upgraded = asked();
    assert!(
        !upgraded.contains("stop") && !upgraded.contains("restart"),
        "{upgraded}"
    );
    root.run_ok("apt-get remove -y pvesync")?;
    let removed = asked();
    says(&removed, "stop pvesync-job@*.timer pvesync-metrics.timer");
    assert!(root.has(timer));
    root.install(&files(built, &["pvesync"])?)?;
    says(&asked(), "start pvesync-job@night.timer");
    root.run_ok("apt-get purge -y pvesync")?;
    assert!(!root.has(timer), "a timer of a program that is gone");
    assert!(
        root.has("/etc/systemd/system/pvesync-job@mine.timer"),
        "not ours to remove"
    );
    let asked = asked();
    for word in ["pve", "libvirt", "qemu"].map(|unit| format!("restart {unit}")) {
        assert!(!asked.contains(&word), "{asked}");
    }
    Ok(())
}

/// From a version before: the state is as it was, and the journal, which is of an older form, is brought to this one.
fn an_upgrade_brings_the_state_along(built: &Built) -> Result<()> {
    let root = Root::fresh(Suite::Bookworm)?;
    let dir = tempfile::tempdir().expect("a directory");
    let mut lower = Vec::new();
    for package in PACKAGES {
        lower.push(lower_version(&built.file(package)?, dir.path())?);
    }
    root.install(&lower)?;
    says(
        &root.run_ok("dpkg-query -W -f '${Version}' pvesync")?,
        "0.0.1-1",
    );
    // SQLite takes an empty file for a database of form 0.
    root.write(&format!("{STATE}/journal.db"), "", 0o600)?;
    let replica = format!("{STATE}/replicas/00000000-0000-4000-8000-000000000001/kept");
    root.write(&replica, "as it was", 0o600)?;
    root.write("/etc/pvesync/jobs.d/night.toml", "# a job\n", 0o644)?;
    root.run_ok(&format!("chmod 0750 {STATE}; echo '# mine' >> {HOOK}"))?;

    root.install(&files(built, &PACKAGES)?)?;
    says(
        &root.run_ok("dpkg-query -W -f '${Version}' pvesync")?,
        env!("CARGO_PKG_VERSION"),
    );
    assert_eq!(root.read(&replica), "as it was");
    assert_eq!(root.read("/etc/pvesync/jobs.d/night.toml"), "# a job\n");
    assert_eq!(root.run_ok(&format!("stat -c %a {STATE}"))?.trim(), "750");
    says(&root.read(HOOK), "# mine");
    // It has nothing of the sort that a replica's directory should have, and is left alone for that.
    let status = root.run("pvesync status")?;
    let journal = std::fs::read(root.path(&format!("{STATE}/journal.db"))).expect("a journal");
    let form = journal
        .get(60..64)
        .map(|bytes| bytes.try_into().map(u32::from_be_bytes));
    assert!(
        matches!(form, Some(Ok(form)) if form >= 1),
        "{form:?} after {status:?}"
    );
    assert_eq!(root.read(&replica), "as it was");
    Ok(())
}

fn a_purge_keeps_what_is_about_vms(built: &Built) -> Result<()> {
    let root = Root::fresh(Suite::Trixie)?;
    for (path, text, reason) in [
        (
            "replicas/00000000-0000-4000-8000-000000000001/replica.json",
            "{}",
            "replicas/ (1)",
        ),
        ("guard/101", "retired 2 it went to host2\n", "guard/ (1)"),
        (
            "pairs/101/00000000-0000-4000-8000-000000000002.json",
            "{}",
            "pairs/ (1)",
        ),
        ("something/of-a-later-release", "", "is kept"),
    ] {
        root.install(&files(built, &["pvesync", "virt-blocksync"])?)?;
        let path = format!("{STATE}/{path}");
        root.write(&path, text, 0o600)?;
        root.write(&format!("{STATE}/journal.db"), "", 0o600)?;
        // While the other package may need it, nothing is said about it.
        let (code, said) = root.run("dpkg --purge virt-blocksync")?;
        assert!(code == 0 && !said.contains("is kept"), "{said}");
        let said = root.run_ok("apt-get purge -y pvesync")?;
        says(&said, reason);
        says(&said, "To be rid of it");
        assert_eq!(root.read(&path), text);
        assert!(root.has(&format!("{STATE}/journal.db")));
        root.run_ok(&format!("rm -r {STATE}"))?;
    }
    Ok(())
}

/// What is left by runs that have no replica here and no VM: it goes with the last package that was there.
fn a_purge_removes_history(built: &Built) -> Result<()> {
    let root = Root::fresh(Suite::Trixie)?;
    root.install(&files(built, &PACKAGES)?)?;
    for path in [
        "host-id",
        "journal.db",
        "journal.db-journal",
        "journal.db.damaged",
        "lock/vm-101",
    ] {
        root.write(&format!("{STATE}/{path}"), "", 0o600)?;
    }
    root.run_ok(&format!(
        "mkdir -p {STATE}/replicas {STATE}/guard; apt-get remove -y virt-blocksync"
    ))?;
    // It may come back, and is not purged.
    root.run_ok("apt-get purge -y pvesync")?;
    assert!(root.has(&format!("{STATE}/host-id")));
    let said = root.run_ok("apt-get purge -y rblocksync virt-blocksync")?;
    assert!(!root.has(STATE), "{said}");
    let left = root.run_ok("find /etc /usr /var/lib -xdev -path /var/lib/dpkg -prune -o \\( -name '*rblocksync*' -o -name '*pvesync*' -o -name '*virt-blocksync*' \\) -print")?;
    assert_eq!(left, "");
    Ok(())
}
