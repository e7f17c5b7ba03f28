//! A replica's life when its VM and the wishes for it change: other names, disks that come, grow and go, one
//! cluster.

use pvesync::vm_config::VmConfig;
use tests::lab::{Guest, Lab, Result};
use tests::pair::{small, *};

const FILE_HERE: &str = "/var/lib/vz/images/104/vm-104-disk-0.raw";
const FILE_THERE: &str = "/var/lib/vz/images/204/vm-204-disk-0.raw";

fn config(guest: &Guest) -> Result<VmConfig> {
    let text = guest.read_file("/etc/pve/qemu-server/204.conf")?;
    Ok(VmConfig::parse(&String::from_utf8_lossy(&text)).expect("a configuration"))
}

/// Another id, another storage, one disk left out, and no program on the target.
pub fn a_replica_can_have_another_id_and_storage(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    b.run_ok(
        "set -e; lvcreate -qq -L 64M -T pve/fast; mv /usr/bin/pvesync /root/pvesync.away
         printf '\\nlvmthin: fast\\n\\tthinpool fast\\n\\tvgname pve\\n\\tcontent images\\n' >> /etc/pve/storage.cfg
         printf '#!/bin/sh\\necho pvesync 0.0.1 protocol 1\\n' > /usr/bin/pvesync; chmod 755 /usr/bin/pvesync",
    )?;
    let synced = sync(
        lab,
        "104 --to hvb --target-vmid 204 --storage local-lvm=fast --exclude scsi1",
    );
    let left = b.run_ok(
        "mv /root/pvesync.away /usr/bin/pvesync
         find / -xdev -name 'rblocksync*agent*' -o -xdev -path '*rblocksync/agent*' | grep -v ^/proc; pgrep -f '[p]vesync agent'; true",
    )?;
    let events = synced?;
    assert_eq!(left, "", "the program that was brought is taken away again");
    let plan = event(&events, "plan");
    assert_eq!(plan["target_vm"], "204");
    assert_eq!(plan["excluded"][0][0], "scsi1");
    let config = config(b)?;
    assert_eq!(
        config.get("scsi0"),
        Some("fast:vm-204-disk-0,discard=on,size=8M")
    );
    assert_eq!(config.get("scsi1"), None);
    let text = config.main().description();
    assert!(
        text.contains("Not part of it: scsi1 (excluded by --exclude)"),
        "{text}"
    );
    assert_eq!(
        b.run_ok("lvs --noheadings -o pool_lv pve/vm-204-disk-0")?
            .trim(),
        "fast"
    );
    let here = digests(a, &["/dev/pve/vm-104-disk-0"])?;
    assert_eq!(digests(b, &["/dev/pve/vm-204-disk-0"])?, here);
    let other = "pvesync vm 104 --to hvb --target-vmid 205";
    expect(a, other, 3, &["is VM 204 there, and cannot become 205"])?;
    let moved = "pvesync vm 104 --to hvb --storage local-lvm=local-lvm";
    expect(a, moved, 3, &["cannot be moved to storage local-lvm"])?;
    Ok(())
}

pub fn a_disk_may_come_and_another_grow(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    // scsi1 is new to the replica; what was decided before needs not be said again.
    a.run_ok(
        "set -e; lvextend -qq -L 12M pve/vm-104-disk-0; lvchange -ay pve/vm-104-disk-0
         dd if=/dev/urandom of=/dev/pve/vm-104-disk-0 bs=1M count=1 seek=11 oflag=direct status=none
         lvchange -an pve/vm-104-disk-0; sed -i '/^scsi0/s/8M/12M/' /etc/pve/qemu-server/104.conf",
    )?;
    sync(lab, "104 --to hvb")?;
    let here = digests(a, &["/dev/pve/vm-104-disk-0", FILE_HERE])?;
    assert_eq!(digests(b, &["/dev/pve/vm-204-disk-0", FILE_THERE])?, here);
    let config = config(b)?;
    assert_eq!(
        config.get("scsi0"),
        Some("fast:vm-204-disk-0,discard=on,size=12M")
    );
    assert_eq!(
        config.get("scsi1"),
        Some("local:204/vm-204-disk-0.raw,size=8M")
    );
    let [head] = [b.run_ok("lvs --noheadings --units m --nosuffix -o lv_size pve/vm-204-disk-0")?];
    assert_eq!(head.trim(), "12.00");
    Ok(())
}

