#!/bin/sh
# DIR [NAME]: builds the Debian packages in DIR/NAME (NAME is "build" if not given) from the tarballs that dist.sh writes to DIR, without a
# network where that can be taken away. The packages are then in DIR/NAME. More words are for dpkg-buildpackage.
set -eu
dir=$(mkdir -p "$1" && cd "$1" && pwd)
name=${2:-build}
[ $# -lt 2 ] || shift
shift
cd "$(dirname "$0")/.."
version=$(sed -n '1 s/^rblocksync (\(.*\)-[^-]*) .*/\1/p' debian/changelog)
packaging/dist.sh "$dir"

build="$dir/$name"
tree="$build/rblocksync-$version"
rm -rf "$build"
mkdir -p "$build"
for part in orig orig-vendor; do
    tar -xzf "$dir/rblocksync_$version.$part.tar.gz" -C "$build"
    ln "$dir/rblocksync_$version.$part.tar.gz" "$build/"
done
git ls-files -z -- debian | xargs -0 cp -a --parents -t "$tree"

# Debian 12 and 13 have no cargo that is new enough: whichever is there is used.
offline=
if unshare --net true 2> /dev/null; then offline="unshare --net"; fi
cd "$tree"
# shellcheck disable=SC2086 # two words
exec $offline dpkg-buildpackage -Ppkg.rblocksync.rustup -us -uc "${@:--b}"
