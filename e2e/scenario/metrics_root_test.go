package scenario

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// web serves HTTP and is scaled by the processor time that its pods use of what they request, without a delay
// when they use less. The requests of the client are some twenty times as much as one pod should have.
const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: docker.io/trivet/demo:1
        command: [sh, -c, "demo init --data=/tmp/web && exec demo serve --data=/tmp/web"]
        resources: {requests: {cpu: 10m}}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
`

// used is a line of kubectl top: a name, processor time that is not zero, memory that is not zero.
var used = regexp.MustCompile(`^(\S+) +([1-9]\d*m) .*\b([1-9]\d*Mi)\b`)

// top waits until kubectl top shows each of the names with what it uses.
func (c *cluster) top(kind string, names ...string) {
	c.t.Helper()
	c.eventually(2*time.Minute, "top "+kind, func() error {
		out, err := c.try("top", kind, "--no-headers")
		if err != nil {
			return err
		}

		shown := map[string]bool{}
		for line := range strings.Lines(out) {
			if fields := used.FindStringSubmatch(line); fields != nil {
				shown[fields[1]] = true
			}
		}

		for _, name := range names {
			if !shown[name] {
				return fmt.Errorf("what %s uses is not shown in:\n%s", name, out)
			}
		}

		return nil
	})
}

// scaledTo waits until the autoscaler has brought the Deployment to a number of pods that are ready.
func (c *cluster) scaledTo(replicas string) {
	c.t.Helper()
	c.eventually(3*time.Minute, "scaled to "+replicas, func() error {
		const state = "{.spec.replicas}/{.status.readyReplicas}/{.status.replicas}"
		got, err := c.try("get", "deployment", "web", "-o", "jsonpath="+state)
		if err != nil {
			return err
		}
		if want := replicas + "/" + replicas + "/" + replicas; got != want {
			scaler, _ := c.try("get", "horizontalpodautoscaler", "web", "--no-headers")
			return fmt.Errorf("replicas wanted/ready/there %s; %s", got, strings.TrimSpace(scaler))
		}

		return nil
	})
}

// TestAutoscalerFollowsTheLoadThatNodesOfEitherAgentReport has metrics-server ask a node of each agent.
func TestAutoscalerFollowsTheLoadThatNodesOfEitherAgentReport(t *testing.T) {
	c := open(t)
	own, other := "trivet", "kubelet"
	if c.agent == "kubelet" {
		own, other = "kubelet", "trivet"
	}

	t.Cleanup(func() {
		c.do("remove", "metrics-server")
		c.do("agent", c.node, own)
	})

	c.do("install", "metrics-server")
	c.do("agent", c.node, other)
	c.apply(web)
	c.pod("client", "while :; do wget -q -O /dev/null http://web/version || sleep 1; done")
	c.awaitReady(time.Minute, "client")

	c.top("nodes", strings.Fields(c.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"))...)
	c.top("pods", "client")
	c.scaledTo("3")
	c.top("pods", strings.Fields(c.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}"))...)

	c.kubectl("delete", "pod", "client")
	c.scaledTo("1")
}
