#!/usr/bin/env bash
# Installs with apt what the cluster needs of the host and says why; what is there already is left alone.
# install.sh [--check | --dist | --bench]    --dist: what make dist-check calls, too; --bench: make bench-csi
set -euo pipefail

# program:package:why
needs='
crun:crun:OCI runtime that starts containers (default)
runc:runc:OCI runtime of the reference nodes
nft:nftables:kube-proxy and CNI plugins program nftables
nsenter:util-linux:enters the namespaces of a node
ip:iproute2:looking at the network of a node
iptables:iptables:upstream CNI plugins fall back to it
conntrack:conntrack:kube-proxy and tests clear connections
modprobe:kmod:kubelet and kube-proxy ask for modules (harmless where there are none)
mkfs.btrfs:btrfs-progs:trivet-csi makes its pool with it
mkfs.xfs:xfsprogs:trivet-csi, volumes in loop images
mkfs.ext4:e2fsprogs:trivet-csi, volumes in loop images
busybox:busybox-static:containers of the root tests, a shell for looking around on a node
systemctl:systemd:PID 1 of nodes with the cgroup driver systemd (nothing of it is started on the host)
dbus-daemon:dbus:the bus of such nodes
curl:curl:goes into the agnhost image, whose tests call it
'

# Where the kernel has AppArmor, containers are confined by it.
if grep -qs Y /sys/module/apparmor/parameters/enabled; then
	needs+='apparmor_parser:apparmor:loads the profiles of containers
'
fi

case "${1:-}" in
--dist) needs+='lintian:lintian:says whether packages are as Debian wants them
systemd-analyze:systemd:reads the units of packages
unshare:util-linux:a copy of this machine, on which packages are installed
' ;;
--bench) needs+='fio:fio:input and output of volumes beside the bare disk
' ;;
esac

missing=()
while IFS=: read -r program package why; do
	[ -z "$program" ] && continue
	if ! PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null; then
		missing+=("$package")
		printf '%-16s %s\n' "$package" "$why"
	fi
done <<<"$needs"

if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
if [ "${1:-}" = --check ]; then echo "install.sh: ${#missing[@]} packages are missing; run make install" >&2; exit 1; fi
if [ "$(id -u)" != 0 ]; then echo "install.sh: not root; run: sudo apt-get install --no-install-recommends ${missing[*]}" >&2; exit 3; fi
if ! command -v apt-get >/dev/null; then echo "install.sh: there is no apt-get here; install these by your own package manager: ${missing[*]}" >&2; exit 3; fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -q install -y --no-install-recommends "${missing[@]}" >/dev/null || {
	apt-get -q update >/dev/null && apt-get -q install -y --no-install-recommends "${missing[@]}" >/dev/null
}
