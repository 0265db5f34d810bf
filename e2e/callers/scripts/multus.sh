# multus, called by cnitool: a container has two interfaces, by delegates that multus calls itself.

. "$SCRIPTS/cnitool.sh"

prepare() {
	ln -s "$PROGRAMS/callers/multus" "$PLUGINS/multus"
	mkdir -p /etc/cni/net.d
	cat >/etc/cni/net.d/00-multus.conf <<-END
		{"cniVersion": "1.0.0", "name": "callers", "type": "multus",
		 "capabilities": {"portMappings": true},
		 "delegates": [
			{"cniVersion": "1.0.0", "name": "first", "plugins": [
				{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
				 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/24"}]],
				          "routes": [{"dst": "0.0.0.0/0"}]}},
				{"type": "portmap", "capabilities": {"portMappings": true}}]},
			{"cniVersion": "1.0.0", "name": "second", "type": "ptp",
			 "ipam": {"type": "host-local", "subnet": "10.23.0.0/24"}}]}
	END
}

# multus has no STATUS in this version of CNI.
network() { :; }

check() {
	tool check "$NETWORK" "/run/netns/$1"
	inside "$1" ip -4 -o address show dev net1 | grep 'inet 10\.23\.0\.'
}
