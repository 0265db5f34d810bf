package scenario

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// timeToClean is how long a node may take to remove what a pod has left.
const timeToClean = time.Minute

var errNotGone = errors.New("it is still there")

// withoutImages makes the node remove the images that no pod uses, by a threshold that cannot be kept:
// otherwise it would be them that go when a disk is full.
func (c *cluster) withoutImages() {
	c.t.Helper()
	c.settings(map[string]any{
		"evictionHard": map[string]string{"nodefs.available": c.left(bytesLeft, -1<<30)},
	})
	c.pressed(disk, diskTaint, true)
	c.eventually(time.Minute, "removal of images", func() error {
		names, err := c.try("get", "node", c.node, "-o", "jsonpath={.status.images[*].names}")
		if err == nil && strings.Contains(names, "docker.io/") {
			err = errors.New(names)
		}
		return err
	})
}

// important makes a priority class for the test, and returns its name.
func (c *cluster) important() string {
	c.t.Helper()
	name := c.namespace + "-important"
	c.apply(fmt.Sprintf(`{"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
		"metadata": {"name": %q}, "value": 1000}`, name))
	c.t.Cleanup(func() { _, _ = c.try("delete", "priorityclass", name) })
	return name
}

const (
	disk   = "DiskPressure"
	memory = "MemoryPressure"
	pid    = "PIDPressure"

	diskTaint   = "node.kubernetes.io/disk-pressure"
	memoryTaint = "node.kubernetes.io/memory-pressure"
	pidTaint    = "node.kubernetes.io/pid-pressure"
)

// annotation is one of the event of a pod's eviction.
func (c *cluster) annotation(pod, key string) string {
	c.t.Helper()
	return c.kubectl("get", "events", "--field-selector=reason=Evicted,involvedObject.name="+pod,
		"-o", "jsonpath={.items[*].metadata.annotations."+key+"}")
}

// TestFullDiskEvictsByRequestsPrioritiesAndUse is what e2e_node checks by LocalStorageEviction and
// PriorityLocalStorageEvictionOrdering, and what is admitted meanwhile.
func TestFullDiskEvictsByRequestsPrioritiesAndUse(t *testing.T) {
	c := onDisk(t)
	const mb = 1000000
	c.withoutImages()
	c.settings(map[string]any{
		"evictionHard":           map[string]string{"nodefs.available": c.left(bytesLeft, 270*mb)},
		"evictionMinimumReclaim": map[string]string{"nodefs.available": fmt.Sprint(60 * mb)},
	})

	c.eat(
		eater{name: "small", script: megabytes(20, "/n")},
		eater{name: "big", script: megabytes(80, "/n")},
		eater{name: "asked", script: megabytes(60, "/n"), request: `{"ephemeral-storage": "100Mi"}`},
		eater{name: "important", script: megabytes(100, "/n"), class: c.important()},
	)

	c.awaitEaten("small", "big", "asked", "important")
	c.eat(eater{name: "last", script: megabytes(40, "/n"), request: `{"ephemeral-storage": "60Mi"}`})

	c.pressed(disk, diskTaint, true)
	c.awaitEvicted("The node was low on resource: ephemeral-storage.", "big")
	if got := c.annotation("big", "starved_resource"); got != "ephemeral-storage" {
		t.Errorf("starved resource %q", got)
	}

	const disrupted = `jsonpath={.status.conditions[?(@.type=="DisruptionTarget")].reason}`
	if got := c.kubectl("get", "pod", "big", "-o", disrupted); got != "TerminationByKubelet" {
		t.Errorf("reason of the condition DisruptionTarget %q", got)
	}

	c.awaitEvicted("The node was low on resource: ephemeral-storage.", "small")
	c.pressed(disk, diskTaint, false)
	c.stayed("asked", "important", "last")
}

func TestNodeUnderDiskPressureTakesNoPodsThatAreNotCritical(t *testing.T) {
	c := onDisk(t)
	c.withoutImages()
	c.eat(
		eater{name: "plain"},
		eater{name: "tolerant", tolerates: true},
		eater{name: "critical", class: "system-node-critical"},
	)

	c.awaitEvicted("Pod was rejected: The node had condition: [DiskPressure].", "plain", "tolerant")
	c.awaitReady(time.Minute, "critical")
	c.stayed("critical")
}

// TestManyFilesEvictWhoMadeThem is e2e_node's InodeEviction.
func TestManyFilesEvictWhoMadeThem(t *testing.T) {
	c := onDisk(t)
	c.settings(map[string]any{
		"evictionHard": map[string]string{"nodefs.inodesFree": c.left(inodesLeft, 8000)},
	})
	c.eat(
		eater{name: "bytes", script: megabytes(60, "/n")},
		eater{name: "few", script: manyFiles(500, "/n")},
		eater{name: "many", script: manyFiles(10000, "/n")},
	)

	c.awaitEvicted("The node was low on resource: inodes.", "many")
	c.pressed(disk, diskTaint, false)
	c.stayed("bytes", "few")
}

