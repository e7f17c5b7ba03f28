# Runs on the other host as "sh -c THIS upload SIZE NAME", started by upload.rs.
#
# Takes a program of SIZE bytes on stdin into a fresh private directory, tells its SHA-256, makes it
# executable when told so, and then stays: it owns the directory and removes it when its stdin ends.
# That end comes when the driver closes it, when the driver dies and when the connection is cut.
# Nothing in this text is data; POSIX sh and the essential tools are all it needs.

umask 077
size=$1
name=$2
dir=
trap 'test -z "$dir" || rm -rf -- "$dir"' 0
trap 'exit 1' 1 2 13 15

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Leftovers of a host that crashed: ours, older than a day, and their keeper not running here.
# With a shared home directory the keeper may be on another host; that one clears its own.
reap() {
    for old in "$1"*; do
        { [ -d "$old" ] && [ ! -L "$old" ] && [ -O "$old" ]; } || continue
        [ -n "$(find "$old" -prune -mtime +0 2>/dev/null)" ] || continue
        pid=
        node=
        { read -r pid node <"$old/keeper"; } 2>/dev/null
        if [ -n "$pid" ]; then
            [ "$node" = "$(uname -n)" ] || continue
            kill -0 "$pid" 2>/dev/null && continue
        fi
        rm -rf -- "$old"
    done
}

# Makes a directory from a template, and keeps it if a program can run in it (no noexec mount).
attempt() {
    dir=$(mktemp -d "$1" 2>/dev/null) || { dir= && return 1; }
    printf '#!/bin/sh\nexit 0\n' >"$dir/probe" && chmod 700 "$dir/probe" &&
        "$dir/probe" && rm -- "$dir/probe" && return 0
    rm -rf -- "$dir"
    dir=
    return 1
}

choose() {
    cache=${XDG_CACHE_HOME:-}
    case $cache in
    /*) ;;
    *) cache=${HOME:-}/.cache ;;
    esac
    own=$cache/rblocksync
    # Whoever owns this directory could swap what is in it.
    if mkdir -p "$own" && [ ! -L "$own" ] && [ -O "$own" ] && chmod 700 "$own"; then
        reap "$own/agent."
        attempt "$own/agent.XXXXXXXXXX" && return 0
    fi
    for base in "${TMPDIR:-/var/tmp}" /var/tmp /tmp; do
        # In a directory for everybody the sticky bit protects ours.
        { [ -d "$base" ] && { [ -k "$base" ] || [ -O "$base" ]; }; } || continue
        reap "$base/rblocksync-agent."
        attempt "$base/rblocksync-agent.XXXXXXXXXX" && return 0
    done
    return 1
}

choose 2>/dev/null || die "no directory can hold and run a program: tried $own, ${TMPDIR:-}, /var/tmp, /tmp"
printf '%s %s\n' "$$" "$(uname -n)" >"$dir/keeper" || die "cannot write to $dir"
printf 'dir %s\n' "$dir"

head -c "$size" >"$dir/$name" || die "cannot write $dir/$name"
sum=$(sha256sum <"$dir/$name") || die "cannot compute a SHA-256 digest"
printf 'sum %s\n' "${sum%% *}"

# Not executable until the driver has compared the digest.
read -r word || exit 1
[ "$word" = run ] || exit 1
chmod 500 "$dir/$name" || die "cannot make $dir/$name executable"
printf 'ready\n'

cat >/dev/null
