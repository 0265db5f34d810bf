#!/usr/bin/env bash
# Runs tests in a virtual machine with a kernel of Debian's: cgroup v2 only, systemd as PID 1, and every
# privilege, whatever this machine has. It is emulated where there is no KVM, so patience.
#
#   vm.sh disk DIR PACKAGES...      make the virtual machine's disk of what is built here, with the tests
#                                   of these packages
#   vm.sh boot DIR DEBIAN SHARD     boot it with the kernel of Debian 12 or 13 and run a part of the tests
#                                   (guest.sh); what it hands back is in DIR/results/DEBIAN/SHARD
#
# make vm does both.
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
verb=$1
mkdir -p "$2"
vm=$(cd "$2" && pwd)
shift 2
PATH=$PATH:/usr/sbin:/sbin
say() { printf '%s vm: %s\n' "$(date +%T)" "$*"; }
fail() { echo "vm.sh: $*" >&2; exit 3; }

# program:package
needs='qemu-system-x86_64:qemu-system-x86 cpio:cpio depmod:kmod busybox:busybox-static
	mkfs.ext4:e2fsprogs xz:xz-utils apparmor_parser:apparmor'
# What the nodes call, beside what busybox is.
tools='bash nsenter mount umount crun runc nft ip bridge tc iptables iptables-save iptables-restore ip6tables
	ip6tables-save ip6tables-restore conntrack mkfs.btrfs btrfs mkfs.xfs xfs_growfs mkfs.ext4 resize2fs e2fsck
	chattr du flock losetup mkswap swapon swapoff sysctl modprobe systemctl systemd-run ipcs ipcmk
	apparmor_parser dbus-daemon /lib/systemd/systemd'
# The virtual machines' modules that must be there before its disk is.
disk_modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk'
declare -A suites=([12]=bookworm [13]=trixie)

