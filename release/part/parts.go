package part

// Parts are all deliveries.
var Parts = []Part{node, cri, netd, csi}

// installed is a program of a package in /usr/bin, and of an image in /usr/local/bin: an installer that runs
// in a container puts it into the same directory of a machine, where it comes before that of a package.
func installed(name, source string) Program {
	return Program{
		Name:      name,
		Source:    source,
		Installed: "usr/bin/" + name,
		Shipped:   "usr/local/bin/" + name,
	}
}

// installer puts trivet-cri or trivet-node on the machine that its pod runs on (deploy/cri, deploy/node).
func installer(part string) Image {
	return Image{
		Entrypoint: []string{"/usr/local/bin/trivet-installer", "attend", "--part=" + part},
		Programs:   []Program{installed("trivet-installer", "release/installer/cmd/trivet-installer")},
	}
}

var node = Part{
	Name:     "trivet-node",
	Deploy:   "node",
	Programs: []Program{installed("trivet-node", "node/cmd/trivet-node")},
	Service: Service{
		Unit: "trivet-node.service",

		// Where kubelet runs, it is the administrator who changes the agent.
		Manual: true,
	},
	Configuration: []Configuration{
		{Source: "trivet-node.default", Installed: "etc/default/trivet-node"},
	},
	Package: Package{
		Recommends: []string{"trivet-cri | containerd | containerd.io | cri-o"},
		Suggests:   []string{"nfs-common"},
		Summary:    "Kubernetes node agent in the place of kubelet",
		Description: []string{
			"trivet-node registers a machine as a node of a Kubernetes cluster and runs the pods " +
				"that are bound to it through a CRI container runtime. It takes kubelet's flags, " +
				"configuration and directories, so that one can replace the other under running pods.",
			"The service is neither enabled nor started by the installation: see " +
				"/usr/share/doc/trivet-node/README.md.",
		},
	},
	Image: installer("node"),
}

var cri = Part{
	Name:   "trivet-cri",
	Deploy: "cri",
	Programs: []Program{
		installed("trivet-cri", "cri/cmd/trivet-cri"),
		installed("trivet-monitor", "cri/cmd/trivet-monitor"),
	},
	Service: Service{
		Unit: "trivet-cri.service",
		BeforeRemoval: []string{
			"# Ends the parent of containers, too, if there are none. Else they run on.",
			"trivet-cri --shutdown || true",
		},
		Purge: []string{
			"# A process may serve another state_dir, or not be of this package; its containers have",
			"# their file systems in the store. So may pods of this boot that did not end well.",
			"if cat /proc/[0-9]*/comm 2>/dev/null | grep -qxE 'trivet-(cri|monitor)' ||",
			"\t[ -n \"$(ls /run/trivet/cri/sandboxes/records 2>/dev/null)\" ]; then",
			"\techo 'trivet-cri: it runs, or pods are left: /var/lib/trivet/cri stays'",
			"else",
			"\trm -rf --one-file-system /var/lib/trivet/cri /run/trivet/cri || true",
			"fi",
		},
	},
	Configuration: []Configuration{
		{Source: "cri.toml", Installed: "etc/trivet/cri.toml"},
	},
	Package: Package{
		Depends:    []string{"crun | runc"},
		Recommends: []string{"trivet-netd | containernetworking-plugins"},
		Summary:    "container runtime for Kubernetes (CRI)",
		Description: []string{
			"trivet-cri serves the Container Runtime Interface (CRI v1) to kubelet, trivet-node " +
				"or crictl. It pulls images, makes sandboxes with CNI plugins, and runs containers " +
				"with crun or runc.",
			"Containers run on while trivet-cri is restarted, upgraded or removed: their parent " +
				"is trivet-monitor, which executes its new program by itself.",
		},
	},
	Image: installer("cri"),
}

var netd = Part{
	Name:   "trivet-netd",
	Deploy: "cni",
	Programs: []Program{
		{
			Name:      "trivet-netd",
			Source:    "cni/cmd/trivet-netd",
			Installed: "usr/bin/trivet-netd",
			Shipped:   "trivet-netd",
		},
		{
			Name:      "trivet-cni",
			Source:    "cni/cmd/trivet-cni",
			Installed: "usr/lib/cni/trivet-cni",
			Shipped:   "trivet-cni",
		},
	},
	Service: Service{
		Unit: "trivet-netd.service",
		Purge: []string{
			"# Without the credentials the service never ran, and one that lives is a DaemonSet's. Pods",
			"# that run keep the plugin, their bridge and their addresses.",
			"if [ -e /etc/trivet/netd.kubeconfig ] &&",
			"\t! cat /proc/[0-9]*/comm 2>/dev/null | grep -qx trivet-netd; then",
			"\trm -f /etc/cni/net.d/10-trivet.conflist || true",
			"\tif command -v ip >/dev/null; then",
			"\t\tip -4 route flush proto 117 || true",
			"\t\tip -6 route flush proto 117 || true",
			"\t\tip link del trivet-vxlan4 2>/dev/null || true",
			"\t\tip link del trivet-vxlan6 2>/dev/null || true",
			"\tfi",
			"\t# Rules of tunnels and policies would drop packets of the next network.",
			"\tif command -v nft >/dev/null; then",
			"\t\tfor table in 'inet tunnel' 'inet policy' 'bridge policy' 'inet hold'; do",
			"\t\t\tnft delete table ${table}_trivet 2>/dev/null || true",
			"\t\tdone",
			"\tfi",
			"fi",
		},
	},
	Configuration: []Configuration{
		{Source: "trivet-netd.default", Installed: "etc/default/trivet-netd"},
	},
	Package: Package{
		Recommends: []string{"iproute2", "nftables"},
		Summary:    "pod network of a Kubernetes node: CNI plugin and its daemon",
		Description: []string{
			"trivet-cni is a CNI plugin with the interfaces, addresses, masquerading and host " +
				"ports of upstream's bridge, host-local and portmap in one program. trivet-netd " +
				"configures it from the pod CIDRs of the Node, and keeps the routes between the nodes " +
				"of one network.",
		},
	},
	Image: Image{Entrypoint: []string{"/trivet-netd"}},
}

var csi = Part{
	Name:     "trivet-csi",
	Deploy:   "csi",
	Programs: []Program{installed("trivet-csi", "csi/cmd/trivet-csi")},
	Service:  Service{Unit: "trivet-csi.service"},
	Configuration: []Configuration{
		{Source: "trivet-csi.default", Installed: "etc/default/trivet-csi"},
	},
	Package: Package{
		Depends:    []string{"e2fsprogs"},
		Recommends: []string{"btrfs-progs", "xfsprogs"},
		Summary:    "CSI driver for local volumes of an enforced size",
		Description: []string{
			"trivet-csi makes volumes on the disk of a Kubernetes node, with both binding modes. " +
				"Each is a subvolume with a quota in a pool, or a file system of its own in an image " +
				"file. One process is driver, registrar, provisioner and resizer.",
		},
	},
	Image: Image{
		Entrypoint: []string{"trivet-csi"},
		Packages:   []string{"btrfs-progs", "e2fsprogs", "xfsprogs"},
		Tools: map[string]string{
			"usr/sbin/e2fsck":     "e2fsck",
			"usr/sbin/mkfs.btrfs": "mkfs.btrfs",
			"usr/sbin/mkfs.ext4":  "mkfs.ext4",
			"usr/sbin/mkfs.xfs":   "mkfs.xfs",
			"usr/sbin/resize2fs":  "resize2fs",
		},
		Trees: []string{"etc/mke2fs.conf"},
	},
}
