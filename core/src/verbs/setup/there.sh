# Runs on the other host as "sh -c THIS setup ACTION MARKER USER PROGRAM KEYS", started by the verb setup.
#
# look:   tells the program's path, and the directory of policies.
# add:    takes the line for authorized_keys from the first line of stdin, and the policy from the rest.
# remove: takes both away.
# KEYS is the script that changes authorized_keys; it runs as USER. Nothing in this text is data.

set -eu
umask 077
action=$1
marker=$2
user=$3
program=$4
keys=$5
dir=${RBLOCKSYNC_POLICY_DIR:-/etc/rblocksync/policies}
policy=$dir/$marker.toml

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

if [ "$action" = look ]; then
    path=$(command -v -- "$program") || die "$program is not installed"
    printf '%s\n%s\n' "$path" "$policy"
    exit 0
fi

[ "$(id -u)" = 0 ] || [ -n "${RBLOCKSYNC_POLICY_DIR:-}" ] || die "only root can set this up"

if [ "$user" = "$(id -un)" ]; then
    home=$HOME
else
    entry=$(getent passwd "$user") || die "there is no user $user"
    home=$(printf '%s\n' "$entry" | cut -d: -f6)
fi

as_user() {
    if [ "$user" = "$(id -un)" ]; then
        "$@"
    else
        runuser -u "$user" -- "$@"
    fi
}

case $action in
add)
    IFS= read -r line
    mkdir -p -- "$dir"
    # Others may look, so that a forced command of theirs can read what it is bound to; nobody may write.
    chmod 755 -- "$dir"
    new=$(mktemp -- "$dir/.new.XXXXXX")
    trap 'rm -f -- "$new"' 0
    cat >"$new"
    chmod 600 -- "$new"
    mv -f -- "$new" "$policy"
    printf '%s\n' "$line" | as_user sh -c "$keys" keys add "$marker" "$home"
    ;;
remove)
    as_user sh -c "$keys" keys remove "$marker" "$home" </dev/null
    rm -f -- "$policy"
    ;;
*)
    die "it is look, add or remove"
    ;;
esac
