# Runs on the other host as "sh -c THIS keys ACTION MARKER HOME", as the user whose keys these are.
#
# Takes the lines with the marker out of authorized_keys, and with "add" puts the one from stdin in. The file is replaced as
# a whole.

set -eu
umask 077
action=$1
marker=$2
dir=$3/.ssh
file=$dir/authorized_keys

if [ "$action" = remove ] && [ ! -e "$file" ]; then
    exit 0
fi
[ -d "$dir" ] || mkdir -- "$dir"
# Proxmox VE keeps root's file elsewhere, and a link to it here.
if [ -L "$file" ]; then
    file=$(readlink -f -- "$file")
fi
new=$(mktemp -- "$file.XXXXXX")
trap 'rm -f -- "$new"' 0
if [ -e "$file" ]; then
    grep -vF -- " $marker" "$file" >"$new" || [ $? = 1 ]
fi
if [ "$action" = add ]; then
    cat >>"$new"
fi
mv -f -- "$new" "$file"
trap - 0
