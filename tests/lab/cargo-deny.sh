#!/bin/sh
# Checks the dependency tree against deny.toml: licences, sources, duplicate and wildcard versions. Installs cargo-deny
# if there is none. Offline, because not every CI can fetch the advisory database: what it knows of vulnerable crates is
# checked with `cargo deny check advisories` where there is a network.
set -eu
cd "$(dirname "$0")/../.."

version=0.20.2
cargo=${CARGO:-cargo}

if ! "$cargo" deny --version > /dev/null 2>&1; then
    echo "cargo-deny.sh: installing cargo-deny $version (once; a minute or two)" >&2
    # Unoptimised: it runs for seconds, and optimising it takes minutes.
    CARGO_PROFILE_DEV_DEBUG=0 "$cargo" install --debug --locked cargo-deny --version "$version"
fi
# Nothing is fetched that a build has not fetched already.
for manifest in Cargo.toml fuzz/Cargo.toml; do
    "$cargo" fetch --locked --quiet --manifest-path "$manifest" --target x86_64-unknown-linux-gnu
    "$cargo" deny --offline --manifest-path "$manifest" --config "$PWD/deny.toml" check \
        --allow license-exception-not-encountered bans licenses sources
done