install_needs() {
	local missing=()
	for n in $needs; do command -v "${n%%:*}" >/dev/null || missing+=("${n##*:}"); done
	[ ${#missing[@]} -eq 0 ] && return
	say "installing ${missing[*]}"
	local install=(apt-get -q install -y --no-install-recommends "${missing[@]}")
	"${install[@]}" >/dev/null || { apt-get -q update >/dev/null && "${install[@]}" >/dev/null; }
}

# apt_of runs a program of apt with the packages of one version of Debian, from the archive that this machine
# has its own from. Nothing of this machine's apt is changed.
apt_of() {
	local suite=$1 program=$2 dir=$vm/apt/$1 archive
	shift 2
	if [ ! -e "$dir/sources.list" ]; then
		archive=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
			sed -nE '/security/d; s/^([^ ]*\/debian\/?) (bookworm|trixie)$/\1/p' | head -n 1)
		[ -n "$archive" ] || fail "this machine's apt has no archive of Debian 12 or 13"
		mkdir -p "$dir"/{lists,cache/archives}/partial
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main" \
			>"$dir/sources.list.new"
		apt_with "$dir" apt-get -q update -o "Dir::Etc::SourceList=$dir/sources.list.new" >/dev/null
		mv "$dir/sources.list.new" "$dir/sources.list"
	fi
	apt_with "$dir" "$program" "$@"
}

apt_with() {
	local dir=$1 program=$2
	shift 2
	"$program" -o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/nonexistent \
		-o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User=root "$@"
}

# fetch_kernel leaves the unpacked package of a Debian's kernel in $vm/kernel/DEBIAN.
fetch_kernel() {
	local to=$vm/kernel/$1 suite=${suites[$1]} package
	[ -d "$to/boot" ] && return
	say "fetching the kernel of Debian $1"
	package=$(apt_of "$suite" apt-cache depends linux-image-cloud-amd64 |
		sed -nE 's/.*Depends: (linux-image-[0-9].*)/\1/p' | head -n 1)
	[ -n "$package" ] || fail "Debian $1 has no linux-image-cloud-amd64"
	mkdir -p "$to.new"
	(cd "$to.new" && apt_of "$suite" apt-get -q download "$package" >/dev/null &&
		dpkg -x "$package"_*.deb . && rm "$package"_*.deb)
	mv "$to.new" "$to"
}

# modules_of names the directory of a kernel's modules: /lib/modules/VERSION, or below /usr.
modules_of() { find "$vm/kernel/$1" -mindepth 3 -maxdepth 4 -type d -path '*lib/modules/*' | head -n 1; }

# copy_tool puts a program and the libraries it is linked with below a root.
copy_tool() {
	local path
	path=$(command -v "$2")
	for f in $path $(ldd "$path" 2>/dev/null | grep -oE '/[^ ]+'); do
		mkdir -p "$1$(dirname "$f")" && cp -L "$f" "$1$f"
	done
}

# make_disk: a file system with the tools, the programs of the project, the reference ones, the tests of
# packages, and the modules of both kernels.
make_disk() {
	local root=$vm/root
	say 'making the disk'
	rm -rf "$root" "$vm/disk.img"
	mkdir -p "$root"/{usr/bin,usr/sbin,usr/lib,usr/lib64,proc,sys,dev,run,tmp,root,opt,mnt} \
		"$root"/{etc/systemd/system,var/lib,var/tmp,var/log,trivet/.trivet/bin,trivet/.trivet/images}
	for d in bin sbin lib lib64; do ln -s "usr/$d" "$root/$d"; done
	for t in $tools busybox; do copy_tool "$root" "$t"; done
	# busybox as sh would take its own ip, tc and sysctl before those.
	ln -s bash "$root/bin/sh"
	for a in $(busybox --list); do
		[ -e "$root/bin/$a" ] || [ -e "$root/sbin/$a" ] || ln -s "$(command -v busybox)" "$root/bin/$a"
	done
	# what iptables loads
	cp -r --parents /usr/lib/*/xtables "$root"
	mkdir -p "$root"/{usr/share,var/cache}
	cp -r /usr/share/dbus-1 /usr/share/apparmor-features "$root/usr/share/"
	cp -r /etc/dbus-1 /etc/apparmor /etc/apparmor.d "$root/etc/"
	cp /etc/passwd /etc/group /etc/protocols /etc/os-release "$root/etc/" 2>/dev/null || true
	for debian in "${!suites[@]}"; do add_modules "$root" "$debian"; done
	add_units "$root"
	add_project "$root" "$@"
	mkfs.ext4 -q -F -d "$root" "$vm/disk.img" 12G
	rm -rf "$root"
}

add_modules() {
	local modules
	fetch_kernel "$2"
	modules=$(modules_of "$2")
	mkdir -p "$1/usr/lib/modules"
	cp -r "$modules" "$1/usr/lib/modules/"
	depmod -b "$1" "$(basename "$modules")"
}

# add_units writes what systemd has to start: a bus and the service that runs the tests. Those of the host
# would start what is not there.
add_units() {
	local units=$1/etc/systemd/system
	cat >"$units/vm.target" <<-'EOT'
		[Unit]
		DefaultDependencies=no
		Wants=dbus.socket dbus.service vm.service
		AllowIsolate=yes
	EOT
	cat >"$units/dbus.socket" <<-'EOT'
		[Unit]
		DefaultDependencies=no
		[Socket]
		ListenStream=/run/dbus/system_bus_socket
	EOT
	cat >"$units/dbus.service" <<-'EOT'
		[Unit]
		DefaultDependencies=no
		Requires=dbus.socket
		After=dbus.socket
		[Service]
		Type=notify
		NotifyAccess=main
		ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile \
			--systemd-activation
	EOT
	# Scopes of containers refer to it.
	printf '[Unit]\nDefaultDependencies=no\nRefuseManualStart=yes\n' >"$units/shutdown.target"
	cat >"$units/vm.service" <<-'EOT'
		[Unit]
		DefaultDependencies=no
		After=dbus.service
		[Service]
		Delegate=yes
		KillMode=process
		TasksMax=infinity
		LimitNOFILE=1048576
		StandardOutput=tty
		TTYPath=/dev/ttyS0
		ExecStart=/trivet/guest.sh
	EOT
	: >"$1/etc/machine-id"
}

# add_project copies programs, manifests, images, and the tests of packages with their test data.
add_project() {
	local root=$1/trivet
	shift
	cp -r "$project"/{bin,deploy} "$root/"
	cp "$project/e2e/vm/guest.sh" "$root/"
	git -C "$project" describe --always --dirty --abbrev=12 '--exclude=*' >"$root/commit" 2>/dev/null ||
		echo unknown >"$root/commit"
	mkdir -p "$root/docs/data" "$root/e2e/scenario" "$root/tests"
	cp -r "$project/docs/data/conformance" "$root/docs/data/"
	for set in base suite critest; do
		[ ! -d "$project/.trivet/images/$set" ] ||
			cp -r "$project/.trivet/images/$set" "$root/.trivet/images/"
	done
	(cd "$project" && go test -c -vet=off -o "$root/tests/" "${@/#/./}")
	cp "$project"/bin/trivet-{cri,monitor} "$root/tests/"
	for package in "$@"; do
		mkdir -p "$root/$package"
		[ ! -d "$project/$package/testdata" ] || cp -r "$project/$package/testdata" "$root/$package/"
	done
	for p in controlplane etcd kubectl coredns e2e.test critest.test critest-ginkgo ginkgo; do
		[ ! -e "$project/.trivet/bin/$p" ] || cp -a "$project/.trivet/bin/$p" "$root/.trivet/bin/"
	done
	for p in "$project"/.trivet/bin/kube-*; do [ ! -e "$p" ] || cp -a "$p" "$root/.trivet/bin/"; done
}

# make_initrd: what it takes to find the disk.
make_initrd() {
	local root=$vm/initrd modules found
	modules=$(modules_of "$1")
	rm -rf "$root" && mkdir -p "$root"/{bin,modules,new,dev}
	copy_tool "$root" busybox
	[ -e "$root/bin/busybox" ] || ln -s "$(command -v busybox)" "$root/bin/busybox"
	for m in $disk_modules; do
		found=$(find "$modules" -name "$m.ko*")
		case $found in
		*.xz) xz -dc "$found" >"$root/modules/$m.ko" ;;
		?*) cp "$found" "$root/modules/" ;;
		esac
	done
	cat >"$root/init" <<-EOT
		#!/bin/busybox sh
		for m in $disk_modules; do [ ! -e /modules/\$m.ko ] || busybox insmod /modules/\$m.ko; done
		busybox mount -t devtmpfs dev /dev
		busybox mount -t ext4 /dev/vda /new && busybox mount --move /dev /new/dev
		exec busybox switch_root /new /lib/systemd/systemd
	EOT
	chmod +x "$root/init"
	(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$vm/initrd-$1.gz"
	rm -rf "$root"
}

# run_machine runs a kernel with a command line, and what it says goes to standard output.
run_machine() {
	timeout "${VM_TIMEOUT:-3h}" qemu-system-x86_64 -accel "$1" -cpu max -smp 2 -m 8G -nic none \
		-nographic -no-reboot \
		-kernel "$vm/kernel/$2"/boot/vmlinuz-* -initrd "$vm/initrd-$2.gz" -append "$3" \
		-drive "file=$vm/disk.img,format=raw,if=virtio,snapshot=on,cache=unsafe" \
		-drive "file=$4/disk,format=raw,if=virtio,cache=unsafe"
}

# boot runs a shard. The disk stays as it was made; what is handed back comes by a second one.
boot() {
	local debian=$1 shard=$2 accel=tcg,thread=multi results=$vm/results/$1/$2 line
	# A KVM without the processor's own instructions does not get an unchanged kernel out of its first page.
	[ ! -w /dev/kvm ] || ! grep -qwE 'vmx|svm' /proc/cpuinfo || accel=kvm
	fetch_kernel "$debian"
	make_initrd "$debian"
	rm -rf "$results" && mkdir -p "$results"
	truncate -s 0 "$results/disk" && truncate -s 256M "$results/disk"
	line="console=ttyS0 quiet panic=-1 oops=panic mitigations=off psi=1"
	line+=" systemd.unit=vm.target systemd.log_target=null systemd.show_status=0"
	line+=" trivet.shard=$shard trivet.machine=${accel%%,*}"
	# An emulated processor executes now and then what another one has just replaced (text_poke), and then the
	# kernel is at its end.
	for _ in 1 2 3; do
		say "booting Debian $debian for $shard (${accel%%,*})"
		run_machine "$accel" "$debian" "$line" "$results" </dev/null | tee "$results/console" || true
		grep -q 'Oops: int3' "$results/console" || break
		say 'the emulator has failed; once more'
	done
	tar -C "$results" -xf "$results/disk" 2>/dev/null ||
		fail "the virtual machine has handed nothing back; $results/console is what it said"
	rm "$results/disk"
}

[ "$(id -u)" = 0 ] || fail 'not root; run: sudo make vm'
install_needs
case $verb in
disk) make_disk "$@" ;;
boot) boot "$@" ;;
*) echo "vm.sh: what is $verb?" >&2; exit 2 ;;
esac
