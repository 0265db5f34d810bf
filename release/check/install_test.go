package check

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// machine is a shell in a copy of this machine: its files below an overlay that is thrown away, without a
// service manager, in namespaces of its own. $1 is the directory of the overlay, $2 that of the packages, and
// $3 a script.
const machine = `
set -e
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" none "$1/root"
mount -t tmpfs none "$1/root/run"
mount -t tmpfs none "$1/root/tmp"
mount -t proc proc "$1/root/proc"
mount --bind /dev "$1/root/dev"
cp "$2"/*.deb "$1/root/tmp"
export DEBIAN_FRONTEND=noninteractive DPKG_COLORS=never
exec chroot "$1/root" sh -e -u -x -c "$3"
`

// script installs the packages, upgrades them with a file that the administrator has changed, removes
// and purges.
const script = `
cd /tmp
services=/etc/systemd/system/multi-user.target.wants
arch=$(dpkg --print-architecture)
packages='trivet-cri trivet-csi trivet-netd trivet-node'
mkdir -p /var/lib/trivet/csi/volumes /var/lib/kubelet/pods/uid
touch /var/lib/trivet/csi/volumes/one /var/lib/kubelet/pods/uid/one

# Dependencies are the machine's matter.
dpkg --force-depends --install *_$arch.deb
for p in $packages; do
	test -e /lib/systemd/system/$p.service
	dpkg --verify $p
done
for p in cri csi netd; do test -h $services/trivet-$p.service; done
test ! -e $services/trivet-node.service
trivet-cri --version
trivet-csi --version
trivet-node --version
CNI_COMMAND=VERSION /usr/lib/cni/trivet-cni <<END
{"cniVersion": "1.1.0"}
END

# An upgrade keeps what the administrator has written and disabled.
echo '# mine' >>/etc/trivet/cri.toml
systemctl disable trivet-csi.service
dpkg --force-depends --force-confdef --install *_$arch.deb
grep -q '^# mine' /etc/trivet/cri.toml
test ! -e $services/trivet-csi.service

# A removal keeps it, too. It may be repeated.
dpkg --force-depends --remove $packages
test ! -e /usr/bin/trivet-cri
test -e /etc/trivet/cri.toml

mkdir -p /var/lib/trivet/cri/images /etc/cni/net.d
touch /etc/cni/net.d/10-trivet.conflist /etc/trivet/netd.kubeconfig
dpkg --purge $packages
for p in $packages; do
	for script in /var/lib/dpkg/info/$p.*; do test ! -e "$script"; done
	test ! -e $services/$p.service
	test ! -e /etc/default/$p
done
test ! -e /etc/trivet/cri.toml
test ! -e /etc/cni/net.d/10-trivet.conflist
test ! -e /var/lib/trivet/cri

# Data is nobody's to purge.
test -e /var/lib/trivet/csi/volumes/one
test -e /var/lib/kubelet/pods/uid/one

# Pods that are left keep their file systems.
dpkg --force-depends --install trivet-cri_*_$arch.deb
mkdir -p /run/trivet/cri/sandboxes/records /var/lib/trivet/cri/rootfs
touch /run/trivet/cri/sandboxes/records/pod.json
dpkg --purge trivet-cri
test -e /var/lib/trivet/cri/rootfs
`

func TestPackagesAreInstalledUpgradedRemovedAndPurged(t *testing.T) {
	packages := filepath.Join(dist(t), "packages")
	testenv.Root(t)
	testenv.Program(t, "dpkg", "dpkg")

	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--propagation=private",
		"sh", "-c", machine, "sh", t.TempDir(), packages, script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
