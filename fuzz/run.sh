#!/bin/bash
# Builds the fuzz targets with a plain stable toolchain and runs them:
#
#     fuzz/run.sh smoke [SECONDS]        all of them, SECONDS (60) in all; what they find is not kept but crashes are
#     fuzz/run.sh TARGET [SECONDS]       one of them, SECONDS (600); the corpus grows in fuzz/corpus/TARGET
#     fuzz/run.sh repro TARGET FILE      one input again
#
# The flags make rustc's LLVM count which code runs, as cargo-fuzz does; libFuzzer itself is part of the crate
# libfuzzer-sys, which needs a C++ compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
target=$(uname -m)-unknown-linux-gnu
out=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
binaries=$out/$target/release
targets=$(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"|\1|p' fuzz/Cargo.toml)

build() {
    # With --target the flags do not reach build scripts and macros. The allocator is told to give memory back.
    RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
        "$cargo" build --locked --release --quiet --manifest-path fuzz/Cargo.toml \
        --target "$target" --target-dir "$out" "$@"
}

# Runs a target on the directories given: the first takes what is new.
fuzz() {
    local name=$1 seconds=$2 max_len=65536
    shift 2
    # Longer texts bring nothing but slowness.
    case $name in thin_dump | thin_delta | lvs_json | requests | vm_config | storage_cfg) max_len=8192 ;; volid | restricted) max_len=512 ;; esac
    mkdir -p "fuzz/artifacts/$name"
    if ! "$binaries/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 -max_len=$max_len \
        -artifact_prefix="fuzz/artifacts/$name/" -print_final_stats=1 "$@" > "$out/$name.log" 2>&1; then
        tail -n 60 "$out/$name.log" >&2
        echo "fuzz/run.sh: $name failed; the input is kept in fuzz/artifacts/$name, the log in $out/$name.log" >&2
        echo "fuzz/run.sh: again with: fuzz/run.sh repro $name fuzz/artifacts/$name/FILE" >&2
        return 1
    fi
    printf '%-16s %8s runs, %5s MiB at most\n' "$name" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$name.log")" \
        "$(sed -n 's/^stat::peak_rss_mb: *//p' "$out/$name.log")"
}

case ${1:-} in
    smoke)
        build
        each=$((${2:-60} / $(wc -w <<< "$targets")))
        fresh=$(mktemp -d)
        trap 'rm -rf "$fresh"' EXIT
        failed=0
        for name in $targets; do
            mkdir "$fresh/$name"
            fuzz "$name" "$((each > 0 ? each : 1))" "$fresh/$name" "fuzz/seeds/$name" || failed=1
        done
        exit $failed
        ;;
    repro)
        build --bin "$2"
        FUZZ_TELL=1 exec "$binaries/$2" -timeout=10 -rss_limit_mb=512 "$3"
        ;;
    "" | -*)
        sed -n 's/^# \{0,1\}//p' "$0" | sed -n 2,9p >&2
        echo "targets:" $targets >&2
        exit 2
        ;;
    *)
        build --bin "$1"
        mkdir -p "fuzz/corpus/$1"
        fuzz "$1" "${2:-600}" "fuzz/corpus/$1" "fuzz/seeds/$1"
        ;;
esac
