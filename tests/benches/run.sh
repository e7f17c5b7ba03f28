#!/bin/sh
# Counts the instructions of the hot loops under valgrind. Installs gungraun-runner if there is none of the version that
# Cargo.lock has of gungraun: both must be the same. Arguments go to the benchmark, as in `run.sh --save-baseline=before`.
set -eu
cd "$(dirname "$0")/../.."

version=$(sed -n '/^name = "gungraun"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
cargo=${CARGO:-cargo}
runner=${GUNGRAUN_RUNNER:-$(command -v gungraun-runner || echo "${CARGO_HOME:-$HOME/.cargo}/bin/gungraun-runner")}

if ! "$runner" --version 2> /dev/null | grep -qF "$version"; then
    echo "benches/run.sh: installing gungraun-runner $version (once; a few minutes)" >&2
    "$cargo" install --locked gungraun-runner --version "$version"
    runner=${CARGO_HOME:-$HOME/.cargo}/bin/gungraun-runner
fi
GUNGRAUN_RUNNER=$runner exec "$cargo" bench --locked -q -p tests --bench hot_loops -- "$@"
