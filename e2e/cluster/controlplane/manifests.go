package controlplane

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/pki"
)

// base has the rights of the API server at the nodes and of joining nodes, and CoreDNS's usual Service, which
// leads to the control plane's machine.
const base = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "trivet:apiserver-to-nodes"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:kubelet-api-admin"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: kube-apiserver-kubelet-client}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:coredns"}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "trivet:node-bootstrappers"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-bootstrapper"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "trivet:approve-node-certificates"}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "trivet:renew-node-certificates"}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns, kubernetes.io/name: CoreDNS}}
spec:
  clusterIP: %[1]s
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns-control-plane
  namespace: kube-system
  labels: {kubernetes.io/service-name: kube-dns}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: ["%[2]s"], conditions: {ready: true}}]
`

// kubeletClient is the API server's user name at the nodes.
const kubeletClient = "kube-apiserver-kubelet-client"

// inline has the driver of the test cluster make inline volumes of pods, too, which a CSIDriver cannot be
// told later.
var inline = strings.NewReplacer(
	"volumeLifecycleModes: [Persistent]", "volumeLifecycleModes: [Persistent, Ephemeral]",
	"podInfoOnMount: false", "podInfoOnMount: true",
)

// Manifests are what a cluster starts with, as YAML documents: the rights of the API server at the nodes,
// CoreDNS's Service, the bootstrap token, and the manifests of trivet's own parts below deploy, without their
// DaemonSets: on these nodes the parts run as daemons of the machine.
func Manifests(d pki.Dir, deploy string) (string, error) {
	token, err := os.ReadFile(d.Path(tokenFile))
	if err != nil {
		return "", err
	}

	secret, err := tokenSecret(string(token))
	if err != nil {
		return "", err
	}

	all := []string{fmt.Sprintf(base, address.DNSService, address.ControlPlane), secret}
	for _, part := range []string{"cni", "csi"} {
		files, err := filepath.Glob(filepath.Join(deploy, part, "*.yaml"))
		if err != nil {
			return "", err
		}

		for _, f := range files {
			// What kustomize reads is no object.
			if name := filepath.Base(f); name == "daemonset.yaml" || name == "kustomization.yaml" {
				continue
			}

			text, err := os.ReadFile(f)
			if err != nil {
				return "", err
			}

			all = append(all, inline.Replace(string(text)))
		}
	}

	return strings.Join(all, "\n---\n"), nil
}
