#!/bin/sh
# PROGRAM TRIPLE [FLAGS]: prints whose crates a program has in it, under which licences, and the texts that these ask to be
# passed on, each once. The crates are those in vendor/; FLAGS are for cargo.
set -eu
program=$1 triple=$2
shift 2
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

${CARGO:-cargo} tree --locked "$@" -p "$program" -e normal,no-proc-macro --prefix none --format '{p} {l}' --target "$triple" |
    sed '/ (\//d; s/ (\*)$//' | sort -u > "$work/crates"
[ -s "$work/crates" ] || {
    echo "third-party.sh: cargo knows no crate that $program has in it" >&2
    exit 1
}

echo "$program has parts of these crates in it:"
echo
sed 's/ v/ /; s/^/  /' "$work/crates"
mkdir "$work/texts" "$work/names"
while read -r crate version _; do
    dir="vendor/$crate-${version#v}"
    for file in "$dir"/LICEN[CS]E* "$dir"/COPYING* "$dir"/COPYRIGHT* "$dir"/NOTICE* "$dir"/UNLICENSE*; do
        [ -f "$file" ] || continue
        digest=$(sha256sum < "$file")
        digest=${digest%% *}
        cp "$file" "$work/texts/$digest"
        echo "$crate" >> "$work/names/$digest"
    done
done < "$work/crates"
# Ordered by who is named first, so that the same crates give the same text.
for names in "$work/names"/*; do
    printf '%s %s\n' "$(sort -u "$names" | tr '\n' ' ')" "${names##*/}"
done | sort | while read -r line; do
    printf '\n%s\n%s\n\n' "------------------------------------------------------------------------" "${line% *}:"
    tr -d '\r' < "$work/texts/${line##* }"
done
