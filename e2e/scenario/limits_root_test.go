package scenario

import "testing"

// TestPodsThatTakeMoreThanTheirLimitOfLocalStorageAreEvicted is what e2e_node checks of kubelet's
// LocalStorageCapacityIsolation: emptyDirs, writable layers, logs, sidecars, and those who are within limits.
func TestPodsThatTakeMoreThanTheirLimitOfLocalStorageAreEvicted(t *testing.T) {
	c := open(t)
	const (
		limit = `{"ephemeral-storage": "20Mi"}`
		sized = `{"sizeLimit": "20Mi"}`
		total = "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi."
	)

	c.eat(
		eater{name: "dir-over", script: megabytes(30, "/n"), dir: sized},
		eater{name: "dir-under", script: megabytes(15, "/n"), dir: sized},
		eater{
			name:   "memory-full",
			script: megabytes(30, "/n") + "; rm /n/data",
			dir:    `{"medium": "Memory", "sizeLimit": "20Mi"}`,
		},
		eater{name: "layer-over", script: megabytes(30, "/root"), limit: limit},
		eater{name: "layer-under", script: megabytes(15, "/root"), limit: limit},
		eater{name: "logs-over", script: "head -c 22000000 /dev/urandom | base64", limit: limit},
		eater{name: "pod-over", script: megabytes(30, "/n"), limit: limit},
		eater{
			name:    "sidecar-over",
			script:  megabytes(30, "/root"),
			limit:   limit,
			sidecar: true,
		},
		eater{
			name:    "sidecar-under",
			script:  megabytes(15, "/root"),
			limit:   limit,
			sidecar: true,
		},
	)

	c.awaitEvicted(`Usage of EmptyDir volume "n" exceeds the limit "20Mi".`, "dir-over")
	c.awaitEvicted(total, "layer-over", "logs-over", "pod-over", "sidecar-over")
	c.awaitEaten("dir-under", "memory-full", "layer-under", "sidecar-under")
	c.stayed("dir-under", "memory-full", "layer-under", "sidecar-under")

	// What the evicted ones have taken is given back while they are still there to be looked at.
	c.noFiles("dir-over", "pod-over")
}

// noFiles waits until the volumes of pods are removed from the test's node.
func (c *cluster) noFiles(pods ...string) {
	c.t.Helper()
	for _, p := range pods {
		file := c.notes(p, "data")
		c.eventually(timeToClean, "removal of what "+p+" has written", func() error {
			if file() != "" {
				return errNotGone
			}
			return nil
		})
	}
}
