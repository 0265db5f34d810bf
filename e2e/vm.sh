#!/usr/bin/env bash
# Runs the cluster, its demo and the tests of pods' limits in a virtual machine with Debian's kernel: cgroup v2
# only, and every privilege, whatever this machine has. By software emulation, so patience: some seven minutes.
# vm.sh DIR [trivet-cluster up flags]; run it by make vm.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"; vm=$(cd "$1" && pwd); shift
seats="$*"
PATH=$PATH:/usr/sbin:/sbin
say() { printf '%s vm: %s\n' "$(date +%T)" "$*"; }

# program:package
needs='qemu-system-x86_64:qemu-system-x86 cpio:cpio depmod:kmod busybox:busybox-static mkfs.ext4:e2fsprogs'
# What the nodes call, beside what busybox is.
tools='bash nsenter mount umount crun runc nft ip iptables conntrack mkfs.btrfs btrfs mkfs.xfs xfs_growfs mkfs.ext4 resize2fs e2fsck chattr du sysctl modprobe
	systemctl systemd-run dbus-daemon /lib/systemd/systemd'

install_needs() {
	local missing=()
	for n in $needs; do command -v "${n%%:*}" >/dev/null || missing+=("${n##*:}"); done
	[ ${#missing[@]} -eq 0 ] && return
	say "installing ${missing[*]}"
	apt-get -q install -y --no-install-recommends "${missing[@]}" >/dev/null || {
		apt-get -q update >/dev/null && apt-get -q install -y --no-install-recommends "${missing[@]}" >/dev/null
	}
}

# fetch_kernel leaves the unpacked package in $vm/kernel.
fetch_kernel() {
	[ -d "$vm/kernel/boot" ] && return
	local package
	package=$(apt-cache depends linux-image-cloud-amd64 | sed -nE 's/.*Depends: (linux-image-[0-9].*)/\1/p')
	[ -n "$package" ] || { echo "vm.sh: apt knows no linux-image-cloud-amd64; run apt-get update on a Debian machine" >&2; exit 3; }
	say "fetching $package"
	(cd "$vm" && apt-get -q -o APT::Sandbox::User=root download "$package" >/dev/null && dpkg -x "$package"_*.deb kernel && rm "$package"_*.deb)
}

# copy_tool puts a program and the libraries it is linked with below a root.
copy_tool() {
	local path; path=$(command -v "$2")
	for f in $path $(ldd "$path" 2>/dev/null | grep -oE '/[^ ]+'); do
		mkdir -p "$1$(dirname "$f")" && cp -L "$f" "$1$f"
	done
}

# make_disk: a file system with the tools, the programs of the project and the reference ones.
make_disk() {
	say 'making its disk'
	local root=$vm/root version
	rm -rf "$root" "$vm/disk.img"
	mkdir -p "$root"/{usr/bin,usr/sbin,usr/lib,usr/lib64,proc,sys,dev,run,tmp,root,opt,mnt,var/lib,var/tmp,var/log,etc,trivet/.trivet/bin}
	for d in bin sbin lib lib64; do ln -s "usr/$d" "$root/$d"; done
	for t in $tools busybox; do copy_tool "$root" "$t"; done
	for a in $(busybox --list); do
		[ -e "$root/bin/$a" ] || [ -e "$root/sbin/$a" ] || ln -s "$(command -v busybox)" "$root/bin/$a"
	done
	mkdir -p "$root/usr/share" && cp -r /usr/share/dbus-1 "$root/usr/share/" && cp -r /etc/dbus-1 "$root/etc/"
	cp /etc/passwd /etc/group /etc/protocols "$root/etc/" 2>/dev/null || true
	version=$(ls "$vm/kernel/lib/modules")
	cp -r "$vm/kernel/lib/modules" "$root/lib/" && depmod -b "$root" "$version"
	cp -r "$project"/{bin,deploy} "$root/trivet/"
	mkdir "$root/trivet/.trivet/images" && cp -r "$project/.trivet/images/base" "$root/trivet/.trivet/images/"
	mkdir -p "$root/trivet/e2e/scenario"
	(cd "$project" && go test -c -vet=off -o "$root/trivet/e2e/scenario/" ./e2e/scenario &&
		go test -c -vet=off -o "$root/trivet/bin/" ./e2e/machine ./node/podcgroup ./cri/cgroupdriver ./cri/container \
			./internal/projectquota ./internal/diskusage)
	(cd "$project/.trivet/bin" && cp -a controlplane etcd kube-* kubectl coredns "$root/trivet/.trivet/bin/")
	cat >"$root/init" <<-EOF
		#!/bin/bash
		export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
		mount -t proc proc /proc; mount -t sysfs sys /sys; mkdir -p /dev/pts /dev/shm
		mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
		mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount --make-rshared /
		ip link set lo up
		for m in overlay bridge veth tun loop btrfs xfs quota_v2 nf_tables br_netfilter nf_conntrack_netlink; do modprobe \$m; done
		export TRIVET_MUST_RUN=1 TRIVET_TESTS=/trivet/bin
		quotas() { # of projects, which not every kernel has
			for t in projectquota diskusage; do bin/\$t.test -test.v -test.run 'Project|Smallest' || return; done
		}
		limits() { # on the node whose PID 1 is systemd
			(cd e2e/scenario && TRIVET_E2E=/trivet/.trivet ./scenario.test -test.v -test.run UnderSystemd)
		}
		cd /trivet; uname -r; cat /sys/fs/cgroup/cgroup.controllers
		quotas && bin/machine.test -test.v -test.run Systemd && bin/trivet-cluster up $seats &&
			bin/trivet-cluster demo && bin/trivet-cluster leaks --wait=1m && limits &&
			bin/trivet-cluster down && bin/trivet-cluster leaks --wait=30s && echo 'the demo in the virtual machine passed'
		sync; echo o >/proc/sysrq-trigger; sleep 10
	EOF
	chmod +x "$root/init"
	mkfs.ext4 -q -F -d "$root" "$vm/disk.img" 8G
	rm -rf "$root"
}

# make_initrd: what it takes to find the disk.
make_initrd() {
	local root=$vm/initrd
	local modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk'
	rm -rf "$root" && mkdir -p "$root"/{bin,modules,new,dev}
	copy_tool "$root" busybox
	[ -e "$root/bin/busybox" ] || ln -s "$(command -v busybox)" "$root/bin/busybox"
	for m in $modules; do find "$vm/kernel/lib/modules" -name "$m.ko" -exec cp {} "$root/modules/" \;; done
	cat >"$root/init" <<-EOF
		#!/bin/busybox sh
		for m in $modules; do busybox insmod /modules/\$m.ko; done
		busybox mount -t devtmpfs dev /dev
		busybox mount -t ext4 /dev/vda /new && busybox mount --move /dev /new/dev
		exec busybox switch_root /new /init
	EOF
	chmod +x "$root/init"
	(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$vm/initrd.gz"
	rm -rf "$root"
}

boot() {
	say 'booting it'
	qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 8G -nographic -no-reboot -nic none \
		-kernel "$vm"/kernel/boot/vmlinuz-* -initrd "$vm/initrd.gz" -append 'console=ttyS0 quiet panic=-1' \
		-drive "file=$vm/disk.img,format=raw,if=virtio,cache=unsafe" </dev/null | tee "$vm/console.log"
	grep -q '^the demo in the virtual machine passed' "$vm/console.log" || { echo "vm.sh: it did not; $vm/console.log has all of it" >&2; exit 1; }
}

[ "$(id -u)" = 0 ] || { echo 'vm.sh: not root; run: sudo make vm' >&2; exit 3; }
install_needs
fetch_kernel
make_disk
make_initrd
boot