// TestImagesAndDeadContainersGoBeforePods is e2e_node's ImageGCNoEviction and
// ImageGCTerminatedPodsContainersCleanup.
func TestImagesAndDeadContainersGoBeforePods(t *testing.T) {
	c := onDisk(t)
	const image = "registry.k8s.io/etcd:3.7.0-0"
	c.kubectl("run", "unused", "--image="+image, "--restart=Never",
		`--overrides={"spec": {"nodeName": "`+c.node+`"}}`, "--command", "--", "etcd", "--version")
	c.kubectl("wait", "pod/unused", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
	c.kubectl("delete", "pod", "unused")
	c.kubectl("run", "ended", "--image=docker.io/library/busybox:1.37", "--restart=Never",
		`--overrides={"spec": {"nodeName": "`+c.node+`"}}`, "--command", "--",
		"sh", "-c", megabytes(40, "/root"))
	c.kubectl("wait", "pod/ended", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")

	c.settings(map[string]any{
		"evictionHard": map[string]string{"nodefs.available": c.left(bytesLeft, 20<<20)},
	})
	c.eat(eater{name: "hog", script: megabytes(40, "/n")})
	c.eventually(2*time.Minute, "removal of the image", func() error {
		names, err := c.try("get", "node", c.node, "-o", "jsonpath={.status.images[*].names}")
		if err == nil && strings.Contains(names, image) {
			err = errNotGone
		}

		return err
	})

	c.pressed(disk, diskTaint, false)
	c.stayed("hog")
}

// TestSoftThresholdWaitsForItsGraceAndEndsPodsWithTheirs is e2e_node's LocalStorageSoftEviction and
// LocalStorageSoftEvictionNotOverwriteTerminationGracePeriodSeconds.
func TestSoftThresholdWaitsForItsGraceAndEndsPodsWithTheirs(t *testing.T) {
	c := onDisk(t)
	c.withoutImages()
	c.settings(map[string]any{
		"evictionHard":              map[string]string{"memory.available": "0%"},
		"evictionSoft":              map[string]string{"nodefs.available": c.left(bytesLeft, 60<<20)},
		"evictionSoftGracePeriod":   map[string]string{"nodefs.available": "8s"},
		"evictionMaxPodGracePeriod": 60,
	})

	// It says goodbye for a second more than a hard threshold would give it.
	const goodbye = "trap 'sleep 2; exit 7' TERM\n"
	c.eat(
		eater{name: "hog", script: goodbye + megabytes(90, "/n"), grace: 30},
		eater{name: "small", script: megabytes(5, "/n")},
	)

	c.pressed(disk, diskTaint, true)
	c.stayed("hog", "small")
	c.awaitEvicted("The node was low on resource: ephemeral-storage.", "hog")
	if got := c.show("hog", "{.status.containerStatuses[0].state.terminated.exitCode}"); got != "7" {
		t.Errorf("the evicted pod ended with %s, want 7: it had 30 s", got)
	}

	c.pressed(disk, diskTaint, false)
	c.stayed("small")
}

// TestFullMemoryEvictsByRequestsAndPriorities is e2e_node's MemoryAllocatableEviction and
// PriorityMemoryEvictionOrdering: most of the node is reserved, so that nothing else runs short.
func TestFullMemoryEvictsByRequestsAndPriorities(t *testing.T) {
	c := open(t)
	c.settings(map[string]any{
		"evictionHard": map[string]string{"memory.available": "100Mi"},
		"kubeReserved": map[string]string{"memory": c.left(memoryAll, 400<<20)},
	})

	c.eat(
		eater{name: "important", script: held(90), class: c.important()},
		eater{name: "over", script: held(50), request: `{"memory": "20Mi"}`},
		eater{name: "guaranteed", script: held(40), limit: `{"memory": "80Mi", "cpu": "100m"}`},
	)

	c.awaitEaten("important", "over", "guaranteed")
	c.eat(eater{name: "best", script: held(160)})
	c.awaitEvicted("The node was low on resource: memory.", "best")
	if got := c.annotation("best", "offending_containers"); got != "c" {
		t.Errorf("offending containers %q", got)
	}

	c.pressed(memory, memoryTaint, false)
	c.stayed("important", "over", "guaranteed")
}

// TestNodeUnderMemoryPressureTakesPodsWithRequests checks admission where the pressure does not end.
func TestNodeUnderMemoryPressureTakesPodsWithRequests(t *testing.T) {
	c := open(t)
	c.settings(map[string]any{
		"evictionHard": map[string]string{"memory.available": c.left(memoryAll, 1<<20)},
	})
	c.pressed(memory, memoryTaint, true)
	c.eat(
		eater{name: "plain"},
		eater{name: "critical", class: "system-node-critical"},
	)
	c.awaitEvicted("Pod was rejected: The node had condition: [MemoryPressure].", "plain")
	c.awaitReady(time.Minute, "critical")
}

// TestManyProcessesEvictWhoStartedThem is e2e_node's PriorityPidEvictionOrdering.
func TestManyProcessesEvictWhoStartedThem(t *testing.T) {
	c := open(t)
	c.settings(map[string]any{
		"evictionHard": map[string]string{"pid.available": c.left(pidsLeft, 800)},
	})
	c.eat(
		eater{name: "forks", script: "for i in $(seq 1500); do sleep 100000 & done"},
		eater{name: "quiet"},
	)
	c.awaitEvicted("The node was low on resource: pids.", "forks")
	c.pressed(pid, pidTaint, false)
	c.stayed("quiet")
}
