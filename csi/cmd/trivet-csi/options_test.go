package main

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/program"
)

func parseArgs(args ...string) (options, error) {
	var out bytes.Buffer
	return parse(&program.Env{
		Name:   "trivet-csi",
		Args:   args,
		Stdout: &out,
		Stderr: &out,
	})
}

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{
		{"--backend=floppy"},
		{"--pool-size=much"},
		{"--pool-size=-1Gi"},
		{"--reserve=much"},
		{"--endpoint=tcp://x"},
		{"--data-dir=relative"},
		{"--state-dir=relative"},
		{"--kubelet-dir="},
		{"--attach-most=-1"},
		{"--volumes-most=-1"},
		{"--volumes-most=2", "--attach-most=2"},
		{"--controllers="},
		{"--controllers=resize,resizer"},
		{"--controllers=resize,resize"},
		{"--no-such-flag"},
		{"extra"},
	} {
		_, err := parseArgs(args...)

		if _, usage := errors.AsType[*program.UsageError](err); !usage {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestFlagsAreCompleted(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	o, err := parseArgs("--endpoint=unix:///run/csi.sock", "--pool-size=10Gi", "--backend=image")
	if err != nil {
		t.Fatal(err)
	}

	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}

	if o.nodeName != host || o.endpoint != "/run/csi.sock" || o.poolSize != 10<<30 || o.backend != "image" ||
		o.reserve != 0 {
		t.Errorf("options %+v", o)
	}
}

func TestNodeHasTheNameThatItsAgentGivesIt(t *testing.T) {
	for kubeconfig, want := range map[string]string{"": "Node-7", "/etc/trivet/csi.kubeconfig": "node-7"} {
		o, err := parseArgs("--node-name=Node-7", "--kubeconfig="+kubeconfig)
		if err != nil || o.nodeName != want {
			t.Errorf("with %q: %q, %v", kubeconfig, o.nodeName, err)
		}
	}
}

func TestReserveIsAPartOfTheDisk(t *testing.T) {
	given, err := reserveOf(options{reserve: 123})
	if err != nil || given != 123 {
		t.Errorf("a reserve of 123 bytes became %d, %v", given, err)
	}
	chosen, err := reserveOf(options{dataDir: t.TempDir()})
	if err != nil || chosen <= 0 || chosen > 2<<30 {
		t.Errorf("the chosen reserve is %d, %v", chosen, err)
	}
}

func TestSecretOfAVolumeIsNamedAsAWhole(t *testing.T) {
	plain := volume.Spec{ID: "v"}
	encrypted, snapshot := plain, plain
	encrypted.Encryption, snapshot.Encryption = volume.Fscrypt, volume.Fscrypt
	snapshot.Snapshot = true

	for _, c := range []struct {
		spec   volume.Spec
		secret string
		ok     bool
	}{
		{plain, "", true},
		{plain, "ns/name", false},
		{snapshot, "", true},
		{snapshot, "ns/name", false},
		{encrypted, "ns/name", true},
		{encrypted, "", false},
		{encrypted, "name", false},
		{encrypted, "/name", false},
		{encrypted, "ns/", false},
		{encrypted, "a/b/c", false},
	} {
		_, err := stageSecret(c.spec, c.secret)
		_, usage := errors.AsType[*program.UsageError](err)
		if usage == c.ok || (err == nil) != c.ok {
			t.Errorf("--secret %q for %+v: %v", c.secret, c.spec, err)
		}
	}
}

func TestControllersAreChosen(t *testing.T) {
	for list, want := range map[string][]string{
		"all":           builtIn,
		"none":          nil,
		"resize,modify": {"resize", "modify"},
	} {
		o, err := parseArgs("--controllers=" + list)
		if err != nil || !slices.Equal(o.controllers, want) {
			t.Errorf("%s: %v, %v", list, o.controllers, err)
		}
		if work := (&controllers{chosen: o.controllers}).own(); len(work) != len(want) {
			t.Errorf("%s: %d of %d controllers", list, len(work), len(want))
		}
	}
	if o, err := parseArgs(); err != nil || !slices.Equal(o.controllers, builtIn) {
		t.Errorf("by default: %v, %v", o.controllers, err)
	}

	// Nobody is asked, whatever there is to ask with.
	control, err := newControllers(nil, options{kubeconfig: "/none"}, nil)
	if control != nil || err != nil {
		t.Errorf("without any: %v, %v", control, err)
	}
}
