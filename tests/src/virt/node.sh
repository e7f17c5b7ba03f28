# The first process of a node of the libvirt bed; arguments: DIRECTORY NAME NUMBER BASE. It runs in namespaces of its own.
#
# The node's root is an overlay over BASE, mostly this machine's own, so it has all programs of this machine, and whatever is
# written is the node's own and gone with it. Images of disks are not in the overlay: they lie in DIRECTORY/images, on a file
# system that can do direct I/O and that the test sees too.
#
# It stays to reap what others leave behind. libvirtd must not be the first process: it would not do that, and wait
# 40 s for each QEMU that it only asks what it can do.
set -eu
dir=$1 name=$2 number=$3 base=$4
top=$dir/top root=$dir/top/root
mkdir -p "$top" "$dir/images" "$dir/run" "$dir/log"
mount --make-rprivate /
# Not on the file system of the lower layer, which may not hold the upper one.
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$root"
mount -t overlay -o "lowerdir=$base,upperdir=$top/upper,workdir=$top/work" overlay "$root"

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
    # shellcheck disable=SC2086 # three words
    set -- $device
    mknod -m 666 "$root/dev/$1" c "$2" "$3"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/net"
mknod -m 666 "$root/dev/net/tun" c 10 200
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"

# What this machine itself has of all this is not the node's.
cd "$root"
rm -rf etc/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt var/lib/rblocksync etc/virt-blocksync root/.ssh
mkdir -p etc/libvirt/hooks/qemu.d etc/libvirt/qemu/networks var/lib/libvirt/images var/lib/libvirt/qemu \
    var/cache/libvirt var/log/libvirt/qemu run/libvirt run/lock run/sshd var/lib/rblocksync
mount --bind "$dir/images" var/lib/libvirt/images
mount --bind "$dir/run" run/libvirt
mount --bind "$dir/log" var/log/libvirt/qemu
cp -a "$dir/own/." .
echo "$name" > etc/hostname
hostname "$name"
# sshd lets nobody into an account whose password is locked.
sed -i 's/^root:[^:]*:/root:*:/' etc/shadow

mkdir .outside
pivot_root . .outside
cd /
umount -l .outside
rmdir .outside
ip link set lo up
echo ready
exec > /dev/null
while :; do
    sleep infinity &
    wait $!
done
