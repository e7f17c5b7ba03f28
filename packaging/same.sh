#!/bin/sh
# DIR DIR: whether both have the same packages, to the last bit.
set -eu
packages=$(cd "$1" && ls ./*.deb)
[ "$packages" = "$(cd "$2" && ls ./*.deb)" ] || { echo "same.sh: $1 and $2 have not the same packages" >&2; exit 1; }
for package in $packages; do
    cmp "$1/$package" "$2/$package" || {
        echo "same.sh: $package was built twice and differs: diffoscope $1/$package $2/$package" >&2
        exit 1
    }
done
echo "the same, built twice:" "$packages"
