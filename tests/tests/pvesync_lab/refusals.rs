//! What cannot be done is refused with a reason, and nothing is changed by asking.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use tests::lab::{Guest, Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 104;
const SYNC: &str = "pvesync vm 104 --to hvb";

/// Runs commands on the source that must fail with this exit code and these words, then compares both hosts.
fn refused(lab: &Lab, cases: &[(&str, i32, &[&str])]) -> Result<()> {
    let before = states(lab)?;
    for (script, code, words) in cases {
        expect(lab.a(), script, *code, words)?;
    }
    let after = states(lab)?;
    assert_eq!(after.0, before.0, "the source changed");
    assert_eq!(after.1, before.1, "the target changed");
    Ok(())
}

/// With something on a host changed for the time being.
fn meanwhile(
    guest: &Guest,
    make: &str,
    undo: &str,
    test: impl FnOnce() -> Result<()>,
) -> Result<()> {
    guest.run_ok(make)?;
    let tested = catch_unwind(AssertUnwindSafe(test));
    guest.run_ok(undo)?;
    tested.unwrap_or_else(|panic| resume_unwind(panic))
}

pub fn the_vm_must_be_here_and_replicable(lab: &Lab) -> Result<()> {
    let a = lab.a();
    small::make(a, VMID, 2)?;
    let far = "/etc/pve/nodes/hvz/qemu-server";
    a.run_ok(&format!(
        "mkdir -p {far} && echo 'name: far' > {far}/777.conf"
    ))?;
    refused(
        lab,
        &[
            ("pvesync vm 999 --to hvb", 1, &["no VM 999"]),
            ("pvesync vm 777 --to hvb", 1, &["VM 777 is on node hvz"]),
            (
                "pvesync vm 104 --to hvb --exclude scsi7",
                2,
                &["no such disk", "scsi0, scsi1"],
            ),
        ],
    )?;
    a.run_ok(&format!("rm -r {far}"))?;
    let conf = small::config(VMID);
    let edit = |line: &str, code: i32, words: &[&str]| {
        let make = format!("cp {conf} /root/conf && sed -i '1i {line}' {conf}");
        let undo = format!("cp /root/conf {conf}");
        meanwhile(a, &make, &undo, || refused(lab, &[(SYNC, code, words)]))
    };
    edit("lock: backup", 3, &["VM 104 is locked (backup)"])?;
    edit(
        "scsi2: /dev/disk/by-id/x",
        3,
        &["scsi2", "path of this host", "--exclude scsi2"],
    )?;
    edit("args: -drive file=/x", 3, &["args"])
}

pub fn the_target_must_be_reachable(lab: &Lab) -> Result<()> {
    let a = lab.a();
    refused(
        lab,
        &[
            (
                "pvesync vm 104 --to nosuchhost.invalid",
                1,
                &["nosuchhost.invalid"],
            ),
            ("pvesync vm 104 --to nobody@hvb", 1, &["ermission denied"]),
            // Itself: the id is taken.
            ("pvesync vm 104 --to hva", 3, &["VM 104 exists already"]),
        ],
    )?;
    let known = a.run_ok("ssh -G hvb | awk '$1 ~ /knownhostsfile/ { for (i = 2; i <= NF; i++) print $i }' | xargs ls 2>/dev/null | head -n 1")?;
    let exchange = format!(
        "cp {known} /root/known && awk '/^hva/ {{ key = $2 \" \" $3 }} {{ print }}' /root/known > /dev/null
         key=$(awk '/^hva/ {{ print $2, $3 }}' /root/known) && sed -i \"s|^\\(hvb[^ ]*\\) .*|\\1 $key|\" {known}"
    );
    meanwhile(a, &exchange, &format!("cp /root/known {known}"), || {
        refused(lab, &[(SYNC, 3, &["host key"])])
    })
}

