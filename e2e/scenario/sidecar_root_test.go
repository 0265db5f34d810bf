package scenario

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/trivet-node/trivet/e2e/pki"
)

// mesh has a webhook that puts a proxy into pods.
type mesh struct {
	*cluster

	// values are those of the templates in testdata.
	values map[string]string
}

// withInjector starts the webhook and a store that pods use, not on the test's node.
func withInjector(c *cluster) *mesh {
	c.t.Helper()
	m := &mesh{cluster: c, values: map[string]string{"Namespace": c.namespace, "Node": c.node}}
	m.certify()
	c.t.Cleanup(func() {
		_, _ = c.try("uncordon", c.node)
		if c.t.Failed() {
			out, _ := c.try("logs", "deployment/injector", "--tail=50")
			c.t.Log(out)
		}
		c.kubectl("delete", "mutatingwebhookconfiguration", "--ignore-not-found",
			c.namespace+"-1-proxy", c.namespace+"-2-watch")
	})

	m.template("injector.yaml")
	c.awaitReady(time.Minute, "store")
	c.kubectl("rollout", "status", "deployment/injector", "--timeout=60s")
	return m
}

// certify makes the key of the webhook, and the authority that the API server trusts for it.
func (m *mesh) certify() {
	m.t.Helper()
	dir := pki.Dir(m.t.TempDir())
	authority, err := dir.Authority("ca")
	if err != nil {
		m.t.Fatal(err)
	}
	if err := dir.Server(authority, "webhook", "injector", "injector."+m.namespace+".svc"); err != nil {
		m.t.Fatal(err)
	}

	for value, file := range map[string]string{
		"Authority":   "ca.crt",
		"Certificate": "webhook.crt",
		"Key":         "webhook.key",
	} {
		data, err := os.ReadFile(dir.Path(file))
		if err != nil {
			m.t.Fatal(err)
		}

		m.values[value] = base64.StdEncoding.EncodeToString(data)
	}
}

// template applies a file of testdata.
func (m *mesh) template(file string) {
	m.t.Helper()
	parsed, err := template.ParseFiles(filepath.Join("testdata", file))
	if err != nil {
		m.t.Fatal(err)
	}

	var text bytes.Buffer
	if err := parsed.Execute(&text, m.values); err != nil {
		m.t.Fatal(err)
	}
	m.apply(text.String())
}

func TestInjectedProxyRunsBeforeAndAfterTheApplication(t *testing.T) {
	m := withInjector(open(t))
	m.template("proxied.yaml")
	m.kubectl("rollout", "status", "deployment/app", "--timeout=90s")
	app := m.app()
	const order = "{.spec.initContainers[*].name} {.spec.containers[*].name}"
	if got := m.show(app, order); got != "sidecar-redirect sidecar-proxy prepare app" {
		t.Errorf("containers %q", got)
	}
	m.said(app, "start: reached\n")

	// What the API server asks the application passes the proxy, too.
	m.get(app, "8080/proxy/healthz")
	if passed := m.passed(app); passed.Outbound < 2 || passed.Inbound < 1 {
		t.Errorf("the proxy has passed on %+v", passed)
	}

	m.kubectl("wait", "job/batch", "--for=condition=Complete", "--timeout=60s")

	m.drained(app)
	m.rebooted()
}

// app is the pod of the application.
func (m *mesh) app() string {
	m.t.Helper()
	return m.kubectl("get", "pods", "-l", "app=app", "-o", "jsonpath={.items[0].metadata.name}")
}

func (m *mesh) said(pod, want string) {
	m.t.Helper()
	if got := m.kubectl("logs", pod, "-c", "app"); !strings.HasPrefix(got, want) {
		m.t.Errorf("%s says %q, want %q", pod, got, want)
	}
}

// get asks a port of a pod through the API server.
func (m *mesh) get(pod, path string) string {
	m.t.Helper()
	return m.kubectl("get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:%s", m.namespace, pod, path))
}

// connections are what a proxy has passed on.
type connections struct{ Inbound, Outbound int }

