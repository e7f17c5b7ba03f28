//! The hook of virt-blocksync in two real libvirtd: what it is asked in a whole migration, what it refuses, and that
//! libvirtd never waits for it.

use std::io;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tests::cli::virt_blocksync;
use tests::named;
use tests::virt::{suite, Bed, Error, Medium, Node, Result, Vm};

fn main() -> ExitCode {
    suite::run(named![
        a_whole_migration_and_a_refused_start,
        a_replica_is_not_written_over_by_libvirt,
        guests_outlive_whatever_is_wrong_with_our_state,
        it_asks_libvirt_nothing,
        a_host_that_was_replaced_does_not_start_its_domain,
    ])
}

/// Puts program and hook in both nodes, and forgets what is known of all domains.
fn install(bed: &Bed) -> Result<()> {
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/hooks/50-virt-blocksync");
    for node in [bed.a(), bed.b()] {
        node.install(virt_blocksync(), "/usr/bin/virt-blocksync")?;
        node.install(&hook, "/etc/libvirt/hooks/qemu.d/50-virt-blocksync")?;
        node.run_ok("kill -HUP $(cat /run/libvirtd.pid); rm -rf /var/lib/rblocksync/*")?;
    }
    Ok(())
}

/// What this host is for web01, as a run of virt-blocksync notes it.
fn guard(node: &Node, line: &str) -> Result<()> {
    node.write_file(
        "/var/lib/rblocksync/guard/web01",
        format!("{line}\n"),
        0o600,
    )
}

/// Its /run/libvirt as this machine sees it.
fn run_dir(node: &Node) -> PathBuf {
    node.images().with_file_name("run")
}

/// The journal of a node, as far as the hook writes it.
struct Journal {
    socket: UnixDatagram,
    name: String,
}

impl Journal {
    fn of(node: &Node) -> Result<Journal> {
        node.run_ok("mkdir -p /run/systemd/journal; ln -sfn /run/libvirt/journal /run/systemd/journal/socket")?;
        let path = run_dir(node).join("journal");
        // Of an earlier test.
        std::fs::remove_file(&path).ok();
        let cannot = |e: io::Error| Error::new(format!("no journal: {e}"));
        let socket = UnixDatagram::bind(path).map_err(cannot)?;
        socket.set_nonblocking(true).map_err(cannot)?;
        let name = node.name().to_owned();
        Ok(Journal { socket, name })
    }

    /// What was written since the last time: the first field of each entry is its message.
    fn read(&self) -> String {
        let mut said = String::new();
        let mut entry = vec![0; 64 << 10];
        while let Ok(count) = self.socket.recv(&mut entry) {
            let value = entry[..count]
                .strip_prefix(b"MESSAGE\n")
                .expect("a message");
            let (length, value) = value.split_at(8);
            let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
            let message = String::from_utf8_lossy(&value[..length as usize]);
            said.push_str(&format!("{}: {message}\n", self.name));
        }
        said
    }
}

fn migrate(from: &Node, to: &Node) -> Result<()> {
    from.virsh_ok(&format!(
        "migrate --live --p2p --persistent --copy-storage-all web01 {}",
        to.peer_uri()
    ))
    .map(drop)
}

