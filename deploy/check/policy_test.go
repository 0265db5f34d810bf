package check

import (
	"os"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"
)

// admit evaluates a policy as the API server does, and returns the expression that refuses the request;
// empty: none.
func admit(t *testing.T, p *admissionregistrationv1.ValidatingAdmissionPolicy, input map[string]any) string {
	t.Helper()

	options := []cel.EnvOption{cel.OptionalTypes()}
	for _, name := range []string{"object", "oldObject", "request", "params", "variables"} {
		options = append(options, cel.Variable(name, cel.DynType))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		t.Fatal(err)
	}

	variables := map[string]any{}
	input["variables"] = variables
	evaluate := func(expression string) any {
		ast, issues := env.Compile(expression)
		if issues.Err() != nil {
			t.Fatalf("%s: %v", expression, issues.Err())
		}
		program, err := env.Program(ast)
		if err != nil {
			t.Fatal(err)
		}
		value, _, err := program.Eval(input)
		if err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		return value.Value()
	}

	for _, v := range p.Spec.Variables {
		variables[v.Name] = evaluate(v.Expression)
	}
	for _, v := range p.Spec.Validations {
		if evaluate(v.Expression) != true {
			return v.Message + v.MessageExpression
		}
	}
	return ""
}

func TestInstallersMayWriteWhatIsTheirsOfTheirNode(t *testing.T) {
	const before = `
metadata:
  name: n1
  labels: {zone: a}
  annotations: {theirs: x, installer.trivet.dev/cri: y}
spec: {podCIDR: 10.0.0.0/24, taints: [{key: a, effect: NoSchedule}]}`

	for name, c := range map[string]struct{ from, to, refused string }{
		"nothing":                {"", "", ""},
		"cordon":                 {"spec: {", "spec: {unschedulable: true, ", ""},
		"own label":              {"zone: a", "zone: a, installer.trivet.dev/cri: present", ""},
		"own annotation":         {", installer.trivet.dev/cri: y", "", ""},
		"another node":           {"name: n1", "name: n2", "own Node only"},
		"label":                  {"zone: a", "zone: b", "labels"},
		"label more":             {"zone: a", "zone: a, node-role.kubernetes.io/control-plane: x", "labels"},
		"label less":             {"zone: a", "", "labels"},
		"annotation less":        {"theirs: x, ", "", "annotations"},
		"annotation":             {"theirs: x", "theirs: z", "annotations"},
		"finalizer":              {"name: n1", "name: n1\n  finalizers: [x]", "finalizers"},
		"taint":                  {"key: a", "key: b", "unschedulable"},
		"no taints":              {", taints: [{key: a, effect: NoSchedule}]", "", "unschedulable"},
		"provider":               {"spec: {", "spec: {providerID: x, ", "unschedulable"},
		"labels where none were": {"  labels: {zone: a}\n", "", "labels"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, part := range []string{"../cri", "../node"} {
				for _, object := range render(t, part) {
					policy, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy)
					if !ok {
						continue
					}

					after := strings.Replace(before, c.from, c.to, 1)
					extra := map[string]any{"authentication.kubernetes.io/node-name": []any{"n1"}}
					why := admit(t, policy, map[string]any{
						"object":    document(t, after),
						"oldObject": document(t, before),
						"request":   map[string]any{"userInfo": map[string]any{"extra": extra}},
					})
					if (why == "") != (c.refused == "") || !strings.Contains(why, c.refused) {
						t.Errorf("%s: refused because %q, want %q", part, why, c.refused)
					}
				}
			}
		})
	}
}

// A node exists if it has the name, or the label, that volumes have.
func TestVolumesOfNodesThatExistAreNotForgotten(t *testing.T) {
	text, err := os.ReadFile("../csi/forget/forget.yaml")
	if err != nil {
		t.Fatal(err)
	}

	var missing *admissionregistrationv1.ValidatingAdmissionPolicy
	for _, object := range decode(t, text) {
		policy, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy)
		if ok && policy.Name == "trivet-csi-forget-missing" {
			missing = policy
		}
	}
	if missing == nil {
		t.Fatal("there is no policy trivet-csi-forget-missing")
	}

	const pv = `spec: {nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [
		{key: topology.csi.trivet.dev/node, operator: In, values: [n1]}]}]}}}`
	for node, refused := range map[string]bool{
		"{name: n1}":                     true,
		"{name: n2}":                     false,
		"{name: n2, labels: {zone: n1}}": false,
		"{name: n2, labels: {topology.csi.trivet.dev/node: n1}}": true,
		"{name: n2, labels: {topology.csi.trivet.dev/node: n2}}": false,
	} {
		why := admit(t, missing, map[string]any{
			"oldObject": document(t, pv),
			"params":    document(t, "metadata: "+node),
		})
		if (why != "") != refused {
			t.Errorf("node %s: refused because %q, want refused: %t", node, why, refused)
		}
	}
}

func document(t *testing.T, text string) (object map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	return object
}
