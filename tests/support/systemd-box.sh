#!/bin/sh
# Runs in fresh namespaces, as their process 1: makes them a machine with its own systemd.
#
#   systemd-box.sh SCRATCH [SOURCE TARGET]...
#
# SCRATCH is an empty folder but for a datagram socket, `notify`, on which systemd says READY=1.
# Each SOURCE, a folder of this machine, is shown read-only at TARGET. Everything else is what this
# machine's / holds, under an overlay in memory: nothing that happens in the box is left behind.
# Exit code 77 says that the first step of some kind is not allowed here; others are faults.
set -eu
scratch=$1
shift

may() {
    "$@" || exit 77
}

# --- the disk: the machine's own, copied on write ---------------------------------------------
layers=$scratch/layers
root=$scratch/root
mkdir "$layers" "$root"
may mount -t tmpfs -o size=512m layers "$layers"
mkdir "$layers/changed" "$layers/work"
may mount -t overlay -o "lowerdir=/,upperdir=$layers/changed,workdir=$layers/work" overlay "$root"
cd "$root"

# --- the kernel's file systems ------------------------------------------------------------------
may mount -t proc -o nosuid,nodev,noexec proc proc
# Most of /proc/sys and its like is one for all namespaces, and systemd writes to it at boot: it has
# to stay read-only, or the settings of the machine that runs the tests are changed.
for knobs in bus fs irq sys sysrq-trigger; do
    if [ -e "proc/$knobs" ]; then
        mount --bind "proc/$knobs" "proc/$knobs"
        mount -o remount,bind,ro "proc/$knobs"
    fi
done
may mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
may mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid dev dev
for device in full null random tty urandom zero; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${stream%:*}" "dev/${stream#*:}"
done
mount -t tmpfs -o mode=755,nosuid,nodev run run
mount -t tmpfs -o mode=1777,nosuid,nodev tmp tmp

# --- systemd, without what this machine would start ------------------------------------------------
for folder in etc/systemd lib/systemd/system-generators \
    lib/systemd/system/local-fs.target.wants \
    lib/systemd/system/sockets.target.wants \
    lib/systemd/system/sysinit.target.wants; do
    [ ! -d "$folder" ] || mount -t tmpfs -o mode=755 empty "$folder"
done
mkdir etc/systemd/system
cat >etc/systemd/system/box.target <<'UNIT'
[Unit]
Description=Nothing but what a test starts
Requires=basic.target systemd-journald.service
After=basic.target systemd-journald.service
AllowIsolate=yes
UNIT
# Without an id this would be the machine's first boot, at which systemd enables all it knows.
rm -f etc/machine-id
echo 4d6f636b206d616368696e6520696421 >etc/machine-id

# --- what the test brings ---------------------------------------------------------------------------
mkdir -p run/host
: >run/host/notify
mount --bind "$scratch/notify" run/host/notify
while [ $# -gt 0 ]; do
    mkdir -p ".$2"
    mount --bind "$1" ".$2"
    mount -o remount,bind,ro ".$2"
    shift 2
done

# --- leave the machine --------------------------------------------------------------------------------
mkdir run/machine
pivot_root . run/machine
cd /
umount -l /run/machine
rmdir /run/machine
exec env -i container=test LANG=C.UTF-8 NOTIFY_SOCKET=/run/host/notify \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time \
    /lib/systemd/systemd --unit=box.target --log-target=journal --show-status=no