func (m *mesh) passed(pod string) (c connections) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.get(pod, "15020/proxy/state")), &c); err != nil {
		m.t.Fatal(err)
	}
	return c
}

// drained drains the node of the application, which reaches the store until it ends.
func (m *mesh) drained(app string) {
	m.t.Helper()
	said := make(chan string, 1)
	go func() {
		out, err := m.try("logs", "--follow", app, "-c", "app")
		said <- fmt.Sprint(out, err)
	}()

	m.kubectl("drain", m.node, "--pod-selector=app=app", "--delete-emptydir-data", "--timeout=90s")
	got := <-said
	if !strings.Contains(got, "start: reached\n") || !strings.Contains(got, "end: reached\n") {
		m.t.Errorf("the application says %q", got)
	}

	m.kubectl("uncordon", m.node)
	m.kubectl("rollout", "status", "deployment/app", "--timeout=90s")
	m.said(m.app(), "start: reached\n")
}

// rebooted reboots the node of the application, whose containers start in their order once more.
func (m *mesh) rebooted() {
	m.t.Helper()
	app := m.app()
	m.do("reboot", m.node)
	m.eventually(2*time.Minute, "restart of "+app, func() error {
		if got := m.restarts(app); got != "1" {
			return fmt.Errorf("restarted %s times, want once", got)
		}

		return nil
	})
	m.awaitReady(time.Minute, app)
	m.said(app, "start: reached\n")
}

// labelled is a pod with a port, and the labels that webhooks go by.
func labelled(name, labels string) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q, "labels": %s}, "spec": {
		"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": "docker.io/trivet/demo:1",
		"command": ["sh", "-c", "mkdir -p /tmp/kv && exec demo serve --data=/tmp"],
		"ports": [{"containerPort": 8080}]}]}}`, name, labels)
}

const initNames = "{.spec.initContainers[*].name}"

func TestWebhooksAreAskedAgainAndFailAsTheirPolicySays(t *testing.T) {
	m := withInjector(open(t))

	// The second webhook adds a container with a port, and the first one is asked again.
	m.apply(labelled("both", `{"sidecar": "required", "watch": "wanted"}`))
	m.awaitReady(time.Minute, "both")
	const ports = `{.spec.initContainers[0].args[1]} {.spec.containers[*].name}`
	if got := m.show("both", ports); got != "--ports=8080,8081 web watch" {
		t.Errorf("ports and containers %q", got)
	}

	before := m.passed("both").Inbound
	m.get("both", "8081/proxy/state")
	if now := m.passed("both").Inbound; now <= before {
		t.Errorf("%d connections were passed on before and %d after", before, now)
	}

	// Without the webhook a pod that needs it is refused, and one that does not runs without the proxy.
	m.kubectl("scale", "deployment/injector", "--replicas=0")
	m.kubectl("wait", "pod", "-l", "app=injector", "--for=delete", "--timeout=60s")
	_, err := m.kubectlWith(labelled("refused", `{"sidecar": "required"}`), "create", "-f-")
	if err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("a pod that needs the webhook: %v, want a refusal", err)
	}

	m.apply(labelled("without", `{"sidecar": "optional"}`))
	m.awaitReady(time.Minute, "without", "both")
	if got := m.show("without", initNames); got != "" {
		t.Errorf("init containers %q although the webhook was not there", got)
	}

	// With it both are as they are wanted.
	m.kubectl("scale", "deployment/injector", "--replicas=1")
	m.kubectl("rollout", "status", "deployment/injector", "--timeout=60s")
	m.eventually(30*time.Second, "admission", func() error {
		_, err := m.kubectlWith(labelled("admitted", `{"sidecar": "required"}`), "apply", "-f-")
		return err
	})
	m.apply(labelled("with", `{"sidecar": "optional"}`))
	m.awaitReady(time.Minute, "admitted", "with")
	for _, pod := range []string{"admitted", "with"} {
		if got := m.show(pod, initNames); got != "sidecar-redirect sidecar-proxy" {
			t.Errorf("init containers of %s: %q", pod, got)
		}
	}
}
