package nodetest

import (
	"os"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Leases is a CNI plugin that keeps one file below DIR/leases for each pod that it joined, so that a test
// sees what was never released.
const Leases = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD) : >DIR/leases/$CNI_CONTAINERID
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],
		"ips":[{"address":"10.1.2.3/24","interface":0}]}' ;;
DEL) rm -f DIR/leases/$CNI_CONTAINERID ;;
esac
`

// Network gives the node a network whose only plugin is a program. DIR in its text is the node's directory.
func (n *Node) Network(plugin string) {
	n.tb.Helper()
	const conflist = `{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"test"}]}`
	n.writeFile("plugins/test", strings.ReplaceAll(plugin, "DIR", n.Dir), 0o755)
	n.writeFile("net.d/10-test.conflist", conflist, 0o644)
	if err := os.MkdirAll(n.Dir+"/leases", 0o755); err != nil {
		n.tb.Fatal(err)
	}
	Eventually(n.tb, func() bool {
		s, err := n.Pods.Status(n.tb.Context(), &runtimeapi.StatusRequest{})
		return err == nil && s.Status.Conditions[1].Status
	})
}

func (n *Node) writeFile(name, text string, mode os.FileMode) {
	n.tb.Helper()
	path := filepath.Join(n.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		n.tb.Fatal(err)
	}
}
