# What containerd and CRI-O have in common: they are called by crictl.

check() { :; }

crictl() { "$PROGRAMS/crictl" --runtime-endpoint="unix://$SOCKET" --image-endpoint="unix://$SOCKET" "$@"; }
ready() { crictl info | grep -q '"status": *true'; }

networks() { echo default; }
network() { :; }
unnetwork() { ip link delete cni0; }

run() {
	# As kubelet asks: each container has processes of its own, and CRI-O then needs no pause. ping wants
	# NET_RAW, which CRI-O does not give by itself.
	own='"namespace_options": {"pid": 1}'
	may='"capabilities": {"add_capabilities": ["NET_RAW"]}'
	ports=
	[ -z "${2:-}" ] || ports="{\"container_port\": 80, \"host_port\": $2}"
	cat >"/tmp/$1.pod.json" <<-END
		{"metadata": {"name": "$1", "namespace": "default", "uid": "$1"}, "hostname": "$1",
		 "log_directory": "/tmp", "port_mappings": [$ports], "linux": {"security_context": {$own}}}
	END
	cat >"/tmp/$1.json" <<-END
		{"metadata": {"name": "$1"}, "log_path": "$1.log",
		 "linux": {"security_context": {$own, $may}},
		 "image": {"image": "$IMAGE", "user_specified_image": "$IMAGE"},
		 "command": ["httpd", "-f", "-p", "80", "-h", "/etc"]}
	END

	crictl runp "/tmp/$1.pod.json" >"/tmp/$1.pod"
	crictl create "$(cat "/tmp/$1.pod")" "/tmp/$1.json" "/tmp/$1.pod.json" >"/tmp/$1.container"
	crictl start "$(cat "/tmp/$1.container")"
}

inside() {
	name=$1
	shift
	crictl exec --sync "$(cat "/tmp/$name.container")" "$@"
}

remove() {
	for name; do
		crictl stop --timeout 1 "$(cat "/tmp/$name.container")"
		crictl stopp "$(cat "/tmp/$name.pod")"
		crictl rmp "$(cat "/tmp/$name.pod")"
	done
}
