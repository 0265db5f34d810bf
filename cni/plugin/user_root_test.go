package plugin_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
)

// userVariable is set where the test runs as a user without privileges.
const userVariable = "TRIVET_TEST_USER"

// Rootless runtimes call plugins as root of a user namespace, who is nobody on the host: neither /run nor
// /var/lib is his.
func TestTheSetServesAUserWithoutPrivileges(t *testing.T) {
	if os.Getenv(userVariable) != "" {
		h := newHost(t, "")
		h.serveUser("one entry", h.ofNetd()+`,"runtimeConfig":{"portMappings":[
			{"hostPort":8080,"containerPort":80}]}`)
		h.serveUser("chain",
			h.bridgePlugin(`,"ipMasq":true,"macspoofchk":true,"ipMasqBackend":"nftables"`),
			`"type":"portmap","backend":"nftables","runtimeConfig":{"portMappings":[
				{"hostPort":8080,"containerPort":80}]}`,
			`"type":"firewall","backend":"nftables","ingressPolicy":"same-bridge"`,
			`"type":"bandwidth",`+limits,
			`"type":"tuning","mtu":1300,"dataDir":"`+filepath.Join(h.dataDir, "tuning")+`"`,
		)
		h.serveUser("ptp", h.ptp(`,"ipMasq":true`))
		return
	}

	testenv.Root(t)
	const nobody = 65534
	dir := testenv.ShortDir(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}

	c := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	c.Dir = "/"
	c.Env = append(os.Environ(), userVariable+"=1", "TMPDIR="+dir, "XDG_RUNTIME_DIR="+dir)
	root := []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: root,
		GidMappings: root,
		Credential:  &syscall.Credential{NoSetGroups: true},
	}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v: %s", err, out)
	}
}

// serveUser has a container added, used and deleted by a chain of plugins.
func (h *host) serveUser(id string, plugins ...string) {
	h.t.Helper()
	if _, err := os.Create("/run/of-root"); err == nil {
		h.t.Error("the user may write to /run")
	}

	c := h.newChain(strings.ReplaceAll(id, " ", "-"), plugins...)
	if err := c.check(); err != nil {
		h.t.Errorf("%s: %v", id, err)
	}
	h.serve(c.netns, 80)
	if _, err := h.dial(h.netns, netip.AddrPortFrom(c.address(false), 80).String()); err != nil {
		h.t.Errorf("%s: %v", id, err)
	}

	c.del()
	slices.Reverse(plugins)
	h.gc(plugins...)
	// What keeps bridges apart stays.
	for left := range strings.SplitSeq(h.remains(), ", ") {
		if left != "" && !strings.Contains(left, "same-bridge br0") && !strings.HasPrefix(left, "link veth") {
			h.t.Errorf("%s: %s is left", id, left)
		}
	}
}