pub fn the_target_must_have_the_storages_and_room(lab: &Lab) -> Result<()> {
    let b = lab.b();
    let make = "set -e; cp /etc/pve/storage.cfg /root/storage.cfg
        lvcreate -qq -L 4M -T pve/tiny; mkdir -p /mnt/tiny; mount -t tmpfs -o size=1M none /mnt/tiny
        printf '\\nlvmthin: tiny\\n\\tthinpool tiny\\n\\tvgname pve\\n\\tcontent images\\n\\ndir: cramped\\n\\tpath /mnt/tiny\\n\\tcontent images\\n\\n\
dir: away\\n\\tpath /srv\\n\\tis_mountpoint 1\\n\\tcontent images\\n\\ndir: isos\\n\\tpath /srv\\n\\tcontent iso\\n' >> /etc/pve/storage.cfg
        mkdir -p /srv";
    let undo =
        "umount /mnt/tiny; lvremove -qq -y pve/tiny; cp /root/storage.cfg /etc/pve/storage.cfg";
    meanwhile(b, make, undo, || {
        refused(
            lab,
            &[
                (
                    "pvesync vm 104 --to hvb --storage local-lvm=absent",
                    1,
                    &["scsi0", "storage absent does not exist"],
                ),
                (
                    "pvesync vm 104 --to hvb --storage local-lvm=tiny",
                    1,
                    &["thin pool pve/tiny has", "to spare"],
                ),
                (
                    "pvesync vm 104 --to hvb --storage local=cramped",
                    1,
                    &["/mnt/tiny", "to spare"],
                ),
                (
                    "pvesync vm 104 --to hvb --storage local=away",
                    1,
                    &["nothing is mounted on /srv"],
                ),
                (
                    "pvesync vm 104 --to hvb --storage local=isos",
                    3,
                    &["not for disk images"],
                ),
            ],
        )
    })
}

pub fn what_others_have_on_the_target_is_left_alone(lab: &Lab) -> Result<()> {
    let b = lab.b();
    let conf = small::config(VMID);
    let [_, file] = small::disks(VMID);
    let cases: [(&str, String, &str, &str); 3] = [
        (
            "a guest with this id",
            format!("echo 'name: other' > {conf}"),
            "rm /etc/pve/qemu-server/104.conf",
            "VM 104 exists already and is not a replica of this pair",
        ),
        (
            "a volume of this name",
            "lvcreate -qq -an -V 8M --thinpool pve/data -n vm-104-disk-0".into(),
            "lvremove -qq -y pve/vm-104-disk-0",
            "pve/vm-104-disk-0 exists and was not made for this replica",
        ),
        (
            "a file of this name",
            format!("mkdir -p /var/lib/vz/images/104 && echo precious > {file}"),
            "rm -r /var/lib/vz/images/104",
            "vm-104-disk-0.raw exists and was not made for this replica",
        ),
    ];
    for (what, make, undo, words) in &cases {
        println!("{what}");
        meanwhile(b, make, undo, || refused(lab, &[(SYNC, 3, &[words])]))?;
    }
    Ok(())
}

pub fn a_running_vms_disk_that_has_no_snapshots_needs_scratch_space(lab: &Lab) -> Result<()> {
    let a = lab.a();
    let make = "set -e; cp /etc/pve/storage.cfg /root/storage.cfg; mkdir -p /var/lib/plain/images/105
        printf '\\ndir: plain\\n\\tpath /var/lib/plain\\n\\tcontent images\\n' >> /etc/pve/storage.cfg
        truncate -s 16M /var/lib/plain/images/105/vm-105-disk-0.raw
        sed 's|^scsi1:.*|scsi1: plain:105/vm-105-disk-0.raw,size=16M|; s/vm-104-disk-0,/vm-105-disk-0,/; s/name: .*/name: plain/; s/104/105/g' \
            /etc/pve/qemu-server/104.conf > /etc/pve/qemu-server/105.conf
        lvcreate -qq -V 8M -n vm-105-disk-0 --thinpool pve/data; qm start 105";
    let undo = "qm stop 105; rm -r /etc/pve/qemu-server/105.conf /var/lib/plain; lvremove -qq -y pve/vm-105-disk-0
        cp /root/storage.cfg /etc/pve/storage.cfg";
    meanwhile(a, make, undo, || {
        let before = state(lab.b())?;
        // QEMU keeps what the guest overwrites, if there is room for it.
        let sync = "pvesync vm 105 --to hvb --storage plain=local --scratch-max 1M";
        expect(
            a,
            sync,
            1,
            &["too little room for what the guest overwrites", "--scratch"],
        )?;
        assert_source_clean(a)?;
        assert_eq!(state(lab.b())?, before);
        assert_running(a, 105)
    })
}
