//! A key of `setup`, which serves an agent under a policy and nothing else, with real thin volumes and a real QEMU: backups that
//! their source cannot harm, and changes of roles. While it is used the hosts have no other key for each other.

use crate::live::{born_of, has_moved_of};
use crate::migrate::{assert_off, events};
use serde_json::json;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use tests::lab::{Guest, Lab, Result};
use tests::pair::{small, *};

/// Has a thin volume and a file, and runs.
const BOTH: u32 = 119;
/// Has a thin volume only.
const THIN: u32 = 120;
/// No policy names it.
const OTHER: u32 = 121;
/// Emulated without acceleration, beside other tests, things take as long as they take.
const SLOWLY: &str = "--max-downtime 10m --pause-max 10m";
/// What a policy without roles says to a move.
const NO_ROLES: &str = "the policy of this key does not allow changes of roles";

/// The hosts' own keys for each other are away meanwhile.
fn without_other_keys(lab: &Lab, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let hosts = [lab.a(), lab.b()];
    for host in hosts {
        host.run_ok("mv /root/.ssh/id_ed25519 /root/kept-key")?;
    }
    let tested = catch_unwind(AssertUnwindSafe(|| {
        let words = ["ermission denied"];
        expect(lab.a(), "ssh -o BatchMode=yes hvb true", 255, &words)?;
        test()
    }));
    for host in hosts {
        host.run_ok("mv /root/kept-key /root/.ssh/id_ed25519")?;
    }
    tested.unwrap_or_else(|panic| resume_unwind(panic))
}

/// What is on a host, but for the disks of VMs of other tests, some of which run on.
fn kept(host: &Guest) -> Result<String> {
    let all = state(host)?;
    let ours = [BOTH, THIN, OTHER].map(|vm| format!("/images/{vm}/"));
    let is_meant = |line: &&str| {
        !line.contains("/images/") || ours.iter().any(|directory| line.contains(directory))
    };
    let lines: Vec<&str> = all.lines().filter(is_meant).collect();
    Ok(lines.join("\n"))
}

fn setup(host: &Guest, arguments: &str) -> Result<()> {
    let set_up = format!("pvesync setup {arguments}");
    expect(host, &set_up, 0, &["answers the key"]).map(drop)
}

pub fn a_key_that_only_adds_keeps_backups(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    small::make(a, BOTH, 2)?;
    small::make(a, THIN, 1)?;
    small::make(a, OTHER, 1)?;
    let narrow = format!(
        "hvb --access append --allow-vm {BOTH} --allow-vm {THIN} --allow-storage local-lvm"
    );
    setup(a, &narrow)?;
    let (both, other) = (
        format!("pvesync vm {BOTH} --to hvb"),
        format!("pvesync vm {OTHER} --to hvb"),
    );
    without_other_keys(lab, || {
        let before = kept(b)?;
        let word = "the policy of this key does not allow replicas on local (disk scsi1)";
        expect(a, &both, 3, &[word])?;
        let word = "the policy of this key does not allow a replica as VM 121";
        expect(a, &other, 3, &[word])?;
        let elsewhere = format!("{other} --target-vmid {THIN} --storage local-lvm=local");
        expect(a, &elsewhere, 3, &["replicas on local (disk scsi0)"])?;
        assert_eq!(kept(b)?, before);
        Ok(())
    })?;
    setup(a, &format!("{narrow} --allow-storage local"))?;
    without_other_keys(lab, || {
        sync(lab, &format!("{THIN} --to hvb"))?;
        let source = digests(a, &[&small::disks(THIN)[0]])?;
        let sealed = digests(b, &[&small::generation(THIN, 1)[0]])?;
        assert_eq!(sealed, source);

        a.run_ok(&format!("qm start {BOTH}"))?;
        let disk = &small::disks(BOTH)[0];
        let wrote = wait_for_writes(a, disk, 1)?;
        sync(lab, &format!("{BOTH} --to hvb"))?;
        wait_for_writes(a, disk, wrote + 20)?;
        let second = sync(lab, &format!("{BOTH} --to hvb --keep 1"))?;
        assert_eq!(event(&second, "sealed")["kept"], json!([1, 2]));
        let compared = total(&second, "/compared");
        assert!(compared < 8 << 20, "only what changed is read: {compared}");
        let [first, second] = [1, 2].map(|number| {
            let [thin, file] = small::generation(BOTH, number);
            one_instant(b, &[&thin, &file])
        });
        assert!(second?.writes > first?.writes);
        let verify = format!("pvesync verify {BOTH} --to hvb");
        expect(a, &verify, 0, &["generation rbs2", "is as it was sealed"])?;
        let list = format!("pvesync generations {BOTH} --to hvb");
        expect(a, &list, 0, &["rbs1", "rbs2"])?;

        let before = kept(b)?;
        let word = "does not allow to overwrite, remove or release sealed generations";
        let prune = format!("pvesync prune {BOTH} --to hvb --keep 1");
        expect(a, &prune, 3, &[word])?;
        assert_eq!(kept(b)?, before);
        Ok(())
    })
}

