#!/bin/sh
# Keeps a VM from being started on a host that is not its primary one. Proxmox VE calls it as: SCRIPT VMID PHASE.
# It needs nothing of the suite: what a host is for a VM is in one small file, of one line: role, epoch, reason.
# Without that file nothing is known of the VM, and it may start. pvesync wrote this script and replaces it.
dir=@DIR@
vmid=${1-} phase=${2-}
# Anything but a number names no file there.
case $vmid in '' | *[!0-9]*) exit 0 ;; esac
# The suite itself may have a guest wait here for its memory: its file names the process that does so, and since when.
awaited() {
    pid='' began='' stat=''
    [ -e "$dir/$vmid.incoming" ] && read -r pid began < "$dir/$vmid.incoming" || return 1
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    [ -e "/proc/$pid/stat" ] && read -r stat < "/proc/$pid/stat" || return 1
    # The name may hold anything, the start is the 20th word behind it.
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    [ -n "$began" ] && [ "${20-}" = "$began" ]
}
if [ "$phase" = pre-start ] && [ -e "$dir/$vmid" ] && ! awaited; then
    role='' epoch='' reason=''
    read -r role epoch reason < "$dir/$vmid"
    if [ "$role" != primary ]; then
        printf 'VM %s must not start on this host: it is %s here since epoch %s: %s\n' \
            "$vmid" "${role:-of an unknown role}" "${epoch:-?}" "$reason" >&2
        case $role in
            held) printf 'Ask the other hosts again: pvesync boot-check %s (runbook: both-back)\n' "$vmid" >&2 ;;
            *) printf 'Look at: pvesync status. To start a replica: pvesync failover %s (runbook: source-host-dead)\n' "$vmid" >&2 ;;
        esac
        exit 1
    fi
fi
# The VM's own hookscript, as if we were not there.
chain=''
if [ -e "$dir/$vmid.chain" ]; then
    IFS= read -r chain < "$dir/$vmid.chain"
    [ -z "$chain" ] || exec "$chain" "$@"
fi
exit 0
