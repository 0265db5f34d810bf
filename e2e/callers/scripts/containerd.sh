# containerd as a CRI server, with a network like that of its documentation.

. "$SCRIPTS/cri.sh"

SOCKET=/run/containerd/containerd.sock

version() { "$PROGRAMS/containerd" --version; }

prepare() {
	cat >/etc/containerd.toml <<-END
		version = 3
		[plugins.'io.containerd.cri.v1.runtime']
		restrict_oom_score_adj = true
		[plugins.'io.containerd.cri.v1.images'.pinned_images]
		sandbox = '$PAUSE'
	END
	mkdir -p /etc/cni/net.d
	cat >/etc/cni/net.d/10-callers.conflist <<-END
		{"cniVersion": "1.0.0", "name": "callers", "plugins": [
			{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "promiscMode": true,
			 "ipam": {"type": "host-local",
			          "ranges": [[{"subnet": "10.24.0.0/16"}], [{"subnet": "fd24::/64"}]],
			          "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
			{"type": "portmap", "capabilities": {"portMappings": true}}]}
	END
}

load() {
	for image in busybox pause; do
		"$PROGRAMS/ctr" --namespace=k8s.io images import "$IMAGES/$image.tar"
	done
}