pub fn a_key_that_writes_prunes_and_mends_but_moves_nothing(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    setup(a, "hvb --access write")?;
    without_other_keys(lab, || {
        let prune = format!("pvesync prune {BOTH} --to hvb --keep 1");
        expect(a, &prune, 0, &["gone: 1; kept: 2"])?;

        let [sealed, _] = small::generation(THIN, 1);
        let source = digests(a, &[&small::disks(THIN)[0]])?;
        b.run_ok(&format!(
            "set -e; lvchange -qq -ay -K {sealed}; lvchange -qq -p rw {sealed}
             dd if=/dev/zero of={sealed} bs=1M seek=5 count=1 oflag=direct status=none
             lvchange -qq -p r {sealed}; lvchange -qq -an {sealed}"
        ))?;
        let verify = format!("pvesync verify {THIN} --to hvb");
        expect(a, &verify, 4, &["is damaged"])?;
        expect(a, &format!("{verify} --repair"), 0, &["put right: 1.0 MiB"])?;
        assert_eq!(digests(b, &[&sealed])?, source);

        let before = kept(b)?;
        for how in ["", "--live", "--dry-run"] {
            let migrate = format!("pvesync migrate {BOTH} --to hvb {how}");
            expect(a, &migrate, 3, &[NO_ROLES])?;
        }
        assert_running(a, BOTH)?;
        assert_eq!(kept(b)?, before);
        a.run_ok(&format!("qm stop {BOTH}"))?;
        a.run_ok("! ls /var/lib/rblocksync/handover/119.json 2> /dev/null")
            .map(drop)
    })
}

pub fn a_key_with_roles_moves_vms_there_and_back(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    setup(a, "hvb --access write --roles")?;
    setup(b, "hva --access write --roles")?;
    without_other_keys(lab, || {
        // All of its disks are thin, so its guest waits on the heads while the last sync writes them.
        let disk = &small::disks(THIN)[0];
        a.run_ok(&format!("qm start {THIN}"))?;
        wait_for_writes(a, disk, 1)?;
        let says = format!("primary in epoch 1, VM {THIN} runs there");
        let asked = format!("pvesync failover {THIN} --dry-run");
        expect(b, &asked, 0, &[&says])?;
        let was_born = born_of(a, THIN)?;
        let live = format!("pvesync migrate {THIN} --to hvb --live {SLOWLY}");
        let done = events(a, &live)?;
        let moved = event(&done, "migrated");
        println!("{moved}");
        assert!(moved["receive_early_s"].is_number(), "{moved}");
        has_moved_of(a, b, (THIN, &[disk]), &was_born)?;

        let done = events(b, &format!("pvesync migrate {THIN} --to hva {SLOWLY}"))?;
        let moved = event(&done, "migrated");
        println!("{moved}");
        assert_eq!(moved["read_again"], json!([]), "nothing had to be read");
        assert_off(b, THIN)?;
        let left = one_instant(b, &[disk])?;
        wait_for_writes(a, disk, left.writes + 10)?;
        a.run_ok(&format!("qm stop {THIN}")).map(drop)
    })
}

pub fn nothing_is_left_of_a_key_that_is_taken_away(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let key = "/var/lib/rblocksync/keys/to-hvb";
    a.run_ok(&format!("cp -p {key} /root/was"))?;
    let ask = "ssh -o BatchMode=yes -o IdentitiesOnly=yes -i /root/was hvb pvesync agent --id";
    expect(a, ask, 0, &["restricted"])?;
    for (host, other) in [(a, "hvb"), (b, "hva")] {
        let remove = format!("pvesync setup {other} --remove");
        expect(host, &remove, 0, &["good for nothing any more", "removed"])?;
    }
    expect(a, ask, 255, &["ermission denied"])?;
    a.run_ok("rm /root/was")?;
    for host in [a, b] {
        let left = host.run_ok(
            "ls -A /var/lib/rblocksync/keys /etc/rblocksync/policies | grep -v ':$' | grep .
             grep -e restrict, -e pvesync- /root/.ssh/authorized_keys; true",
        )?;
        assert_eq!(left, "", "left of the keys");
    }
    Ok(())
}
