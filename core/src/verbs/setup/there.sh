# Runs on the other host as "sh -c THIS setup ACTION MARKER USER PROGRAM KEYS", started by the verb setup.
#
# look:   tells the program's path, the policy's, and for a user other than ours sudo's.
# add:    takes the line for authorized_keys from the first line of stdin, and the policy from the rest.
# remove: takes both away, and what root has put into sudo's configuration.
# KEYS is the script that changes authorized_keys; it runs as USER. Nothing in this text is data.

set -eu
umask 077
# Where runuser is, and not every sshd looks.
PATH=$PATH:/usr/sbin:/sbin
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

if [ "$user" = "$(id -un)" ]; then
    home=$HOME
    sudo=
else
    entry=$(getent passwd "$user") || die "there is no user $user"
    home=$(printf '%s\n' "$entry" | cut -d: -f6)
    case $(printf '%s\n' "$entry" | cut -d: -f7) in
    */nologin | */false) [ "$action" = remove ] || die "the user $user has no shell: sshd runs commands by it" ;;
    esac
    sudo=$(command -v sudo) || [ "$action" = remove ] || die "sudo is not installed"
fi

if [ "$action" = look ]; then
    path=$(command -v -- "$program") || die "$program is not installed"
    printf '%s\n' "$path" "$policy" ${sudo:+"$sudo"}
    exit 0
fi

[ "$(id -u)" = 0 ] || [ -n "${RBLOCKSYNC_POLICY_DIR:-}" ] || die "only root can set this up"

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
    rm -f -- "$policy" ${sudo:+"/etc/sudoers.d/$marker"}
    ;;
*)
    die "it is look, add or remove"
    ;;
esac
