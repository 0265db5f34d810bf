package smoke

import (
	"context"
	"embed"
	"fmt"
	"strings"
)

// space is the name of the namespace.
const space = "smoke"

// namespace is where everything is made.
type namespace Smoke

//go:embed *.yaml
var manifests embed.FS

// prepare runs an application: a pod with a volume on each node behind a Service.
func (s namespace) prepare(ctx context.Context) error {
	if _, err := s.Cluster.Kubectl(ctx, "", "create", "namespace", space); err != nil {
		return err
	}
	if err := s.apply(ctx, "service.yaml"); err != nil {
		return err
	}
	if err := s.applyEach(ctx, "app.yaml"); err != nil {
		return err
	}
	return s.ready(ctx, "app=app")
}

// clean returns when nothing is left, volumes included.
func (s namespace) clean(ctx context.Context) error {
	volumes, err := s.kubectl(ctx, "get", "persistentvolumeclaims", "-o",
		`jsonpath={range .items[*]}{.spec.volumeName} {end}`)
	if err != nil {
		return err
	}

	_, err = s.Cluster.Kubectl(ctx, "", "delete", "namespace", space, "--ignore-not-found", patience)
	if err != nil || strings.TrimSpace(volumes) == "" {
		return err
	}

	wait := append([]string{"wait", "--for=delete", patience, "persistentvolume"}, strings.Fields(volumes)...)
	_, err = s.Cluster.Kubectl(ctx, "", wait...)
	return err
}

// patience is how long kubectl waits.
const patience = "--timeout=2m"

func (s namespace) kubectl(ctx context.Context, args ...string) (string, error) {
	return s.Cluster.Kubectl(ctx, "", append([]string{"-n", space}, args...)...)
}

// apply applies a manifest; pairs are what is replaced in it, and by what.
func (s namespace) apply(ctx context.Context, name string, pairs ...string) error {
	data, err := manifests.ReadFile(name)
	if err != nil {
		return err
	}

	text := strings.NewReplacer(pairs...).Replace(string(data))
	_, err = s.Cluster.Kubectl(ctx, text, "-n", space, "apply", "-f", "-")
	return err
}

// applyEach applies a manifest for every node, whose name replaces NODE.
func (s namespace) applyEach(ctx context.Context, name string, pairs ...string) error {
	for _, node := range s.Nodes {
		if err := s.apply(ctx, name, append([]string{"NODE", node}, pairs...)...); err != nil {
			return err
		}
	}
	return nil
}

// ready returns when the pods that a selector names are Ready.
func (s namespace) ready(ctx context.Context, selector string) error {
	_, err := s.kubectl(ctx, "wait", "--for=condition=Ready", patience, "pod", "-l", selector)
	if err == nil {
		return nil
	}

	// What kubectl says is that time is over.
	events, _ := s.kubectl(ctx, "get", "events", "--field-selector=type=Warning", "-o",
		`jsonpath={range .items[*]}{.involvedObject.name}: {.message}{"\n"}{end}`)
	return fmt.Errorf("%w; warnings: %s", err, strings.Join(strings.Fields(events), " "))
}

// lines are those of a JSON path for each item of a list.
func (s namespace) lines(ctx context.Context, path string, args ...string) ([]string, error) {
	get := append([]string{"get"}, args...)
	out, err := s.kubectl(ctx, append(get, "-o", "jsonpath={range .items[*]}"+path+`{"\n"}{end}`)...)
	return strings.Split(strings.TrimSpace(out), "\n"), err
}

// onApp runs a shell script in the application's container on a node and returns what it prints.
func (s namespace) onApp(ctx context.Context, node, script string) (string, error) {
	return s.kubectl(ctx, "exec", "deployment/app-"+node, "-c", "server", "--", "sh", "-ec", script)
}
