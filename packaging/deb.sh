#!/bin/sh
# DIR [NAME [WORDS]]: builds the Debian packages in DIR/NAME ("build" if no name is given) from the two tarballs that dist.sh
# writes to DIR, without a network where that can be taken away, and leaves them there. WORDS are for dpkg-buildpackage
# instead of -b. With DEB_PREBUILT (debian/rules) nothing is compiled, and so neither tarballs nor crates are needed.
set -eu
dir=$(mkdir -p "$1" && cd "$1" && pwd)
name=${2:-build}
[ $# -lt 2 ] || shift
shift
cd "$(dirname "$0")/.."
version=$(sed -n '1 s/^rblocksync (\(.*\)-[^-]*) .*/\1/p' debian/changelog)
build="$dir/$name"
tree="$build/rblocksync-$version"

# What git knows, of all or of these paths.
copy() {
    git ls-files -z -- "$@" | xargs -0 cp -a --parents -t "$tree"
}

[ -n "${DEB_PREBUILT:-}" ] || packaging/dist.sh "$dir"
rm -rf "$build"
mkdir -p "$tree"
if [ -n "${DEB_PREBUILT:-}" ]; then
    copy .
else
    tar -xzf "$dir/rblocksync_$version.orig.tar.gz" -C "$build"
    tar -xzf "$dir/rblocksync_$version.orig-vendor.tar.gz" -C "$tree"
    ln "$dir/rblocksync_$version.orig.tar.gz" "$dir/rblocksync_$version.orig-vendor.tar.gz" "$build/"
    copy debian
fi

# Debian 12 and 13 have no cargo that is new enough: whichever is there is used.
offline=
if unshare --net true 2> /dev/null; then offline="unshare --net"; fi
cd "$tree"
[ $# -gt 0 ] || set -- -b
# shellcheck disable=SC2086 # two words
exec $offline dpkg-buildpackage -Ppkg.rblocksync.rustup -us -uc "$@"
