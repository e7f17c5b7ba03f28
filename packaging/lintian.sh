#!/bin/sh
# DIR: lintian on the packages in it. Errors and warnings that no override explains end it with 1.
set -eu
cd "$1"
set -- ./*.deb
[ -e "$1" ] || { echo "lintian.sh: no packages in $PWD" >&2; exit 1; }
exec lintian --allow-root --no-cfg --fail-on error,warning "$@"
