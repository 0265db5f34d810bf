// Package controlplane says what runs on the machine of the control plane (etcd, API server, controllers,
// registry, CoreDNS), makes the keys and identities of a cluster, and has the manifests that every cluster
// starts with. It starts nothing.
package controlplane

import (
	"fmt"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/pki"
)

// Name of the machine of the control plane.
const Name = "control-plane"

// Plane is the control plane of one cluster.
type Plane struct {
	Programs seat.Programs
	PKI      pki.Dir
	Images   string // OCI layout that the registry serves
	Data     string // etcd's directory
	Corefile string // path of CoreDNS's configuration, see DNSConfig
}

// Base is what all others need: etcd, the API server and the registry.
func (p Plane) Base() []machine.Daemon {
	return []machine.Daemon{p.etcd(), p.apiServer(), p.registry()}
}

// Controllers is what needs the API server.
func (p Plane) Controllers() []machine.Daemon {
	return []machine.Daemon{p.controllerManager(), p.scheduler(), p.coreDNS()}
}

// etcd skips fsync: a test cluster's data need not survive a power cut of the host.
func (p Plane) etcd() machine.Daemon {
	return machine.Daemon{
		Name: "etcd",
		Argv: []string{
			p.Programs.Peer("etcd"),
			"--data-dir=" + p.Data,
			"--unsafe-no-fsync",
			"--listen-client-urls=http://127.0.0.1:2379",
			"--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380",
			"--log-level=warn",
		},
	}
}

func (p Plane) apiServer() machine.Daemon {
	return machine.Daemon{
		Name: "kube-apiserver",
		Argv: []string{
			p.Programs.Peer("kube-apiserver"),
			"--advertise-address=" + address.ControlPlane.String(),
			fmt.Sprintf("--secure-port=%d", address.APIPort),
			"--etcd-servers=http://127.0.0.1:2379",
			"--allow-privileged=true",
			"--service-cluster-ip-range=" + p.Programs.Stack.Services(),

			"--client-ca-file=" + p.PKI.Path("ca.crt"),
			"--tls-cert-file=" + p.PKI.Path("apiserver.crt"),
			"--tls-private-key-file=" + p.PKI.Path("apiserver.key"),

			"--kubelet-client-certificate=" + p.PKI.Path("apiserver-kubelet-client.crt"),
			"--kubelet-client-key=" + p.PKI.Path("apiserver-kubelet-client.key"),
			"--kubelet-certificate-authority=" + p.PKI.Path("ca.crt"),
			"--kubelet-preferred-address-types=InternalIP",

			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + p.PKI.Path("sa.pub"),
			"--service-account-signing-key-file=" + p.PKI.Path("sa.key"),

			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--enable-bootstrap-token-auth=true",

			"--requestheader-client-ca-file=" + p.PKI.Path("front-proxy-ca.crt"),
			"--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + p.PKI.Path("front-proxy-client.crt"),
			"--proxy-client-key-file=" + p.PKI.Path("front-proxy-client.key"),
		},
	}
}

func (p Plane) registry() machine.Daemon {
	return machine.Daemon{
		Name: "registry",
		Argv: []string{
			p.Programs.Own("trivet-images"),
			"serve",
			"--dir=" + p.Images,
			"--listen=" + address.Registry,
		},
	}
}

func (p Plane) controllerManager() machine.Daemon {
	return machine.Daemon{
		Name: "kube-controller-manager",
		Argv: append(p.controller("kube-controller-manager", "controller-manager"),
			"--allocate-node-cidrs=true",
			"--cluster-cidr="+p.Programs.Stack.Pods(),
			"--service-cluster-ip-range="+p.Programs.Stack.Services(),
			"--cluster-signing-cert-file="+p.PKI.Path("ca.crt"),
			"--cluster-signing-key-file="+p.PKI.Path("ca.key"),
			"--root-ca-file="+p.PKI.Path("ca.crt"),
			"--service-account-private-key-file="+p.PKI.Path("sa.key"),
			"--use-service-account-credentials=true",
			"--horizontal-pod-autoscaler-sync-period=5s",
			"--controllers=*,bootstrap-signer-controller,token-cleaner-controller"),
	}
}

func (p Plane) scheduler() machine.Daemon {
	return machine.Daemon{
		Name: "kube-scheduler",
		Argv: p.controller("kube-scheduler", "scheduler"),
	}
}

// controller is the part of the command line that controller manager and scheduler share.
func (p Plane) controller(program, identity string) []string {
	kubeconfig := p.PKI.Path(identity + ".kubeconfig")
	return []string{
		p.Programs.Peer(program),
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--client-ca-file=" + p.PKI.Path("ca.crt"),
		"--requestheader-client-ca-file=" + p.PKI.Path("front-proxy-ca.crt"),
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
	}
}

func (p Plane) coreDNS() machine.Daemon {
	return machine.Daemon{
		Name: "coredns",
		Argv: []string{p.Programs.Peer("coredns"), "-conf", p.Corefile},
	}
}

// DNSConfig is the content of the Corefile. CoreDNS runs beside the control plane, not as a pod: a node
// without any pod can be checked for leaks.
func (p Plane) DNSConfig() string {
	return fmt.Sprintf(`.:53 {
    bind %s
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig %s
        pods insecure
        ttl 5
    }
    loop
}
`, address.ControlPlane, p.PKI.Path("coredns.kubeconfig"))
}
