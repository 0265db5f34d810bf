# cnitool: a container is a namespace and a server in it.

prepare() {
	mkdir -p /etc/cni/net.d
	cat >/etc/cni/net.d/10-callers.conflist <<-END
		{"cniVersion": "1.1.0", "name": "callers", "plugins": [
			{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
			 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/24"}]],
			          "routes": [{"dst": "0.0.0.0/0"}]}},
			{"type": "portmap", "capabilities": {"portMappings": true}},
			{"type": "firewall"},
			{"type": "tuning"}]}
	END
}

load() { :; }

networks() { echo callers; }
network() { tool status "$1" /run/netns/none; }
unnetwork() { ip link delete cni0; }

tool() { CNI_PATH=$PLUGINS "$PROGRAMS/callers/cnitool" "$@"; }

run() {
	ip netns add "$1"
	nsenter --net="/run/netns/$1" ip link set lo up

	ports=
	[ -z "${2:-}" ] || ports="{\"hostPort\": $2, \"containerPort\": 80, \"protocol\": \"tcp\"}"
	CAP_ARGS="{\"portMappings\": [$ports]}" tool add "$NETWORK" "/run/netns/$1"

	mkdir -p "/tmp/$1"
	echo "$1" >"/tmp/$1/hostname"
	nsenter --net="/run/netns/$1" busybox httpd -p 80 -h "/tmp/$1"
}

inside() {
	name=$1
	shift
	nsenter --net="/run/netns/$name" busybox "$@"
}

check() { tool check "$NETWORK" "/run/netns/$1"; }

restart() {
	remove "$1"
	run "$@"
}

remove() {
	for name; do
		for pid in $(ip netns pids "$name"); do kill -9 "$pid"; done
		tool del "$NETWORK" "/run/netns/$name"
		ip netns delete "$name"
	done
}
