#!/bin/sh
# RUSTC ARGUMENTS: the compiler, as cargo is told to call it for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER). Two
# programs are linked statically, because they are sent to other hosts as they are; virt-blocksync cannot be, as libvirt's
# library is there as a shared one only. What they are linked from is the same for all three, and is so compiled once.
set -eu
case " $* " in
    *" --crate-name rblocksync "*" --crate-type bin "* | *" --crate-name pvesync "*" --crate-type bin "*)
        set -- "$@" -C target-feature=+crt-static
        ;;
esac
exec "$@"
