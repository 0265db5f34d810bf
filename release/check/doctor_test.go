package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// noServer are credentials for an API server that nobody runs.
const noServer = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`

// patient is a part of which nothing is there.
type patient struct {
	program string
	args    []string

	// says are the beginnings of lines; each line that says that something is wrong begins so.
	says []string
}

// patients are in directories of their own.
func patients(t *testing.T) []patient {
	t.Helper()
	dir, credentials := t.TempDir(), filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(credentials, []byte(noServer), 0o600); err != nil {
		t.Fatal(err)
	}

	return []patient{
		{
			program: "trivet-csi",
			args: []string{
				"--data-dir=" + dir,
				"--state-dir=" + dir + "/s",
				"--kubelet-dir=" + dir + "/k",
			},
			says: []string{
				"ok     disk of " + dir + ": 0 promised to volumes, ",
				"ok     pool " + dir + "/pool.img: there is none",
				"ok     records: 0 volumes and 0 snapshots ",
				"ok     use: 0 volumes are staged, ",
				"ok     leaks: no mount, device, quota group or file was left behind",
				"note   API: it was not asked",
			},
		},
		{
			program: "trivet-netd",
			args:    []string{"--kubeconfig=" + credentials, "--conf-dir=" + dir, "--node-name=n"},
			says: []string{
				"ok     links of kind bridge: can be made",
				"ok     links of kind veth: can be made",
				"wrong  " + dir + "/10-trivet.conflist: there is no network configuration",
				"wrong  API server: waiting for the API server: ",
			},
		},
	}
}

// missingCalls are lines of qemu-user, which lacks calls of the kernel that it runs on.
var missingCalls = []string{"wrong  kernel ", "wrong  nftables"}

// look compares what a doctor says, and how it ends, with what is to be said.
func (p patient) look(t *testing.T, out string, ended error, emulated bool) {
	t.Helper()
	expected := p.says
	if emulated {
		expected = slices.Concat(p.says, missingCalls)
	}

	wrong := false
	for line := range strings.Lines(out) {
		begins := func(text string) bool { return strings.HasPrefix(line, text) }
		if begins("wrong") && !slices.ContainsFunc(expected, begins) {
			t.Errorf("it says %q", line)
		}
		wrong = wrong || begins("wrong")
	}
	for _, want := range p.says {
		if !strings.Contains("\n"+out, "\n"+want) {
			t.Errorf("no line begins with %q", want)
		}
	}
	if (ended != nil) != wrong {
		t.Errorf("it says that something is wrong: %v, and ends with %v", wrong, ended)
	}
	if t.Failed() {
		t.Logf("it says:\n%s", out)
	}
}

// TestDoctorsSayWhatIsThereAndWhatIsNot runs them in a network of their own, where no part is. What they find
// there is asked of the kernel, through qemu-user for programs of another architecture.
func TestDoctorsSayWhatIsThereAndWhatIsNot(t *testing.T) {
	testenv.Root(t)
	for _, arch := range []string{"amd64", "arm64"} {
		for _, p := range patients(t) {
			t.Run(p.program+"/"+arch, func(t *testing.T) {
				t.Parallel()
				program := files(t, "linux-"+arch+"/"+p.program)[0]
				command := runner(t, arch)
				run := slices.Concat([]string{"unshare", "--net", "--"}, command,
					[]string{program, "doctor"}, p.args)
				out, err := exec.Command(run[0], run[1:]...).CombinedOutput()
				p.look(t, string(out), err, len(command) > 0)
			})
		}
	}
}
