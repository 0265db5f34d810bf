package scenario

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// driverName is what trivet-csi is called in the API.
const driverName = "csi.trivet.dev"

// selectedNode is the annotation of claims by which the scheduler says where a volume is to be made.
const selectedNode = "volume.kubernetes.io/selected-node"

// object is one of the API, or a part of one.
type object = map[string]any

// wish is what a claim asks for. What is "" has a default.
type wish struct {
	name     string
	class    string // the default one
	size     string // 64Mi
	mode     string // ReadWriteOnce
	selected string // node that is selected already
	volume   string // PersistentVolume
}

func (w wish) claim() object {
	metadata := object{"name": w.name}
	if w.selected != "" {
		metadata["annotations"] = object{selectedNode: w.selected}
	}

	spec := object{
		"accessModes": []string{cmp.Or(w.mode, "ReadWriteOnce")},
		"resources":   object{"requests": object{"storage": cmp.Or(w.size, "64Mi")}},
	}
	if w.class != "" {
		spec["storageClassName"] = w.class
	}
	if w.volume != "" {
		spec["volumeName"] = w.volume
	}

	return object{
		"apiVersion": "v1",
		"kind":       "PersistentVolumeClaim",
		"metadata":   metadata,
		"spec":       spec,
	}
}

// user is a pod that has a claim's volume at /data, and may be wherever the scheduler wants it.
func user(name, claim string) object {
	return podWith(name, object{"persistentVolumeClaim": object{"claimName": claim}})
}

// podWith is a pod with a volume at /data.
func podWith(name string, volume object) object {
	volume["name"] = "data"
	return object{
		"apiVersion": "v1",
		"kind":       "Pod",
		"metadata":   object{"name": name},
		"spec": object{
			"terminationGracePeriodSeconds": 2,
			"volumes":                       []object{volume},
			"containers": []object{{
				"name":         "c",
				"image":        "docker.io/trivet/demo:1",
				"command":      []string{"sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"},
				"volumeMounts": []object{{"name": "data", "mountPath": "/data"}},
			}},
		},
	}
}

// on has a pod be on a node, by a way that leads through the scheduler.
func on(node string, pod object) object {
	pod["spec"].(object)["nodeSelector"] = object{"kubernetes.io/hostname": node}
	return pod
}

// preferring has a pod be on a node if that can be.
func preferring(node string, pod object) object {
	is := object{"key": "kubernetes.io/hostname", "operator": "In", "values": []string{node}}
	term := object{"weight": 100, "preference": object{"matchExpressions": []object{is}}}
	pod["spec"].(object)["affinity"] = object{"nodeAffinity": object{
		"preferredDuringSchedulingIgnoredDuringExecution": []object{term},
	}}
	return pod
}

// applyAll creates objects with one call.
func (c *cluster) applyAll(objects ...object) {
	c.t.Helper()
	list, err := json.Marshal(object{"apiVersion": "v1", "kind": "List", "items": objects})
	if err != nil {
		c.t.Fatal(err)
	}
	c.apply(string(list))
}

// storageClass makes one of the driver until the test ends. Volumes are on the nodes that are named, or on
// all if none is.
func (c *cluster) storageClass(name, mode string, parameters object, nodes ...string) {
	c.t.Helper()
	class := object{
		"apiVersion":        "storage.k8s.io/v1",
		"kind":              "StorageClass",
		"metadata":          object{"name": name},
		"provisioner":       driverName,
		"volumeBindingMode": mode,
		"parameters":        parameters,
	}
	if len(nodes) > 0 {
		class["allowedTopologies"] = []object{{"matchLabelExpressions": []object{
			{"key": "topology." + driverName + "/node", "values": nodes},
		}}}
	}

	c.applyAll(class)
	c.t.Cleanup(func() { c.kubectl("delete", "storageclass", name, "--ignore-not-found", "--wait=false") })
}

// get is a field of an object, or several.
func (c *cluster) get(name, path string) string {
	c.t.Helper()
	return c.kubectl("get", name, "-o", "jsonpath="+path)
}

// awaitField waits until a field of an object has a value.
func (c *cluster) awaitField(name, path, want string) {
	c.t.Helper()
	c.eventually(time.Minute, path+" of "+name, func() error {
		got, err := c.try("get", name, "-o", "jsonpath="+path)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q, want %q", got, want)
		}
		return err
	})
}

// selected is the field with the node that is selected for a claim's volume.
var selected = "{.metadata.annotations." + strings.ReplaceAll(selectedNode, ".", `\.`) + "}"

func (c *cluster) awaitBound(claims ...string) {
	c.t.Helper()
	args := []string{"wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s"}
	for _, name := range claims {
		args = append(args, "pvc/"+name)
	}
	c.kubectl(args...)
}

// awaitGone waits until objects ("pvc/data") are gone.
func (c *cluster) awaitGone(names ...string) {
	c.t.Helper()
	c.kubectl(slices.Concat([]string{"wait", "--for=delete", "--timeout=60s"}, names)...)
}

// awaitUnschedulable waits until the scheduler says why there is no node for a pod.
func (c *cluster) awaitUnschedulable(pod, why string) {
	c.t.Helper()
	c.eventually(time.Minute, "no node for "+pod, func() error {
		got, err := c.try("get", "pod", pod, "-o",
			`jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}`)
		if err == nil && !strings.Contains(got, why) {
			err = fmt.Errorf("the scheduler says %q, want %q", got, why)
		}
		return err
	})
}

// second is a node beside that of the test; "" where there is none.
func (c *cluster) second() string {
	for _, n := range c.plan().Nodes {
		if n.Name != c.node {
			return n.Name
		}
	}
	return ""
}

// anotherNode is second; the test is skipped where there is none.
func (c *cluster) anotherNode() string {
	c.t.Helper()
	node := c.second()
	if node == "" {
		c.t.Skip("this cluster has one node")
	}
	return node
}

// driverRuns has the test end with a driver that runs on its node.
func (c *cluster) driverRuns() {
	c.t.Cleanup(func() { _, _ = c.cluster("start", c.node, "trivet-csi") })
}

// awaitDriver waits until the driver is entered in the test's node, or is not.
func (c *cluster) awaitDriver(entered bool) {
	c.t.Helper()
	c.eventually(time.Minute, "the driver's entry in the CSINode", func() error {
		names, err := c.try("get", "csinode", c.node, "-o", "jsonpath={.spec.drivers[*].name}")
		if err == nil && strings.Contains(names, driverName) != entered {
			err = errors.New("drivers: " + names)
		}
		return err
	})
}

// mountsOf are the lines of the test's node's mountinfo that are about a PersistentVolume on paths of pods.
func (c *cluster) mountsOf(pv string) []string {
	c.t.Helper()
	out := c.onNode("", "grep -F '/kubernetes.io~csi/%s/mount ' /proc/self/mountinfo || true", pv)
	return strings.Split(strings.TrimSpace(out), "\n")
}
