#!/bin/sh
# RUSTC ARGUMENTS: the compiler, as cargo is told to call it for every crate of the packages (RUSTC_WRAPPER), with REMAP for
# --remap-path-prefix. Flags of a target do not do: cargo keeps them from macros, and the digests of macros go into all crates
# that use them.
exec "$@" --remap-path-prefix="$REMAP"
