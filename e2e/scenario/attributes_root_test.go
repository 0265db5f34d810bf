package scenario

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLimitsOfAClassHoldInAPod has a pod write to a volume that was made with a VolumeAttributesClass, before
// and after its claim names another one, and one that cannot be.
func TestLimitsOfAClassHoldInAPod(t *testing.T) {
	c := open(t)
	slow, fast, wrong := "slow-"+c.namespace, "fast-"+c.namespace, "wrong-"+c.namespace
	c.attributes(slow, "writeBytesPerSecond", "4Mi")
	c.attributes(fast, "writeBytesPerSecond", "max")
	c.attributes(wrong, "writeBytesPerSecond", "4 parsecs")

	c.claim("data", fmt.Sprintf(`"volumeAttributesClassName": %q,`, slow))
	c.podWithClaim("writer", "data", "sleep 3600 & wait")
	c.awaitReady(2*time.Minute, "writer")
	c.awaitCurrent("data", slow)

	// On cgroup v1 limits follow a container's start.
	const least = 1500 * time.Millisecond
	c.eventually(time.Minute, "the limits hold", func() error {
		if took := c.write("writer", 8); took < least {
			return fmt.Errorf("8 MiB at 4 MiB a second took %v", took)
		}
		return nil
	})

	c.rename("data", wrong)
	c.kubectl("wait", "pvc/data", "--timeout=60s",
		"--for=jsonpath={.status.modifyVolumeStatus.status}=Infeasible")
	if took := c.write("writer", 8); took < least {
		t.Errorf("8 MiB at 4 MiB a second took %v after a change that is infeasible", took)
	}

	c.rename("data", fast)
	c.awaitCurrent("data", fast)
	if left := c.kubectl("get", "pvc", "data", "-o", "jsonpath={.status.modifyVolumeStatus}"); left != "" {
		t.Errorf("status after the change: %s", left)
	}
	t.Logf("8 MiB without limits took %v", c.write("writer", 8))
}

// attributes makes a VolumeAttributesClass until the test ends.
func (c *cluster) attributes(name, key, value string) {
	c.t.Helper()
	c.apply(fmt.Sprintf(`{"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
		"metadata": {"name": %q}, "driverName": "csi.trivet.dev", "parameters": {%q: %q}}`, name, key, value))
	c.t.Cleanup(func() { c.kubectl("delete", "volumeattributesclass", name, "--wait=false") })
}

// rename has a claim name another class.
func (c *cluster) rename(claim, class string) {
	c.t.Helper()
	c.kubectl("patch", "pvc", claim, "-p", fmt.Sprintf(`{"spec": {"volumeAttributesClassName": %q}}`, class))
}

func (c *cluster) awaitCurrent(claim, class string) {
	c.t.Helper()
	c.kubectl("wait", "pvc/"+claim, "--timeout=60s",
		"--for=jsonpath={.status.currentVolumeAttributesClassName}="+class)
}

// write has a pod write to its volume, past the cache, and returns how long that took there.
func (c *cluster) write(pod string, mebibytes int) time.Duration {
	c.t.Helper()
	const script = `cut -d" " -f1 /proc/uptime
		dd if=/dev/zero of=/data/file bs=64k count=%d conv=notrunc oflag=direct 2>/dev/null ||
		dd if=/dev/zero of=/data/file bs=64k count=%d conv=notrunc,fsync 2>/dev/null
		cut -d" " -f1 /proc/uptime`
	out := c.kubectl("exec", pod, "--", "sh", "-c", fmt.Sprintf(script, mebibytes*16, mebibytes*16))
	var began, ended float64
	if _, err := fmt.Sscan(strings.TrimSpace(out), &began, &ended); err != nil {
		c.t.Fatalf("%q: %v", out, err)
	}
	return time.Duration((ended - began) * float64(time.Second))
}