fn a_whole_migration_and_a_refused_start(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = Vm::with_all_kinds("web01");
    let journals = [Journal::of(a)?, Journal::of(b)?];
    let journal = || journals.iter().map(Journal::read).collect::<String>();
    guard(a, "primary 3 taken over")?;
    a.boot(&vm)?;
    b.make_disks(&vm)?;
    migrate(a, b)?;
    assert_eq!(
        journal(),
        "kva: web01 prepare begin: this host is primary for it\n\
         kva: web01 start begin: this host is primary for it\n\
         kva: web01 started begin: it has started\n\
         kva: web01 stopped end: it has ended; the worker is to look why\n\
         kva: web01 release end: it has ended; the worker is to look why\n\
         kvb: web01 migrate begin: it arrives; nothing is known of it\n\
         kvb: web01 prepare begin: nothing is known of it\n\
         kvb: web01 start begin: nothing is known of it\n\
         kvb: web01 started begin: it has started\n"
    );

    // libvirt has left its definition here, and would start it a second time.
    assert_eq!(
        a.run_ok("virt-blocksync work")?,
        "web01: libvirt has moved it to another host; it must not start here until it is back"
    );
    let refused = a.virsh("start web01")?;
    assert!(
        refused.stderr.contains(
            "domain web01 must not start on this host, which is held for it since epoch 3: libvirt has moved it to \
             another host, so the disks here are old (look where it runs"
        ),
        "{}",
        refused.stderr
    );
    let told = journal();
    let calls: Vec<&str> = told
        .lines()
        .map(|l| l.rsplit_once(": ").map_or(l, |(c, _)| c))
        .collect();
    assert!(
        calls[0].starts_with("kva: web01 prepare begin: domain web01 must not start"),
        "{told}"
    );
    assert!(
        told.ends_with("kva: web01 release end: it has ended; the worker is to look why\n"),
        "{told}"
    );
    assert_eq!(a.run_ok("virt-blocksync work")?, "web01: is off");
    assert!(!a.virsh("start web01")?.success());
    a.run_ok("virt-blocksync work")?;

    // It comes back the way it went.
    a.make_disks(&vm)?;
    migrate(b, a)?;
    assert_eq!(
        a.run_ok("virt-blocksync work")?,
        "web01: is back, and may start here again"
    );
    let known = b.writes(&vm);
    a.wait_for_writes(&vm, known + 1)?;
    a.virsh_ok("destroy web01")?;
    a.check(&vm)?;
    assert_eq!(a.run_ok("virt-blocksync work")?, "web01: is off");
    a.virsh_ok("start web01")?;

    // A move of ours ends with this.
    a.virsh_ok("destroy web01")?;
    guard(a, "retired 4 moved to kvb")?;
    let refused = a.virsh("start web01")?;
    assert!(
        refused
            .stderr
            .contains("which is retired for it since epoch 4"),
        "{}",
        refused.stderr
    );
    a.forget(&vm)?;
    b.forget(&vm)
}

fn a_replica_is_not_written_over_by_libvirt(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = Vm::with_all_kinds("web01");
    a.boot(&vm)?;
    b.make_disks(&vm)?;
    guard(b, "replica 1 of web01 on kva")?;
    let error = migrate(a, b).expect_err("a replica is there").to_string();
    assert!(
        error.contains("move it by 'virt-blocksync migrate web01'"),
        "{error}"
    );
    assert_eq!(a.state("web01")?.as_deref(), Some("running"));
    assert_eq!(b.state("web01")?, None);
    a.wait_for_writes(&vm, a.writes(&vm) + 5)?;
    a.virsh_ok("destroy web01")?;
    a.check(&vm)?;
    a.forget(&vm)?;
    b.forget(&vm)
}

fn guests_outlive_whatever_is_wrong_with_our_state(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, vm) = (bed.a(), Vm::with_all_kinds("web01"));
    a.boot(&vm)?;
    for damage in [
        "echo held 9 test > /var/lib/rblocksync/guard/web01",
        "echo > /var/lib/rblocksync/guard/web01",
        "rm -rf /var/lib/rblocksync; echo > /var/lib/rblocksync",
        "printf '#!/bin/sh\\nexit 1\\n' > /usr/bin/virt-blocksync",
    ] {
        a.run_ok(&format!("mkdir -p /var/lib/rblocksync/guard; {damage}"))?;
        a.end_daemon("KILL")?;
        a.start_daemon()?;
        assert_eq!(a.state("web01")?.as_deref(), Some("running"), "{damage}");
    }
    a.run_ok("rm /var/lib/rblocksync; mkdir /var/lib/rblocksync")?;
    a.forget(&vm)
}

