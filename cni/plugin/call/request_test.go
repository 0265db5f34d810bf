package call_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/plugin/call"
)

// environment is one in which everything is as it should be, changed by pairs of name and value.
func environment(verb string, changes ...string) func(string) string {
	variables := map[string]string{
		"CNI_COMMAND":     verb,
		"CNI_CONTAINERID": "a-1",
		"CNI_NETNS":       "/run/netns/a",
		"CNI_IFNAME":      "eth0",
		"CNI_PATH":        "/opt/cni/bin",
	}
	for i := 0; i < len(changes); i += 2 {
		variables[changes[i]] = changes[i+1]
	}
	return func(name string) string { return variables[name] }
}

func TestARequestIsTheEnvironmentAndStandardInput(t *testing.T) {
	env := environment("ADD", "CNI_ARGS", "IP=10.0.0.2", "CNI_NETNS_OVERRIDE", "True")
	got, err := call.ReadRequest(env, strings.NewReader("{}"))
	want := call.Request{
		Verb:        "ADD",
		ContainerID: "a-1",
		Netns:       "/run/netns/a",
		IfName:      "eth0",
		AnyNetns:    true,
		Args:        "IP=10.0.0.2",
		Stdin:       []byte("{}"),
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestARequestThatLacksSomethingNamesIt(t *testing.T) {
	for _, c := range []struct {
		verb, name, value, want string
	}{
		{"ADD", "CNI_NETNS", "", "required env variables [CNI_NETNS] missing"},
		{"CHECK", "CNI_PATH", "", "required env variables [CNI_PATH] missing"},
		{"GC", "CNI_PATH", "", "required env variables [CNI_PATH] missing"},
		{"DEL", "CNI_CONTAINERID", "", "required env variables [CNI_CONTAINERID] missing"},
		{"DEL", "CNI_CONTAINERID", "../a", "invalid characters in containerID; ../a"},
		{"ADD", "CNI_IFNAME", "eth0123456789abc", "interface name is too long"},
		{"ADD", "CNI_IFNAME", "..", "interface name is . or .."},
		{"ADD", "CNI_IFNAME", "a/b", "interface name contains / or :"},
		{"ADD", "CNI_IFNAME", "a\u00a0b", "interface name contains / or :"},
	} {
		_, err := call.ReadRequest(environment(c.verb, c.name, c.value), strings.NewReader("{}"))
		failure, ok := errors.AsType[*types.Error](err)
		if !ok || failure.Code != types.ErrInvalidEnvironmentVariables ||
			!strings.HasPrefix(failure.Error(), c.want) {
			t.Errorf("%s with %s=%q: %v", c.verb, c.name, c.value, err)
		}
	}
}

func TestARequestIsNotRefusedForWhatItsVerbDoesWithout(t *testing.T) {
	for _, c := range []struct{ verb, name, value string }{
		{"DEL", "CNI_NETNS", ""},
		{"GC", "CNI_CONTAINERID", "../a"},
		{"STATUS", "CNI_IFNAME", ""},
		{"VERSION", "CNI_PATH", ""},
	} {
		_, err := call.ReadRequest(environment(c.verb, c.name, c.value), strings.NewReader("{}"))
		if err != nil {
			t.Errorf("%s with %s=%q: %v", c.verb, c.name, c.value, err)
		}
	}
}

// FuzzName compares which names are valid with what CNI's library says.
func FuzzName(f *testing.F) {
	for _, name := range []string{"", "a", "a-1_b.c", "-a", "a\n", "ä", "a/b", "0"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if want := utils.ValidateContainerID(name) == nil; call.IsName(name) != want {
			t.Errorf("%q: %v, CNI's library says %v", name, !want, want)
		}
	})
}
