# podman with its network backend CNI. Its default network is that of Debian's package, the other one it
# makes itself.

version() { podman --version; }

prepare() {
	configure
	mkdir -p /etc/cni/net.d
	cp "$PODMAN"/etc/cni/net.d/* /etc/cni/net.d/
}

configure() {
	mkdir -p /etc/containers
	cp "$PODMAN"/etc/containers/policy.json /etc/containers/
	cat >/etc/containers/containers.conf <<-END
		[network]
		network_backend = "cni"
		cni_plugin_dirs = ["$PLUGINS"]
		[containers]
		seccomp_profile = "$PODMAN/usr/share/containers/seccomp.json"
		[engine]
		cgroup_manager = "cgroupfs"
		events_logger = "file"
		runtime = "crun"
		conmon_path = ["$PODMAN/bin/conmon"]
		conmon_env_vars = ["PATH=$PATH", "LD_LIBRARY_PATH=$PODMAN/lib"]
	END
}

load() { podman load --quiet --input "$IMAGES/busybox.tar"; }

podman() { LD_LIBRARY_PATH=$PODMAN/lib "$PODMAN/bin/podman" "$@"; }

networks() { echo podman callers; }
network() { [ "$1" = podman ] || podman network create "$1"; }

unnetwork() {
	[ "$1" = podman ] && ip link delete cni-podman0 && return
	podman network rm "$1"
}

run() {
	podman run --detach --name "$1" --hostname "$1" --network "$NETWORK" ${2:+--publish "$2:80"} \
		"$IMAGE" httpd -f -p 80 -h /etc
}

inside() { podman exec "$@"; }

# It makes the network of a container again that runs.
check() { podman network reload "$1"; }

restart() { podman restart --time 1 "$1"; }
remove() { podman rm --force --time 1 "$@"; }
