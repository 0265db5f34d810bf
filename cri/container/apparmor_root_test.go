package container_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/apparmor"
	"github.com/trivet-node/trivet/cri/host"
	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

// onAppArmor runs a test on nodes whose kernel confines by AppArmor.
func onAppArmor(t *testing.T, test func(t *testing.T, n *nodetest.Node)) {
	groups, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.Probe(groups)
	if err != nil {
		t.Fatal(err)
	}
	if !h.AppArmor {
		t.Skip("the kernel has no AppArmor, or it is off (make vm)")
	}
	testenv.Program(t, "apparmor_parser", "apparmor")
	withRuntimes(t, test)
}

// confined is a change of a container that may mount as far as capabilities go, and asks for a profile of
// AppArmor; nil for a container that says nothing.
func confined(profile *runtimeapi.SecurityProfile) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) {
		security := c.Linux.SecurityContext
		security.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
		security.Apparmor = profile
	}
}

// ownProfile is what the processes of a container see as their profile.
const ownProfile = "cat /proc/self/attr/current"

func TestTheDefaultProfileConfinesContainers(t *testing.T) {
	onAppArmor(t, func(t *testing.T, n *nodetest.Node) {
		pod := n.Sandbox("default", nodetest.SharePID)
		serves := script(`trap "exit 7" TERM; ` + ownProfile + `; while true; do sleep 0.1; done`)
		c := n.Run(pod, "confined", serves, confined(nil))
		want := apparmor.DefaultProfile + " (enforce)\n"
		nodetest.Eventually(t, func() bool {
			log, _ := os.ReadFile(n.Dir + "/logs/confined.log")
			return strings.Contains(string(log), want)
		})

		if out, _ := n.Exec(c, ownProfile); out != want {
			t.Errorf("the profile of an exec is %q", out)
		}

		// What the profile denies, although the capability for it is there.
		if out, code := n.Exec(c, "mount -t tmpfs none /tmp 2>&1"); code == 0 {
			t.Errorf("a mount was let through: %s", out)
		}
		// Read-only mounts guard it, too. The key would only print help.
		if out, code := n.Exec(c, "echo h 2>&1 >/proc/sysrq-trigger"); code == 0 {
			t.Errorf("a write to sysrq-trigger was let through: %s", out)
		}

		// What it lets through: files of its own, and signals from its neighbours and the node.
		other := n.Run(pod, "other", []string{"tail", "-f", "/dev/null"}, confined(nil))
		for _, works := range []string{"echo a >/tmp/a && chmod 600 /tmp/a", "kill -0 $(pidof tail)"} {
			if out, code := n.Exec(c, works+" 2>&1"); code != 0 {
				t.Errorf("%s ended with code %d: %s", works, code, out)
			}
		}
		if err := n.StopContainer(other, 0); err != nil {
			t.Error(err)
		}
		if err := n.StopContainer(c, 20); err != nil {
			t.Fatal(err)
		}
		if code := n.Status(c).ExitCode; code != 7 {
			t.Errorf("it was stopped by SIGTERM and ended with code %d", code)
		}
	})
}

func TestContainersGetTheProfileThatTheyAskFor(t *testing.T) {
	onAppArmor(t, func(t *testing.T, n *nodetest.Node) {
		const rules = "file, signal, capability, deny /tmp/** w,"
		load(t, "profile trivet-test-reads flags=(attach_disconnected) { "+rules+" }")
		named := func(name string) *runtimeapi.SecurityProfile {
			return &runtimeapi.SecurityProfile{
				ProfileType:  runtimeapi.SecurityProfile_Localhost,
				LocalhostRef: name,
			}
		}

		pod := n.Sandbox("asked", nil)
		reads := n.Run(pod, "reads", script("true"), confined(named("trivet-test-reads")))
		if out, code := n.Exec(reads, "echo a 2>&1 >/tmp/a"); code == 0 {
			t.Errorf("a write that its profile denies was let through: %s", out)
		}

		free := n.Run(pod, "free", script("true"), confined(&runtimeapi.SecurityProfile{
			ProfileType: runtimeapi.SecurityProfile_Unconfined,
		}))
		if out, code := n.Exec(free, "mount -t tmpfs none /tmp 2>&1 && "+ownProfile); code != 0 ||
			strings.Contains(out, apparmor.DefaultProfile) {
			t.Errorf("a mount without a profile: code %d: %s", code, out)
		}

		config := n.Container(pod, "absent", script("true"))
		confined(named("trivet-test-absent"))(config)
		_, err := n.CreateContainer(t.Context(), pod, config)
		if err == nil || !strings.Contains(err.Error(), "trivet-test-absent") {
			t.Errorf("a profile that is not loaded: %v", err)
		}
	})
}

// load loads a profile for the time of the test.
func load(t *testing.T, profile string) {
	t.Helper()
	parse := func(how string) {
		cmd := exec.Command("apparmor_parser", how, "--skip-cache")
		cmd.Stdin = strings.NewReader(profile)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("apparmor_parser %s: %v: %s", how, err, out)
		}
	}

	parse("--replace")
	t.Cleanup(func() { parse("--remove") })
}
