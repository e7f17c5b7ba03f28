//! What the man pages say beyond the options: examples, files, where to read on.

/// What is added to the page of a program or a verb.
#[derive(Clone, Copy, Default)]
pub struct Text {
    /// Further paragraphs of the description.
    pub more: &'static [&'static str],
    /// Its own codes; empty: those of all verbs.
    pub exit_status: &'static [(&'static str, &'static str)],
    /// Files and what is in them.
    pub files: &'static [(&'static str, &'static str)],
    /// Variables of the environment.
    pub environment: &'static [(&'static str, &'static str)],
    /// What each does, and the line.
    pub examples: &'static [(&'static str, &'static str)],
    /// Other pages.
    pub see: &'static [&'static str],
}

const STATE: (&str, &str) = (
    "/var/lib/rblocksync",
    "State of this host: what the generations of its replicas are, what it is for each VM, and the history of its runs. \
     Readable by root only.",
);
const STATE_VARIABLE: (&str, &str) = (
    "RBLOCKSYNC_STATE_DIR",
    "A directory to use instead of /var/lib/rblocksync.",
);
const CHECK_STATUS: &[(&str, &str)] = &[
    ("0", "all is well"),
    ("1", "a run failed"),
    ("2", "a generation is too old"),
    ("3", "that cannot be told"),
];

const RBLOCKSYNC: Text = Text {
    more: &[
        "Both sides compare digests of the whole image. Only blocks that differ are sent, and each is checked before it is \
         written. The program ends with 0 only if both sides have the same digest and the target has flushed its writes.",
        "The other host needs sshd and a key that works without a prompt. If this very release is not installed there, the \
         program is copied into a private directory for the time of the sync.",
        "Neither end may be mounted, or used by anything that writes.",
    ],
    exit_status: &[],
    files: &[(
        "~/.ssh/config",
        "Aliases, ports and jump hosts are used as ssh(1) has them.",
    )],
    environment: &[],
    examples: &[
        (
            "Copy a device of another host into one of this host:",
            "rblocksync root@host1:/dev/sda /dev/sdb",
        ),
        (
            "The same into a file, which is made:",
            "rblocksync --truncate root@host1:/dev/vg/vol vol.img",
        ),
        (
            "Between two other hosts, through this one:",
            "rblocksync root@host1:/dev/vg/a root@host2:/dev/vg/a",
        ),
        (
            "What would be sent, as a picture:",
            "rblocksync --dry-run --map diff.svg vm.img root@host2:/srv/vm.img",
        ),
        (
            "Write at 20 MB/s at most, and read back what was written:",
            "rblocksync --bwlimit 20M --verify vm.img root@host2:/srv/vm.img",
        ),
    ],
    see: &["pvesync(1)", "virt-blocksync(1)", "ssh_config(5)"],
};

const PVESYNC: Text = Text {
    more: &[
        "A sync takes all disks of a VM at one instant, sends what the other node does not have, and seals it there as a new \
         generation. The newest generation boots; older ones are kept as far as they are asked for. The last sealed \
         generation is never written to, whatever ends a run.",
        "Run it as root on the node that has the VM. The other node needs sshd and a key that works without a prompt.",
        "Nothing fails over by itself. pvesync-boot.service, which is not enabled unless you enable it, asks the other nodes \
         before this one starts its VMs.",
    ],
    exit_status: &[],
    files: &[
        (
            "/etc/pvesync/jobs.d/NAME.toml",
            "A job: which VMs go where and when. An example with all fields is in /usr/share/doc/pvesync/examples. It \
             must belong to root, and nobody else may write it.",
        ),
        (
            "/etc/pvesync/notify",
            "If it is there and executable, it is called with the name of each job that has failed.",
        ),
        (
            "/etc/default/pvesync-boot",
            "BOOT_CHECK= options for pvesync-boot.service.",
        ),
        STATE,
    ],
    environment: &[
        (
            "PVESYNC_API_TOKEN",
            "The token for --api, if no file is named.",
        ),
        STATE_VARIABLE,
    ],
    examples: &[
        (
            "The plan, and everything that stands in its way:",
            "pvesync vm 101 --to host2 --dry-run",
        ),
        ("A new generation of VM 101:", "pvesync vm 101 --to host2"),
        (
            "Every 15 minutes from now on:",
            "pvesync schedule add web 101,105-110 --to host2 --every 15m --rpo 30m",
        ),
        ("How all replications stand:", "pvesync status"),
        (
            "Does the replica boot? On host2:",
            "pvesync test-failover 101",
        ),
        (
            "host1 is lost, and will not come back by itself. On host2:",
            "pvesync failover 101",
        ),
    ],
    see: &["rblocksync(1)", "virt-blocksync(1)", "systemd.timer(5)"],
};

