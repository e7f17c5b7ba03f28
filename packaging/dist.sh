#!/bin/sh
# DIR: writes the source of the Debian packages there: rblocksync_VERSION.orig.tar.gz, what git knows of this tree without
# debian/, and rblocksync_VERSION.orig-vendor.tar.gz, the source of all crates. The same tree gives the same bytes.
set -eu
dir=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
packaging/check-version.sh
version=$(sed -n '1 s/^rblocksync (\(.*\)-[^-]*) .*/\1/p' debian/changelog)
epoch=${SOURCE_DATE_EPOCH:-$(dpkg-parsechangelog -S Timestamp)}
cargo=${CARGO:-cargo}

# NAME DIR [PREFIX]: packs what comes by its names from standard input, and puts PREFIX before these.
pack() {
    tar --create --file="$dir/.new" --directory="$2" --null --no-recursion --files-from=- --sort=name \
        --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w --mtime="@$epoch" \
        --transform="flags=r;s,^,${3:-},"
    gzip -n -6 "$dir/.new"
    mv "$dir/.new.gz" "$dir/$1"
}

git ls-files -z -- . ':!debian' | sort -z | pack "rblocksync_$version.orig.tar.gz" . "rblocksync-$version/"

vendored="$dir/rblocksync_$version.orig-vendor.tar.gz"
# It takes a while, and changes with Cargo.lock only. What dpkg-source calls vendor/ is all that is in it, without a directory of
# the version's.
if [ ! -e "$vendored" ] || ! cmp -s Cargo.lock "$dir/.Cargo.lock"; then
    rm -rf "$dir/vendor"
    "$cargo" vendor --locked --versioned-dirs "$dir/vendor" > /dev/null
    (cd "$dir" && find vendor -print0 | sort -z) | pack "rblocksync_$version.orig-vendor.tar.gz" "$dir"
    rm -rf "$dir/vendor"
    cp Cargo.lock "$dir/.Cargo.lock"
fi
