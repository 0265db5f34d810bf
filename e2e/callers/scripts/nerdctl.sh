# nerdctl with containerd. It writes the configurations of its networks itself.

version() { nerdctl --version; }

prepare() { :; }
ready() { "$PROGRAMS/ctr" version; }
load() { nerdctl load --quiet --input "$IMAGES/busybox.tar"; }

nerdctl() { "$PROGRAMS/nerdctl" --cni-path="$PLUGINS" --cni-netconfpath=/etc/cni/net.d "$@"; }

networks() { echo bridge callers; }

# It asks the plugin firewall for its version, and says when it does not understand it: then containers of one
# network cannot be kept apart.
network() {
	[ "$1" = bridge ] && return
	said=$(nerdctl network create "$1" 2>&1)
	case $said in *firewall*) echo "$said" >&2 && return 1 ;; esac

	nerdctl network create --opt com.docker.network.bridge.enable_icc=false apart
	grep -r '"isolated"' /etc/cni/net.d
	nerdctl network rm apart
}

unnetwork() {
	[ "$1" = bridge ] && ip link delete nerdctl0 && return
	nerdctl network rm "$1"
}

run() {
	nerdctl run --detach --name "$1" --hostname "$1" --network "$NETWORK" ${2:+--publish "$2:80"} \
		"$IMAGE" httpd -f -p 80 -h /etc
}

inside() { nerdctl exec "$@"; }
check() { :; }
restart() { nerdctl restart --time 1 "$1"; }
remove() { nerdctl rm --force "$@"; }