const VIRT_BLOCKSYNC: Text = Text {
    more: &[
        "A sync takes all disks of a domain at one instant, sends what the other host does not have, and seals it there as a \
         new generation. The newest generation boots; older ones are kept as far as they are asked for. The last sealed \
         generation is never written to, whatever ends a run.",
        "Run it as root on the host that has the domain. The other host needs sshd and a key that works without a prompt.",
    ],
    exit_status: &[],
    files: &[
        (
            "/etc/libvirt/hooks/qemu.d/50-virt-blocksync",
            "libvirt asks it whether a domain may start or arrive here. Without the program it says yes to everything.",
        ),
        (
            "/etc/virt-blocksync/jobs.d/NAME.toml",
            "A job: which domains go where and when. An example with all fields is in \
             /usr/share/doc/virt-blocksync/examples. It must belong to root, and nobody else may write it.",
        ),
        (
            "/etc/virt-blocksync/notify",
            "If it is there and executable, it is called with the name of each job that has failed.",
        ),
        (
            "/etc/virt-blocksync/hook.toml",
            "Sizes of disks that are made when a domain arrives by virsh migrate.",
        ),
        STATE,
    ],
    environment: &[
        ("LIBVIRT_DEFAULT_URI", "The libvirt to use without --connect."),
        STATE_VARIABLE,
    ],
    examples: &[
        (
            "The plan, and everything that stands in its way:",
            "virt-blocksync vm web01 --to host2 --dry-run",
        ),
        (
            "A new generation of web01, its disks in another pool there:",
            "virt-blocksync vm web01 --to host2 --pool images=fast",
        ),
        (
            "Move it, with its memory:",
            "virt-blocksync migrate web01 --to host2 --live",
        ),
        (
            "Does the replica boot? On host2:",
            "virt-blocksync test-failover web01",
        ),
        (
            "host1 is lost, and will not come back by itself. On host2:",
            "virt-blocksync failover web01",
        ),
    ],
    see: &["rblocksync(1)", "pvesync(1)", "virsh(1)", "systemd.timer(5)"],
};

/// For the page of this title.
pub fn of(title: &str) -> Text {
    match title {
        "rblocksync" => return RBLOCKSYNC,
        "pvesync" => return PVESYNC,
        "virt-blocksync" => return VIRT_BLOCKSYNC,
        _ => {}
    }
    let mut text = Text::default();
    if title.ends_with("-check") && !title.ends_with("boot-check") && !title.ends_with("job-check")
    {
        text.exit_status = CHECK_STATUS;
    }
    text.examples = examples(title);
    text
}

