#!/bin/sh
# Installs what the lab and the tests need on Debian 12 or 13 (amd64), by apt-get, as root. Does nothing, at once, if it
# is all there. The guests' kernel is not among it: the lab downloads that package into its cache and only unpacks it.
set -eu
cd "$(dirname "$0")"

packages="
    bash coreutils diffutils findutils grep gzip hostname mawk procps sed tar
    binutils cpio g++ gcc kmod libc6-dev lz4 make xz-utils zstd
    btrfs-progs busybox-static dmsetup e2fsprogs iproute2 lvm2 mount nbdkit thin-provisioning-tools util-linux xfsprogs
    openssh-client openssh-server openssh-sftp-server sudo
    qemu-system-x86 qemu-utils seabios
    libvirt-clients libvirt-daemon-system libvirt-dev pkg-config
    $*
"

say() { echo "deps.sh: $*" >&2; }

if [ "$(uname -m)" != x86_64 ]; then
    say "the lab's guests are amd64 machines made of this host's programs; this host is $(uname -m)"
    exit 1
fi

# shellcheck disable=SC2086 # a list of words
missing=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2> /dev/null | sed -n 's/^installed //p' | {
    installed=" $(tr '\n' ' ')"
    for package in $packages; do
        case $installed in *" $package "*) ;; *) printf '%s ' "$package" ;; esac
    done
})
kernel=linux-image-cloud-amd64
if [ -z "$missing" ]; then
    [ -e "${LAB_CACHE:-out}/kernel/boot" ] || apt-cache show "$kernel" > /dev/null 2>&1 || {
        say "apt knows no $kernel: updating its lists"
        apt-get update -q
    }
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    say "missing: $missing"
    say "run me as root to install them"
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -q -y --no-install-recommends "$@"; }

say "installing: $missing"
apt-get update -q
# shellcheck disable=SC2086
if install $missing; then
    # apt may have chosen to remove one to be able to install another.
    [ -n "${DEPS_AGAIN:-}" ] && exit 0
    DEPS_AGAIN=1 exec ./deps.sh "$@"
fi

# The parts of QEMU must be of one version. A qemu-utils of elsewhere, newer than the archive's qemu-system-x86, makes apt
# refuse; so it goes back to the archive's version.
wanted=$(apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: //p')
have=$(dpkg-query -W -f '${Version}' qemu-utils 2> /dev/null || true)
if [ -n "$have" ] && [ -n "$wanted" ] && dpkg --compare-versions "$have" gt "$wanted"; then
    say "the installed qemu-utils $have is newer than the archive's qemu-system-x86 $wanted: downgrading qemu-utils"
    # shellcheck disable=SC2086
    install --allow-downgrades $missing "qemu-utils=$wanted" && exit 0
fi
say "apt-get could not install: $missing"
exit 1
