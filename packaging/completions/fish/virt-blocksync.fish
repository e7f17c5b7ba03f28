# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_virt_blocksync_global_optspecs
    string join \n q/quiet json progress= ssh-config= cipher= accept-new-host-key c/connect= config= h/help V/version
end

function __fish_virt_blocksync_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_virt_blocksync_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_virt_blocksync_using_subcommand
    set -l cmd (__fish_virt_blocksync_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -s V -l version -d 'Print version'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "vm" -d 'Sync domains of this host to another host, each as a new generation there'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "generations" -d 'List the generations of replicas, here or on another host'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "status" -d 'How all replications stand that this host has a part in'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "check" -d 'The same for Nagios and its like: exit code 0 if all is well, 1 after a failed run, 2 if a generation is too old, 3 if that cannot be told'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "report" -d 'Write the status of all replications as one HTML file, to be looked at or printed'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "doctor" -d 'Look for what is unfinished, broken or missing on this host'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "setup" -d 'Make a key for the runs to another host that serves nothing but them there'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "prune" -d 'Drop generations that are not to be kept, here or on another host'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "pin" -d 'Keep a generation from being pruned'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "unpin" -d 'Let a generation be pruned again'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "failover" -d 'Make the replica on this host the domain, because its source is lost'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "test-failover" -d 'Boot a clone of a generation of a replica on this host, without any network, and remove it'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "verify" -d 'Read a generation again and compare it with what was sealed, here or on another host'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "job" -d 'Run or check jobs: what is in /etc/virt-blocksync/jobs.d'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "schedule" -d 'Let domains be synced regularly, by systemd'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "migrate" -d 'Move a domain to another host that has, or gets, a replica of it'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "boot-check" -d 'Before this host starts its domains: ask the other hosts whether they have taken one over, and keep that off here'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "failback" -d 'Bring a domain back to the host that it was taken over from, or moved from'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "config" -d 'Check or show the configuration: /etc/virt-blocksync/virt-blocksync.toml and the environment'
complete -c virt-blocksync -n "__fish_virt_blocksync_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l exclude-vm -d 'But not these' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l to -d 'Host to keep the replica on: [USER@]HOST or ssh://[USER@]HOST[:PORT]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l format -d 'Format of a disk there, by its key (scsi1=qcow2): raw or qcow2, where disks are files; by default what it is here. May be given more than once; counts when the disk is sent for the first time' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l exclude -d 'Leave this disk out, by its key (scsi1, vdb); may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l keep -d 'Generations to keep there; pinned ones stay besides' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l keep-within -d 'Keep also all taken within this time before the newest: 36h, 7d, 4w' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l jobs -d 'Disks to sync at once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l scratch -d 'Directory in which QEMU may keep what the guest overwrites during the sync, where a disk can have no snapshot: a running VM\'s qcow2 files, and what is neither on LVM-thin nor on XFS or btrfs [default: with our state]' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l scratch-max -d 'Most bytes of that. With more the sync is given up; the guest goes on [default: a quarter of what is free]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l hash -d 'Hash function that finds differences' -r -f -a "blake3\t'BLAKE3'
sha256\t'SHA-256'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l bwlimit -d 'Send at most this many bytes of data a second (K, M, G), as they travel' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l compress -d 'Compress what is sent: auto follows the speed of the link, off, or a zstd level from 1 to 19' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l threads -d 'Threads on each side that read, hash and write; by default twice the processors, 4 to 8' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l streams -d 'SSH connections that share the data of a disk: auto, or 1 to 16' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l hold-max -d 'Longest time the guest may be held still for a snapshot, in seconds' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l retry-for -d 'How long to try again when the connection is lost in the transfer: 90s, 1h; 0s for not at all' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l pool -d 'Put disks of pool SRC into pool DST there, or a disk, by its key (vda); DST may name a thin pool of a volume group (vms/thin) or be a directory. May be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l path -d 'Put disks below directory SRC below directory DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l network -d 'Network SRC is called DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l bridge -d 'Bridge SRC is called DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l target-name -d 'Name of the replica there, if not the same. It then has another UUID, too' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l target-kind -d 'What the other host is: auto asks it' -r -f -a "auto\t'To be asked for'
pve\t'Proxmox VE'
libvirt\t'libvirt'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l parallel -d 'VMs to sync at once, where there are several' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l per-host -d 'Of these, at most so many to one host [default: as many]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l rpo -d 'How old the newest generation may be: 15m. Who has used up most of it is synced first, and you are told when a run takes more than half of it' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l all -d 'All domains of this host, but replicas and those that have gone to other hosts'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l in-place -d 'Where files cannot share blocks, overwrite the replica instead of keeping a second copy of it meanwhile: until the sync is done there is then no replica that boots'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l no-base -d 'Keep no snapshot of what was sent. It keeps what the guest overwrites until the next sync, which without it has to compare everything'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l dry-run -d 'Tell what would be done; change nothing'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l verify -d 'Read back from the medium what was written, and check it'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l direct -d 'Read and write files past the page cache, as devices always are'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l print-config -d 'Show the configuration that the VM would get on the other host, and what of it would be lost; change nothing'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand vm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -l to -d 'On this host instead of here' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand generations" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -l max-age -d 'Tell also whether the newest generation is younger than this: 15m' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -l metrics -d 'Write it to FILE for Prometheus\' node exporter (its name must end in .prom) instead of printing it' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -l max-age -l rpo -d 'The oldest that a newest generation may be: 15m. By default each VM with the RPO of its job, also those that were never synced' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -l html -d 'The file; it is replaced as a whole' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -l rpo -d 'The oldest that a newest generation may be, for all of them: 15m. By default each with the RPO of its job; where there is none, none is called late' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -l mode -d 'Who may read the file: 600 for its owner only, 644 for everybody, such as a web server' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -l repair -d 'Finish what was cut off, and remove what such runs have left'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l user -d 'Log in as this user, and run the agent with sudo' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l access -d 'What the key is good for' -r -f -a "append\t'Generations are added, and none is overwritten or removed'
write\t'Replicas are kept, and pruned'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l allow-vm -d 'Ids that replicas may have there, with * and ?; may be given more than once [default: all]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l allow-storage -d 'Storages, pools or directories that replicas may be on there; may be given more than once [default: all]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l bandwidth -d 'Most bytes a second that a connection may bring (K, M, G), at least 1M' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l roles -d 'Let VMs be taken over and moved there, too; only with --access write'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l remove -d 'Take the key and the policy away again, here and there'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand setup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l to -d 'On this host instead of here' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l keep -d 'Generations to keep there; pinned ones stay besides' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l keep-within -d 'Keep also all taken within this time before the newest: 36h, 7d, 4w' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l dry-run -d 'Tell which generations would go; change nothing'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -l to -d 'On this host instead of here' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand pin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -l to -d 'On this host instead of here' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand unpin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l generation -d 'Number of the generation to go on from; the newest if none is given' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l source -d 'How the source is reached from here: [USER@]HOST or ssh://[USER@]HOST[:PORT]. By default by its own name' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l fence -d 'Program, by its absolute path, with arguments, that makes sure that the source does not run the VM any more. It must exit with 0. No shell reads it; quotes keep words together' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l fence-timeout -d 'Longest time that may take' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l i-am-sure -d 'The VM\'s name: you are certain that it does not run on the source, and never will again' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l no-start -d 'Leave the VM off'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l dry-run -d 'Tell what is known and what would be done; change nothing'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failover" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l generation -d 'Number of the generation; the newest if none is given' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l script -d 'Program, by its absolute path, with arguments, whose exit code 0 says that the clone is fine. It finds the clone\'s id in RBLOCKSYNC_VM, the sockets of its monitor and agent in RBLOCKSYNC_QMP and RBLOCKSYNC_QGA. Without it the guest\'s agent must answer; if the VM has none, its QEMU must keep running for a minute' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l timeout -d 'Longest time until the verdict' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l keep-for -d 'Let the clone go on for so long afterwards, to be looked at' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l test-vmid -l test-name -d 'Id of the clone [default: a free one from 90000 on]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand test-failover" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l to -d 'On this host instead of here' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l generation -d 'Number of the generation; the newest if none is given' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l slice -d 'Only so much of it, in percent, and the next time what comes behind: for a timer' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l repair -d 'Put damage right from the VM\'s disks on this host, as far as the guest has not written there since'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -f -a "run" -d 'Run a job now: all VMs that its file names'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -f -a "check" -d 'Check the file of a job, or of all jobs, and tell which VMs they come to'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and not __fish_seen_subcommand_from run check help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -l dry-run -d 'Tell what would be done; change nothing'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from check" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from check" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from check" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from check" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from check" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from check" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from check" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from check" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from help" -f -a "run" -d 'Run a job now: all VMs that its file names'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from help" -f -a "check" -d 'Check the file of a job, or of all jobs, and tell which VMs they come to'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand job; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -f -a "add" -d 'Let VMs be synced regularly: writes a job file and a systemd timer'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -f -a "list" -d 'All jobs: when they run next, what came of the last run, and how old their replicas are'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -f -a "remove" -d 'Take a schedule away, with its job file; replicas stay'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and not __fish_seen_subcommand_from add list remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l exclude-vm -d 'But not these' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l to -d 'Host to keep the replicas on; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l every -d 'How often: 15m, 1h, 1d. A part of an hour or a day' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l on-calendar -d 'When, as systemd writes it: "Sat 03:00" (systemd.time(7))' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l random-delay -d 'Begin up to so much later, so that not all hosts begin at once [default: a tenth of --every, or 30s]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l parallel -d 'VMs to sync at once, where there are several' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l per-host -d 'Of these, at most so many to one host [default: as many]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l rpo -d 'How old the newest generation may be: 15m. Who has used up most of it is synced first, and you are told when a run takes more than half of it' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l format -d 'Format of a disk there, by its key (scsi1=qcow2): raw or qcow2, where disks are files; by default what it is here. May be given more than once; counts when the disk is sent for the first time' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l exclude -d 'Leave this disk out, by its key (scsi1, vdb); may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l keep -d 'Generations to keep there; pinned ones stay besides' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l keep-within -d 'Keep also all taken within this time before the newest: 36h, 7d, 4w' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l jobs -d 'Disks to sync at once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l scratch -d 'Directory in which QEMU may keep what the guest overwrites during the sync, where a disk can have no snapshot: a running VM\'s qcow2 files, and what is neither on LVM-thin nor on XFS or btrfs [default: with our state]' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l scratch-max -d 'Most bytes of that. With more the sync is given up; the guest goes on [default: a quarter of what is free]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l hash -d 'Hash function that finds differences' -r -f -a "blake3\t'BLAKE3'
sha256\t'SHA-256'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l bwlimit -d 'Send at most this many bytes of data a second (K, M, G), as they travel' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l compress -d 'Compress what is sent: auto follows the speed of the link, off, or a zstd level from 1 to 19' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l threads -d 'Threads on each side that read, hash and write; by default twice the processors, 4 to 8' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l streams -d 'SSH connections that share the data of a disk: auto, or 1 to 16' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l hold-max -d 'Longest time the guest may be held still for a snapshot, in seconds' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l retry-for -d 'How long to try again when the connection is lost in the transfer: 90s, 1h; 0s for not at all' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l pool -d 'Put disks of pool SRC into pool DST there, or a disk, by its key (vda); DST may name a thin pool of a volume group (vms/thin) or be a directory. May be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l path -d 'Put disks below directory SRC below directory DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l network -d 'Network SRC is called DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l bridge -d 'Bridge SRC is called DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l all -d 'All domains of this host, but replicas and those that have gone to other hosts'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l replace -d 'Replace a job of this name that says something else'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l in-place -d 'Where files cannot share blocks, overwrite the replica instead of keeping a second copy of it meanwhile: until the sync is done there is then no replica that boots'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l no-base -d 'Keep no snapshot of what was sent. It keeps what the guest overwrites until the next sync, which without it has to compare everything'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l verify -d 'Read back from the medium what was written, and check it'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l direct -d 'Read and write files past the page cache, as devices always are'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from list" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from list" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from list" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from list" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from list" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from list" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from list" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from remove" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from remove" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from remove" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from remove" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from remove" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from remove" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from remove" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from remove" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from help" -f -a "add" -d 'Let VMs be synced regularly: writes a job file and a systemd timer'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from help" -f -a "list" -d 'All jobs: when they run next, what came of the last run, and how old their replicas are'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Take a schedule away, with its job file; replicas stay'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand schedule; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l to -d 'Host to keep the replica on: [USER@]HOST or ssh://[USER@]HOST[:PORT]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l format -d 'Format of a disk there, by its key (scsi1=qcow2): raw or qcow2, where disks are files; by default what it is here. May be given more than once; counts when the disk is sent for the first time' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l exclude -d 'Leave this disk out, by its key (scsi1, vdb); may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l keep -d 'Generations to keep there; pinned ones stay besides' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l keep-within -d 'Keep also all taken within this time before the newest: 36h, 7d, 4w' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l jobs -d 'Disks to sync at once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l scratch -d 'Directory in which QEMU may keep what the guest overwrites during the sync, where a disk can have no snapshot: a running VM\'s qcow2 files, and what is neither on LVM-thin nor on XFS or btrfs [default: with our state]' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l scratch-max -d 'Most bytes of that. With more the sync is given up; the guest goes on [default: a quarter of what is free]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l hash -d 'Hash function that finds differences' -r -f -a "blake3\t'BLAKE3'
sha256\t'SHA-256'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l bwlimit -d 'Send at most this many bytes of data a second (K, M, G), as they travel' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l compress -d 'Compress what is sent: auto follows the speed of the link, off, or a zstd level from 1 to 19' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l threads -d 'Threads on each side that read, hash and write; by default twice the processors, 4 to 8' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l streams -d 'SSH connections that share the data of a disk: auto, or 1 to 16' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l hold-max -d 'Longest time the guest may be held still for a snapshot, in seconds' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l retry-for -d 'How long to try again when the connection is lost in the transfer: 90s, 1h; 0s for not at all' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l pool -d 'Put disks of pool SRC into pool DST there, or a disk, by its key (vda); DST may name a thin pool of a volume group (vms/thin) or be a directory. May be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l path -d 'Put disks below directory SRC below directory DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l network -d 'Network SRC is called DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l bridge -d 'Bridge SRC is called DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l target-name -d 'Name of the replica there, if not the same. It then has another UUID, too' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l max-downtime -d 'Syncs are repeated while the VM runs until the last one, for which it is off, is expected to take no longer' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l stop -d 'How the VM is ended here: its guest shuts down, or it is switched off as by a power cut' -r -f -a "shutdown\t'Its guest is asked to shut down'
off\t'It is switched off: its guest sees that as a power cut'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l shutdown-timeout -d 'How long its guest may take to shut down; then the VM stays here' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l live -d 'Its guest is not shut down, and goes on there with its memory. It runs until almost all is there if both hosts can do that (libvirt, with disks that are files); else, or with --live=pause, it is paused while its memory is sent' -r -f -a "auto\t'Without being held still, where that is possible'
pause\t'Paused'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l pause-max -d 'How long the guest may be paused at the most for that; then it goes on here' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l rounds-max -d 'Most syncs of the running VM before it is given up' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l health-command -d 'Program, by its absolute path, with arguments, that is run on this host with VMID and HOST in its environment, and exits with 0 if the VM does well there. No shell reads it. Besides, the guest\'s agent has to answer, if there is one' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l health-timeout -d 'How long to wait for that' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l target-lost -d 'With --undo: do not ask the other host, which will never run the VM again. To be confirmed by the VM\'s id' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l in-place -d 'Where files cannot share blocks, overwrite the replica instead of keeping a second copy of it meanwhile: until the sync is done there is then no replica that boots'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l no-base -d 'Keep no snapshot of what was sent. It keeps what the guest overwrites until the next sync, which without it has to compare everything'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l dry-run -d 'Tell what would be done; change nothing'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l verify -d 'Read back from the medium what was written, and check it'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l direct -d 'Read and write files past the page cache, as devices always are'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l no-start -d 'Do not start it there'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l undo -d 'Take the VM back that a migration which was cut off has given up, once the other host has confirmed that it will not take it over'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand migrate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l wait -d 'How long to try to ask the other hosts, in all' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l unreachable -d 'What is done about a VM if one of the hosts that keep its replica cannot be asked: it may start, or it is kept off' -r -f -a "start\t'It may start: a host that is alone must be able to'
hold\t'It is kept off until they have answered, or somebody decides'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l reach -d 'How a host is reached, if not as it was when it was synced to: its name and [USER@]HOST or ssh://[USER@]HOST[:PORT]; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l i-am-sure -d 'You are certain that this VM, named by its id, runs on no other host: it may start unless another host is primary in a newer epoch; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l before-libvirt -d 'libvirt does not run yet: its definitions are read from its files, and what must not start is kept off by the hook'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l dry-run -d 'Tell what is known and what would be done; change nothing'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand boot-check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l to -d 'Host to keep the replica on: [USER@]HOST or ssh://[USER@]HOST[:PORT]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l format -d 'Format of a disk there, by its key (scsi1=qcow2): raw or qcow2, where disks are files; by default what it is here. May be given more than once; counts when the disk is sent for the first time' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l exclude -d 'Leave this disk out, by its key (scsi1, vdb); may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l keep -d 'Generations to keep there; pinned ones stay besides' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l keep-within -d 'Keep also all taken within this time before the newest: 36h, 7d, 4w' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l jobs -d 'Disks to sync at once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l scratch -d 'Directory in which QEMU may keep what the guest overwrites during the sync, where a disk can have no snapshot: a running VM\'s qcow2 files, and what is neither on LVM-thin nor on XFS or btrfs [default: with our state]' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l scratch-max -d 'Most bytes of that. With more the sync is given up; the guest goes on [default: a quarter of what is free]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l hash -d 'Hash function that finds differences' -r -f -a "blake3\t'BLAKE3'
sha256\t'SHA-256'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l bwlimit -d 'Send at most this many bytes of data a second (K, M, G), as they travel' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l compress -d 'Compress what is sent: auto follows the speed of the link, off, or a zstd level from 1 to 19' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l threads -d 'Threads on each side that read, hash and write; by default twice the processors, 4 to 8' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l streams -d 'SSH connections that share the data of a disk: auto, or 1 to 16' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l hold-max -d 'Longest time the guest may be held still for a snapshot, in seconds' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l retry-for -d 'How long to try again when the connection is lost in the transfer: 90s, 1h; 0s for not at all' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l pool -d 'Put disks of pool SRC into pool DST there, or a disk, by its key (vda); DST may name a thin pool of a volume group (vms/thin) or be a directory. May be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l path -d 'Put disks below directory SRC below directory DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l network -d 'Network SRC is called DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l bridge -d 'Bridge SRC is called DST there; may be given more than once' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l target-name -d 'Name of the replica there, if not the same. It then has another UUID, too' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l max-downtime -d 'Syncs are repeated while the VM runs until the last one, for which it is off, is expected to take no longer' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l stop -d 'How the VM is ended here: its guest shuts down, or it is switched off as by a power cut' -r -f -a "shutdown\t'Its guest is asked to shut down'
off\t'It is switched off: its guest sees that as a power cut'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l shutdown-timeout -d 'How long its guest may take to shut down; then the VM stays here' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l live -d 'Its guest is not shut down, and goes on there with its memory. It runs until almost all is there if both hosts can do that (libvirt, with disks that are files); else, or with --live=pause, it is paused while its memory is sent' -r -f -a "auto\t'Without being held still, where that is possible'
pause\t'Paused'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l pause-max -d 'How long the guest may be paused at the most for that; then it goes on here' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l rounds-max -d 'Most syncs of the running VM before it is given up' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l health-command -d 'Program, by its absolute path, with arguments, that is run on this host with VMID and HOST in its environment, and exits with 0 if the VM does well there. No shell reads it. Besides, the guest\'s agent has to answer, if there is one' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l health-timeout -d 'How long to wait for that' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l in-place -d 'Where files cannot share blocks, overwrite the replica instead of keeping a second copy of it meanwhile: until the sync is done there is then no replica that boots'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l no-base -d 'Keep no snapshot of what was sent. It keeps what the guest overwrites until the next sync, which without it has to compare everything'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l dry-run -d 'Tell what would be done; change nothing'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l verify -d 'Read back from the medium what was written, and check it'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l direct -d 'Read and write files past the page cache, as devices always are'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l no-migrate -d 'Only make the other host a replica host again and sync to it; the VM stays here'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l no-start -d 'Do not start it there'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand failback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -f -a "check" -d 'Check the configuration file, and tell what it and the environment set, and where'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -f -a "show" -d 'Print all options as they hold, and where that is said, as a configuration file'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and not __fish_seen_subcommand_from check show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from check" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from check" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from check" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from check" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from check" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from check" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from check" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from check" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -s c -l connect -d 'libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]' -r
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -l defaults -d 'Print the file that changes nothing, with all options explained'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Print nothing but errors'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "check" -d 'Check the configuration file, and tell what it and the environment set, and where'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print all options as they hold, and where that is said, as a configuration file'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "vm" -d 'Sync domains of this host to another host, each as a new generation there'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "generations" -d 'List the generations of replicas, here or on another host'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "status" -d 'How all replications stand that this host has a part in'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "check" -d 'The same for Nagios and its like: exit code 0 if all is well, 1 after a failed run, 2 if a generation is too old, 3 if that cannot be told'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "report" -d 'Write the status of all replications as one HTML file, to be looked at or printed'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "doctor" -d 'Look for what is unfinished, broken or missing on this host'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "setup" -d 'Make a key for the runs to another host that serves nothing but them there'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "prune" -d 'Drop generations that are not to be kept, here or on another host'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "pin" -d 'Keep a generation from being pruned'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "unpin" -d 'Let a generation be pruned again'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "failover" -d 'Make the replica on this host the domain, because its source is lost'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "test-failover" -d 'Boot a clone of a generation of a replica on this host, without any network, and remove it'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "verify" -d 'Read a generation again and compare it with what was sealed, here or on another host'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "job" -d 'Run or check jobs: what is in /etc/virt-blocksync/jobs.d'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "schedule" -d 'Let domains be synced regularly, by systemd'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "migrate" -d 'Move a domain to another host that has, or gets, a replica of it'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "boot-check" -d 'Before this host starts its domains: ask the other hosts whether they have taken one over, and keep that off here'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "failback" -d 'Bring a domain back to the host that it was taken over from, or moved from'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "config" -d 'Check or show the configuration: /etc/virt-blocksync/virt-blocksync.toml and the environment'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and not __fish_seen_subcommand_from vm generations status check report doctor setup prune pin unpin failover test-failover verify job schedule migrate boot-check failback config help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and __fish_seen_subcommand_from job" -f -a "run" -d 'Run a job now: all VMs that its file names'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and __fish_seen_subcommand_from job" -f -a "check" -d 'Check the file of a job, or of all jobs, and tell which VMs they come to'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and __fish_seen_subcommand_from schedule" -f -a "add" -d 'Let VMs be synced regularly: writes a job file and a systemd timer'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and __fish_seen_subcommand_from schedule" -f -a "list" -d 'All jobs: when they run next, what came of the last run, and how old their replicas are'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and __fish_seen_subcommand_from schedule" -f -a "remove" -d 'Take a schedule away, with its job file; replicas stay'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "check" -d 'Check the configuration file, and tell what it and the environment set, and where'
complete -c virt-blocksync -n "__fish_virt_blocksync_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Print all options as they hold, and where that is said, as a configuration file'
