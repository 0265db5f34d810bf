# CRI-O with the network that it ships as an example. It publishes ports of the host itself, without portmap.
# podman loads its images: both have them at the same place.

. "$SCRIPTS/podman.sh"
. "$SCRIPTS/cri.sh"

SOCKET=/var/run/crio/crio.sock

version() { "$PROGRAMS/crio/crio" --version | head -n 1; }

prepare() {
	configure
	mkdir -p /etc/cni/net.d
	cp "$PROGRAMS"/crio/*.conflist /etc/cni/net.d/
	cat >/etc/crio.conf <<-END
		[crio]
		storage_driver = "overlay"
		[crio.runtime]
		default_runtime = "runc"
		cgroup_manager = "cgroupfs"
		pinns_path = "$PROGRAMS/crio/pinns"
		[crio.runtime.runtimes.runc]
		monitor_env = ["PATH=$PATH", "LD_LIBRARY_PATH=$PODMAN/lib"]
		monitor_cgroup = "pod"
		[crio.image]
		pause_image = "$PAUSE"
		[crio.network]
		plugin_dirs = ["$PLUGINS"]
	END
}

load() {
	for image in busybox pause; do
		podman load --quiet --input "$IMAGES/$image.tar"
	done
}
