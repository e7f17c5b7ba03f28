#!/bin/sh
# The version of the packages is that of the programs: debian/changelog, without its last part, and Cargo.toml must agree.
set -eu
cd "$(dirname "$0")/.."
program=$(sed -n '/^\[workspace\.package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' Cargo.toml)
package=$(sed -n '1 s/^rblocksync (\(.*\)-[^-]*) .*/\1/p' debian/changelog)
if [ -z "$program" ] || [ "$program" != "$package" ]; then
    echo "check-version.sh: Cargo.toml says version '$program', debian/changelog says '$package': they must be the same" >&2
    exit 1
fi
