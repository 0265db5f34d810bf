# CRI-O with the network that it ships as an example. It publishes ports of the host itself, without portmap.

. "$SCRIPTS/cri.sh"

SOCKET=/var/run/crio/crio.sock

version() { "$PROGRAMS/crio/crio" --version | head -n 1; }

prepare() {
	mkdir -p /etc/containers /etc/cni/net.d
	cp "$PODMAN"/etc/containers/policy.json /etc/containers/
	cp "$PROGRAMS"/crio/*.conflist /etc/cni/net.d/
	cat >/etc/crio.conf <<-END
		[crio]
		storage_driver = "overlay"
		[crio.runtime]
		default_runtime = "runc"
		cgroup_manager = "cgroupfs"
		conmon_cgroup = "pod"
		pinns_path = "$PROGRAMS/crio/pinns"
		[crio.runtime.runtimes.runc]
		runtime_path = "$(command -v runc)"
		monitor_path = "$PODMAN/bin/conmon"
		monitor_env = ["PATH=$PATH", "LD_LIBRARY_PATH=$PODMAN/lib"]
		monitor_cgroup = "pod"
		[crio.network]
		plugin_dirs = ["$PLUGINS"]
	END
}

# Both have their images at the same place.
load() { LD_LIBRARY_PATH=$PODMAN/lib "$PODMAN/bin/podman" load --quiet --input "$IMAGES/busybox.tar"; }