/// Of the verbs.
fn examples(title: &str) -> &'static [(&'static str, &'static str)] {
    match title {
        "pvesync-vm" => &[
            (
                "A new generation of one VM, its disks on another storage there:",
                "pvesync vm 101 --to host2 --storage local-lvm=fast",
            ),
            (
                "All VMs but one, four at a time, those with the oldest replicas first:",
                "pvesync vm --all --exclude-vm 107 --to host2 --parallel 4 --rpo 15m",
            ),
            (
                "Keep the newest three generations and all of the last week:",
                "pvesync vm 101 --to host2 --keep 3 --keep-within 7d",
            ),
            (
                "Leave a disk out, knowingly:",
                "pvesync vm 101 --to host2 --exclude scsi1",
            ),
        ],
        "virt-blocksync-vm" => &[
            (
                "A disk into a thin pool of a volume group there:",
                "virt-blocksync vm web01 --to host2 --pool vdb=vms/thin",
            ),
            (
                "All domains but one:",
                "virt-blocksync vm --all --exclude-vm test --to host2",
            ),
            (
                "Leave a disk out, knowingly:",
                "virt-blocksync vm web01 --to host2 --exclude vdb",
            ),
        ],
        "pvesync-migrate" => &[
            (
                "Shut the VM down here and start it there, as soon as the rest can be sent in 10 seconds:",
                "pvesync migrate 101 --to host2 --max-downtime 10s",
            ),
            (
                "Without shutting it down:",
                "pvesync migrate 101 --to host2 --live",
            ),
            (
                "Take a migration back that was cut off:",
                "pvesync migrate 101 --to host2 --undo",
            ),
        ],
        "pvesync-failback" => &[(
            "Back to the host that it came from, on the host that has it now:",
            "pvesync failback 101 --to host1",
        )],
        "pvesync-failover" => &[(
            "Make sure first, by your own command, that the old host is off:",
            "pvesync failover 101 --fence /usr/local/sbin/power-off-host1",
        )],
        "pvesync-verify" => &[
            (
                "Read the newest generation again:",
                "pvesync verify 101 --to host2",
            ),
            (
                "The next 5 % of it, for a timer:",
                "pvesync verify 101 --to host2 --slice 5",
            ),
        ],
        "pvesync-check" => &[(
            "Anything older than 30 minutes is too old:",
            "pvesync check --max-age 30m",
        )],
        "pvesync-status" => &[(
            "For Prometheus' node exporter:",
            "pvesync status --metrics /var/lib/prometheus/node-exporter/rblocksync.prom",
        )],
        "pvesync-report" => &[(
            "A page for a web server:",
            "pvesync report --html /srv/www/replicas.html --rpo 15m --mode 644",
        )],
        "pvesync-prune" => &[(
            "Keep the newest only:",
            "pvesync prune 101 --keep 1 --to host2",
        )],
        "pvesync-pin" => &[("Keep generation 1:", "pvesync pin 101 1 --to host2")],
        "pvesync-doctor" => &[("Finish or remove what was cut off:", "pvesync doctor --repair")],
        "pvesync-schedule-add" => &[(
            "All VMs, on Saturdays:",
            "pvesync schedule add night --all --to host3 --on-calendar 'Sat 03:00' --keep-within 28d",
        )],
        "pvesync-job-run" => &[("Now, instead of at its time:", "pvesync job run nightly")],
        "virt-blocksync-schedule-add" => &[(
            "All domains, on Saturdays:",
            "virt-blocksync schedule add night --all --to host3 --on-calendar 'Sat 03:00' --keep-within 28d",
        )],
        "virt-blocksync-job-run" => &[("Now, instead of at its time:", "virt-blocksync job run nightly")],
        "virt-blocksync-migrate" => &[
            (
                "Shut the domain down here and start it there:",
                "virt-blocksync migrate web01 --to host2",
            ),
            (
                "Without shutting it down:",
                "virt-blocksync migrate web01 --to host2 --live",
            ),
        ],
        "virt-blocksync-failback" => &[(
            "Back to the host that it came from, on the host that has it now:",
            "virt-blocksync failback web01 --to host1",
        )],
        _ => &[],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::programs;

    /// All pages' titles.
    fn titles(command: &clap::Command, title: &str, found: &mut Vec<String>) {
        found.push(title.to_owned());
        for verb in command.get_subcommands() {
            titles(verb, &format!("{title}-{}", verb.get_name()), found);
        }
    }

    #[test]
    fn examples_are_lines_that_the_programs_take() {
        let mut seen = 0;
        for program in programs::all() {
            let mut found = Vec::new();
            titles(&program, program.get_name(), &mut found);
            for title in found {
                for (_, line) in super::of(&title).examples {
                    let words = shlex::split(line).unwrap();
                    assert_eq!(words[0], program.get_name(), "{line}");
                    let taken = program.clone().try_get_matches_from(&words);
                    assert!(taken.is_ok(), "{line}: {}", taken.unwrap_err());
                    seen += 1;
                }
            }
        }
        assert!(seen > 30, "{seen}");
    }
}
