#!/bin/sh
# VERSION DIR: looks whether the programs built there are of that version, and hardened as programs for hypervisors should
# be. rblocksync and pvesync must need no library, because they are sent to other hosts.
set -eu
version=$1 dir=$2

fail() {
    echo "check-programs.sh: $*" >&2
    exit 1
}

for program in "$dir/rblocksync" "$dir/pvesync" "$dir/virt-blocksync"; do
    said=$("$program" --version)
    [ "$said" = "${program##*/} $version" ] || fail "$program says it is '$said', not version $version"
    readelf -hW "$program" | grep -q 'Type: *DYN' || fail "$program is not position independent"
    readelf -lW "$program" | grep -q GNU_RELRO || fail "$program has no RELRO"
    readelf -dW "$program" | grep -q 'FLAGS.*NOW' || fail "$program binds its symbols late"
    ! readelf -lW "$program" | grep -q 'GNU_STACK.*E' || fail "$program has an executable stack"
    case $program in
        */rblocksync | */pvesync) ! readelf -dW "$program" | grep NEEDED || fail "$program needs shared libraries" ;;
        *) readelf -dW "$program" | grep -q 'NEEDED.*libvirt\.so\.0' || fail "$program does not use libvirt" ;;
    esac
done
