package controlplane

import (
	"fmt"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/pki"
)

// identity is a user of the API server, with a client certificate.
type identity struct {
	name   string // of its files
	user   string
	groups []string
}

// serviceAccount is the identity of a service account in kube-system, for a daemon that is not a pod here.
func serviceAccount(name string) identity {
	return identity{
		name:   name,
		user:   "system:serviceaccount:kube-system:" + name,
		groups: []string{"system:serviceaccounts", "system:authenticated"},
	}
}

// identities are those of the control plane and of the daemons on all nodes, and two of each node: a node's
// driver may write the volumes of its own node only (deploy/csi/policy.yaml).
func identities(nodes []string) []identity {
	all := []identity{
		{name: "admin", user: "trivet-admin", groups: []string{"system:masters"}},
		{name: "controller-manager", user: "system:kube-controller-manager"},
		{name: "scheduler", user: "system:kube-scheduler"},
		{name: "proxy", user: "system:kube-proxy"},
		serviceAccount("coredns"),
		serviceAccount("trivet-netd"),
		serviceAccount(localPathName),
	}

	for _, n := range nodes {
		all = append(all,
			identity{name: n, user: "system:node:" + n, groups: []string{"system:nodes"}},
			identity{
				name:   csiIdentity(n),
				user:   "csi.trivet.dev:node:" + n,
				groups: []string{"csi.trivet.dev:nodes"},
			})
	}

	return all
}

func csiIdentity(node string) string { return node + "-csi" }

// servingName is the name of the files of a node's serving certificate.
func servingName(node string) string { return node + "-serving" }

// NodeFiles are the keys and kubeconfigs of a node: file of the PKI -> file below /etc/kubernetes, at
// kubeadm's path where it has one. Other nodes' identities stay out of its sight.
func NodeFiles(node string) map[string]string {
	return map[string]string{
		"ca.crt":                          "pki/ca.crt",
		servingName(node) + ".crt":        "pki/kubelet.crt",
		servingName(node) + ".key":        "pki/kubelet.key",
		node + ".kubeconfig":              "kubelet.conf",
		"bootstrap.kubeconfig":            "bootstrap-kubelet.conf",
		"proxy.kubeconfig":                "kube-proxy.conf",
		"trivet-netd.kubeconfig":          "trivet-netd.conf",
		csiIdentity(node) + ".kubeconfig": "trivet-csi.conf",
	}
}

// MakeIdentities makes the authorities, certificates and kubeconfigs of a cluster with these nodes, and the
// administrator's kubeconfig for the API server as the host reaches it. What is there is kept.
func MakeIdentities(d pki.Dir, nodes []string, server, kubeconfig string) error {
	ca, err := d.Authority("ca")
	if err != nil {
		return err
	}

	front, err := d.Authority("front-proxy-ca")
	if err != nil {
		return err
	}
	if err := d.ServiceAccountKeys(); err != nil {
		return err
	}

	// The API server, as what it is known by, and as a client of kubelets and of aggregated APIs.
	hosts := []string{
		address.ControlPlane.String(),
		"127.0.0.1",
		"localhost",
		address.APIService,
		"kubernetes",
		"kubernetes.default",
		"kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local",
	}
	if err := d.Server(ca, "apiserver", "kube-apiserver", hosts...); err != nil {
		return err
	}
	if err := d.Client(ca, "apiserver-kubelet-client", kubeletClient); err != nil {
		return err
	}
	if err := d.Client(front, "front-proxy-client", "front-proxy-client"); err != nil {
		return err
	}
	if err := makeServers(d, ca, nodes); err != nil {
		return err
	}

	// All others, each with a kubeconfig that is good inside the cluster.
	for _, id := range identities(nodes) {
		if err := d.Client(ca, id.name, id.user, id.groups...); err != nil {
			return fmt.Errorf("identity %s: %w", id.name, err)
		}

		file := d.Path(id.name + ".kubeconfig")
		if err := d.Kubeconfig(ca, id.name, address.APIServer, file); err != nil {
			return fmt.Errorf("identity %s: %w", id.name, err)
		}
	}

	if err := makeToken(d, ca); err != nil {
		return fmt.Errorf("bootstrap token: %w", err)
	}

	return d.Kubeconfig(ca, "admin", server, kubeconfig)
}

// makeServers makes the certificates of the nodes' endpoints and of metrics-server: their clients verify them
// by the cluster's CA.
func makeServers(d pki.Dir, ca *pki.Authority, nodes []string) error {
	for i, n := range nodes {
		if err := d.Server(ca, servingName(n), "system:node:"+n, n, address.Node(i).String()); err != nil {
			return err
		}
	}

	return d.Server(ca, metricsServerName, metricsServerName, "metrics-server.kube-system.svc")
}
