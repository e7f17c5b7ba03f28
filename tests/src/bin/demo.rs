//! `make demo`: the main job, for real, between two hypervisors, with a transcript to read along.

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tests::lab::{pattern, Background, Guest, Lab, Options};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let began = Instant::now();
    match demo() {
        Ok(()) => {
            println!(
                "\n== The demo took {:.0} s ==",
                began.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Outcome {
    title("Two hypervisors boot: Debian kernel, real lvm2 thin pools, real sshd (hva and hvb)");
    let began = Instant::now();
    let lab = Lab::up(Options::default())?;
    let (a, b) = (lab.a(), lab.b());
    println!(
        "both answer ssh after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    show(
        a,
        "grep -E '^(name|scsi|efi|memory)' /etc/pve/qemu-server/101.conf",
    )?;

    title("What would a sync do? Nothing is changed by asking");
    show(a, "pvesync vm 101 --to hvb --dry-run")?;

    title("First sync of VM 101: a thin volume and a raw file");
    show(a, "pvesync vm 101 --to hvb")?;
    title("The same bytes on both hosts?");
    let source = digests(
        a,
        "/dev/pve/vm-101-disk-0",
        "/var/lib/vz/images/101/vm-101-disk-0.raw",
    )?;
    let replica = digests(
        b,
        "/dev/pve/vm-101-disk-0",
        "/var/lib/vz/images/101/vm-101-disk-0.raw",
    )?;
    check(source == replica, "the replica differs from the source")?;
    println!("equal");
    title("The replica is there to boot, but not by accident");
    show(b, "grep -E '^(lock|onboot|tags|scsi)' /etc/pve/qemu-server/101.conf; qm start 101; echo \"exit code $?\"")?;

    title("VM 101 starts and writes, numbering its writes over both disks in order");
    show(a, "qm start 101")?;
    let written = wait_for_writes(a, 500)?;
    println!("{written} writes of 4 KiB so far");
    title("Second sync, while it runs: only what changed is sent");
    show(a, "pvesync vm 101 --to hvb")?;
    show(a, "qm status 101")?;
    title(
        "Both disks of generation rbs2 are of one instant: no write torn, missing or out of order",
    );
    let report = check_generation(b, "rbs2")?;
    println!("{report}");

    title("Generations on hvb; Proxmox sees thin ones as snapshots of the volume");
    show(a, "pvesync generations 101 --to hvb")?;
    show(b, "lvs --noheadings -o lv_name,origin,lv_attr pve")?;

    title("A third sync is killed in the middle (kill -9)");
    let before = generation_digest(b, "rbs2")?;
    wait_for_writes(a, written + 300)?;
    println!("hva# pvesync vm 101 --to hvb --compress off --bwlimit 100K &");
    let mut run = a.spawn("pvesync vm 101 --to hvb --compress off --bwlimit 100K --json")?;
    wait_for_transfer(a, &mut run)?;
    run.signal("KILL")?;
    println!("hva# kill -9 %1");
    show(
        a,
        "qm status 101; lvs --noheadings -o lv_name pve | grep -v 102",
    )?;
    check(
        generation_digest(b, "rbs2")? == before,
        "generation rbs2 changed",
    )?;
    println!("generation rbs2 on hvb is untouched");
    title("The next run cleans up, goes on where that one was, and seals");
    show(a, "pvesync vm 101 --to hvb")?;
    println!("{}", check_generation(b, "rbs3")?);
    show(
        a,
        "lvs --noheadings -o lv_name pve | grep -v 102; qm stop 101",
    )?;
    Ok(())
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn check(good: bool, otherwise: &str) -> Outcome {
    match good {
        true => Ok(()),
        false => Err(otherwise.into()),
    }
}

/// Shows a command and what it prints. It must succeed.
fn show(guest: &Guest, script: &str) -> Outcome {
    println!("{}# {script}", guest.name());
    let output = guest.run(script)?;
    print!("{}{}", output.stdout, output.stderr);
    check(output.success(), &format!("exit code {}", output.status))
}

/// SHA-256 of both disks, shown.
fn digests(
    guest: &Guest,
    volume: &str,
    file: &str,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let script =
        format!("lvchange -ay -K {volume}; sha256sum {volume} {file}; lvchange -an {volume}");
    println!("{}# sha256sum {volume} {file}", guest.name());
    let text = guest.run_ok(&script)?;
    println!("{text}");
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect())
}

/// Waits until the VM's newest write has at least this number.
fn wait_for_writes(guest: &Guest, at_least: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let region = guest.read_command(
            "dd if=/dev/pve/vm-101-disk-0 bs=1M skip=1 count=2 iflag=direct status=none",
        )?;
        let newest = u64::from(pattern::newest(&region));
        if newest >= at_least {
            return Ok(newest);
        }
        check(Instant::now() < deadline, "the VM does not write")?;
    }
}

/// Waits until the sync that runs in the background has a fork open on the target.
fn wait_for_transfer(a: &Guest, run: &mut Background) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !a
        .run("lvs --noheadings -o lv_name pve | grep -q rbs")?
        .success()
    {
        check(
            run.is_running()? && Instant::now() < deadline,
            "the sync did not start",
        )?;
    }
    Ok(())
}

/// Where the two disks of a generation of VM 101 are on the target.
fn generation_volumes(generation: &str) -> [String; 2] {
    [
        format!("/dev/pve/snap_vm-101-disk-0_{generation}"),
        format!("/var/lib/vz/images/101/.vm-101-disk-0.raw.{generation}"),
    ]
}

fn generation_digest(
    guest: &Guest,
    generation: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    let [thin, file] = generation_volumes(generation);
    Ok(guest.run_ok(&format!(
        "lvchange -ay -K {thin} && sha256sum {thin} {file}; lvchange -an {thin}"
    ))?)
}

/// Runs the pattern checker over both disks of a generation.
fn check_generation(guest: &Guest, generation: &str) -> Result<String, Box<dyn std::error::Error>> {
    let [thin, file] = generation_volumes(generation);
    guest.run_ok(&format!("lvchange -ay -K {thin}"))?;
    let mut regions = Vec::new();
    for disk in [&thin, &file] {
        regions
            .push(guest.read_command(&format!("dd if={disk} bs=1M skip=1 count=2 status=none"))?);
    }
    guest.run_ok(&format!("lvchange -an {thin}"))?;
    match pattern::check_regions(&regions) {
        Ok(report) => Ok(format!(
            "clean: {} writes, newest on the disks {:?}",
            report.writes, report.newest
        )),
        Err(violations) => Err(format!("generation {generation} is torn: {violations:?}").into()),
    }
}