/// Somebody uses the replica's disks without starting the VM.
pub fn a_replica_whose_disks_are_in_use_is_left_alone(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let sync = "pvesync vm 104 --to hvb";
    let before = state(b)?;
    b.run_ok("lvchange -ay -K pve/vm-204-disk-0")?;
    let reader = b.spawn("exec sleep 600 < /dev/pve/vm-204-disk-0")?;
    expect(a, sync, 3, &["volume pve/vm-204-disk-0 is in use"])?;
    reader.signal("KILL")?;
    reader.wait_for(LONG)?;
    b.run_ok("lvchange -an pve/vm-204-disk-0")?;
    let device = b.run_ok(&format!("losetup -f --show {FILE_THERE}"))?;
    expect(a, sync, 3, &[FILE_THERE, "loop device"])?;
    b.run_ok(&format!("losetup -d {device}"))?;
    assert_eq!(state(b)?, before);
    Ok(())
}

pub fn a_disk_that_is_gone_goes_with_its_last_generation(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    a.run_ok("sed -i '/^scsi1:/d' /etc/pve/qemu-server/104.conf")?;
    let events = sync(lab, "104 --to hvb --keep 1")?;
    assert_eq!(event(&events, "sealed")["kept"], serde_json::json!([3]));
    assert_eq!(config(b)?.get("scsi1"), None);
    let volumes = b.run_ok(
        "lvs --noheadings -o lv_name pve | grep 204 | sort | xargs; ls -A /var/lib/vz/images/204 | wc -l",
    )?;
    assert_eq!(volumes, "snap_vm-204-disk-0_rbs3 vm-204-disk-0\n0");
    Ok(())
}

pub fn two_runs_of_one_vm_exclude_each_other(lab: &Lab) -> Result<()> {
    lab.a().run_ok(
        "set -e; lvchange -ay pve/vm-104-disk-0
         dd if=/dev/urandom of=/dev/pve/vm-104-disk-0 bs=1M count=4 oflag=direct status=none
         lvchange -an pve/vm-104-disk-0",
    )?;
    let run = half_way(lab, "104 --to hvb")?;
    expect(
        lab.a(),
        "pvesync vm 104 --to hvb",
        3,
        &["another run is busy with VM 104"],
    )?;
    run.signal("TERM")?;
    assert_eq!(run.wait_for(LONG)?.status, 143);
    assert_source_clean(lab.a())
}

/// What keeps the point in time must not fill the pool that the guest lives in.
pub fn a_run_ends_before_the_sources_pool_is_full(lab: &Lab) -> Result<()> {
    let a = lab.a();
    a.run_ok(
        "set -e; cp /etc/pve/storage.cfg /root/storage.cfg; lvcreate -qq -y -L 32M -T pve/narrow
         printf '\nlvmthin: narrow\n\tthinpool narrow\n\tvgname pve\n\tcontent images\n\n' >> /etc/pve/storage.cfg
         lvcreate -qq -V 8M -n vm-107-disk-0 --thinpool pve/narrow; lvcreate -qq -V 32M -n filler --thinpool pve/narrow
         dd if=/dev/urandom of=/dev/pve/vm-107-disk-0 bs=1M count=8 oflag=direct status=none",
    )?;
    a.write_file(
        &small::config(107),
        "cores: 1\nmachine: pc\nmemory: 64\nname: narrow\nscsi0: narrow:vm-107-disk-0,size=8M\n",
    )?;
    let run = half_way(lab, "107 --to hvb --storage narrow=local-lvm")?;
    a.run_ok("dd if=/dev/urandom of=/dev/pve/filler bs=512k count=47 oflag=direct status=none")?;
    let output = run.wait_for(LONG)?;
    assert_eq!(output.status, 1, "{}", said(lab)?);
    for words in ["pve/narrow", "nearly full"] {
        assert!(said(lab)?.contains(words), "{}", said(lab)?);
    }
    assert_source_clean(a)?;
    expect(a, "pvesync generations 107 --to hvb", 1, &["no replica"])?;
    a.run_ok("lvremove -qq -y pve/narrow && rm /etc/pve/qemu-server/107.conf && cp /root/storage.cfg /etc/pve/storage.cfg")?;
    Ok(())
}

