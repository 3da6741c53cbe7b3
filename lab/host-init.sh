#!/bin/sh
# Process 1 of a laboratory host: makes the file system the host's own, then sleeps for as long as the host lives.
# $1: the host's directory, $2: its name. Its namespaces (net, mount, uts, ipc, pid) are there already.
set -e
D=$1
mount -t sysfs sysfs /sys
# /etc/pki need not be there on this machine, and must not be made there: over /etc lies a layer of the host's own.
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
umount -l /mnt
mkdir -p /etc/pki
mount --bind "$D/etc-pki" /etc/pki
mount --bind "$D/etc-libvirt" /etc/libvirt
mount --bind "$D/etc-hosts" /etc/hosts
mount --bind "$D/var-lib-libvirt" /var/lib/libvirt
mount --bind "$D/cache-libvirt" /var/cache/libvirt
mount --bind "$D/log-libvirt" /var/log/libvirt
# Each host signs the keys of its emulated TPMs itself.
mount -t tmpfs -o mode=700 tmpfs /var/lib/swtpm-localca
mount -t tmpfs -o mode=711 tmpfs /var/log/swtpm
# A /run of its own, and in it what this shell must reach too.
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/lock /mnt/libvirt /mnt/virtward /mnt/virtward-lab
mount --bind "$D/libvirt-run" /mnt/libvirt
mount --bind "$D/virtward-run" /mnt/virtward
mount --bind "$D/private" /mnt/virtward-lab
mount --rbind /mnt /run
umount -R /mnt
hostname "$2"
# Orphans are nobody's: with the signal ignored the kernel reaps them itself (the shell's own trap does not reach the kernel).
: >"$D/booted"
exec env --ignore-signal=CHLD sleep infinity