fn it_asks_libvirt_nothing(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, vm) = (bed.a(), Vm::with_all_kinds("web01"));
    a.make_disks(&vm)?;
    a.define(&vm)?;
    guard(a, "primary 1 test")?;

    // While a start holds the domain, and every client waits for libvirtd, the hook answers.
    a.hook(
        "10-slow",
        "#!/bin/sh\n[ \"$2\" != start ] || until [ -e /run/go ]; do sleep 0.1; done\n",
    )?;
    let start = a.spawn("exec virsh -q start web01")?;
    a.until("the start", || {
        Ok(a.run("pgrep -f '[q]emu.d/10-slow web01 start'")?.success())
    })?;
    let waits = a.run("timeout 2 virsh -q domstate web01")?;
    assert_eq!(waits.status, 124, "{waits:?}");
    let xml = vm.xml();
    a.write_file("/run/web01.xml", xml, 0o600)?;
    for (call, code) in [
        ("prepare begin", 0),
        ("stopped end", 0),
        ("migrate begin", 0),
    ] {
        let hook = format!("virt-blocksync hook web01 {call} - < /run/web01.xml");
        let said = a.run_for(&hook, Duration::from_secs(20))?;
        assert_eq!(
            (said.status, said.stdout.as_str()),
            (code, ""),
            "{call}: {said:?}"
        );
    }
    a.run_ok("touch /run/go")?;
    let started = start.wait()?;
    assert!(started.success(), "{started:?}");
    a.virsh_ok("destroy web01")?;
    a.run_ok("rm /etc/libvirt/hooks/qemu.d/10-slow /run/go")?;

    // In place of libvirtd somebody who notes who comes.
    a.end_daemon("TERM")?;
    let path = run_dir(a).join("libvirt-sock");
    std::fs::remove_file(&path).ok();
    let cannot = |e: io::Error| Error::new(format!("no listener: {e}"));
    let listener = UnixListener::bind(&path).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    // How many there were since the last time.
    let come = || std::iter::from_fn(|| listener.accept().ok()).count() > 0;
    a.run("timeout 2 virsh -q -c qemu:///system list")?;
    assert!(come(), "whoever connects is seen");
    for role in ["primary", "replica"] {
        guard(a, &format!("{role} 1 test"))?;
        for call in [
            "prepare begin",
            "start begin",
            "started begin",
            "stopped end",
            "release end",
            "migrate begin",
            "reconnect begin",
        ] {
            a.run_for(
                &format!("virt-blocksync hook web01 {call} - < /run/web01.xml"),
                Duration::from_secs(20),
            )?;
            assert!(!come(), "{role}: {call}");
        }
    }
    drop(listener);
    std::fs::remove_file(&path).map_err(cannot)?;
    a.start_daemon()?;
    a.forget(&vm)
}

/// The host comes back after another one has taken over, and its domain would start with it.
fn a_host_that_was_replaced_does_not_start_its_domain(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b, vm) = (bed.a(), bed.b(), Vm::new("web41").disk(Medium::Qcow2));
    a.boot(&vm)?;
    a.run_ok("virt-blocksync vm web41 --to kvb --exclude vdz")?;
    a.virsh_ok("autostart web41")?;
    a.virsh_ok("destroy web41")?;
    a.end_daemon("TERM")?;
    b.run_ok("virt-blocksync failover web41 --fence /bin/true")?;
    // As after a boot.
    a.run_ok("rm -f /run/libvirt/qemu/autostarted")?;
    let said = a.run_ok("virt-blocksync boot-check --before-libvirt --wait 60s")?;
    assert!(said.contains("the hook keeps domain web41 off"), "{said}");
    a.start_daemon()?;
    let refused = a.virsh("start web41")?;
    assert!(refused.stderr.contains("retired"), "{refused:?}");
    assert_eq!(a.state("web41")?.as_deref(), Some("shut off"));
    // Now that libvirt runs the definition says so, too.
    a.run_ok("virt-blocksync boot-check web41 --wait 60s")?;
    let xml = a.virsh_ok("dumpxml --inactive web41")?;
    assert!(xml.contains("/nonexistent/"), "{xml}");
    a.forget(&vm)?;
    b.forget(&vm)
}