/// On ext4, which keeps one copy of a file and has no room for another here.
pub fn a_replica_may_be_overwritten_where_there_is_no_room_for_two(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    small::make(a, 108, 2)?;
    b.run_ok(
        "set -e; cp /etc/pve/storage.cfg /root/storage.cfg; truncate -s 40M /root/plain; mkfs.ext4 -q /root/plain
         mkdir -p /mnt/plain; mount -o loop /root/plain /mnt/plain
         printf '\\ndir: plain\\n\\tpath /mnt/plain\\n\\tcontent images\\n\\n' >> /etc/pve/storage.cfg",
    )?;
    let options = "108 --to hvb --storage local=plain";
    sync(lab, options)?;
    b.run_ok("fallocate -l $(($(df --output=avail -B1 /mnt/plain | tail -n 1) - 2000000)) /mnt/plain/filler")?;
    let [thin, file] = small::disks(108);
    a.run_ok(&format!(
        "dd if=/dev/urandom of={file} bs=1M count=1 seek=5 conv=notrunc status=none"
    ))?;
    let no_room = ["directory /mnt/plain/images/108", "to spare", "--in-place"];
    expect(a, &format!("pvesync vm {options}"), 1, &no_room)?;
    let events = sync(lab, &format!("{options} --in-place"))?;
    assert_eq!(event(&events, "sealed")["generation"], "rbs2");
    assert_eq!(total(&events, "/changed"), 1 << 20);
    let there = [thin.as_str(), "/mnt/plain/images/108/vm-108-disk-0.raw"];
    assert_eq!(digests(b, &there)?, digests(a, &[&thin, &file])?);
    expect(b, "pvesync verify 108", 0, &["is as it was sealed"])?;
    b.run_ok("umount /mnt/plain; rm /root/plain; cp /root/storage.cfg /etc/pve/storage.cfg")?;
    Ok(())
}

/// Both hosts as nodes of one cluster, which share /etc/pve: there the VM's id exists once, on the source.
pub fn in_one_cluster_the_configuration_is_kept_aside(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    small::make(a, 106, 1)?;
    let conf = a.read_file(&small::config(106))?;
    for (guest, other) in [(a, "hvb"), (b, "hva")] {
        guest.run_ok(&format!(
            "mkdir -p /etc/pve/nodes/{other}/qemu-server; touch /etc/pve/corosync.conf"
        ))?;
    }
    b.write_file("/etc/pve/nodes/hva/qemu-server/106.conf", conf)?;
    // A guest of any node with the wanted id is in the way.
    b.run_ok("echo 'name: other' > /etc/pve/nodes/hva/qemu-server/306.conf")?;
    let taken = "pvesync vm 106 --to hvb --target-vmid 306";
    expect(
        a,
        taken,
        3,
        &["the id 306 is taken by another guest of node hva"],
    )?;
    let events = sync(lab, "106 --to hvb")?;
    let notes = event(&events, "sealed")["notes"].to_string();
    assert!(notes.contains("VM ids are unique in a cluster"), "{notes}");
    expect(b, "ls /etc/pve/qemu-server/106.conf", 2, &[])?;
    let aside = b.run_ok("cat /var/lib/rblocksync/replicas/*/106.conf")?;
    let aside = VmConfig::parse(&aside).expect("a configuration");
    assert_eq!(aside.lock(), Some("migrate"));
    let disk = ["/dev/pve/vm-106-disk-0"];
    assert_eq!(digests(b, &disk)?, digests(a, &disk)?);
    for guest in [a, b] {
        guest.run_ok("rm -f /etc/pve/corosync.conf /etc/pve/nodes/hva/qemu-server/306.conf")?;
    }
    b.run_ok("rm -r /etc/pve/nodes/hva")?;
    a.run_ok("rm -r /etc/pve/nodes/hvb")?;
    Ok(())
}
