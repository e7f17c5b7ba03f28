#!/bin/sh
# DIR: lintian on the packages in it. Errors and warnings that no override explains end it with 1. Packages of debugging symbols
# are debhelper's own work, and cannot have overrides.
set -eu
cd "$1"
set -f
packages=$(find . -maxdepth 1 -name '*.deb' ! -name '*-dbgsym_*' | sort)
[ -n "$packages" ] || {
    echo "lintian.sh: no packages in $PWD" >&2
    exit 1
}
# shellcheck disable=SC2086 # names of packages have no blanks
exec lintian --allow-root --no-cfg --fail-on error,warning $packages
