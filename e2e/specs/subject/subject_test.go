package subject

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/machine"
)

func TestSeatsAreNamedOnceForNodesThatAreAlike(t *testing.T) {
	systemd := seat.Ours
	systemd.Init = machine.Systemd
	nodes := []cluster.Node{
		{Seats: seat.Ours}, {Seats: seat.Ours}, {Seats: systemd}, {Seats: seat.Reference},
	}
	const want = "trivet-node trivet-cri trivet-cni crun + " +
		"trivet-node trivet-cri trivet-cni crun systemd + kubelet containerd upstream runc"
	if got := seats(nodes); got != want {
		t.Errorf("seats %q, want %q", got, want)
	}
}

func TestDigestIsThatOfThePrograms(t *testing.T) {
	dir := t.TempDir()
	digest := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}

		d, err := digestOf(dir)
		if err != nil {
			t.Fatal(err)
		}

		return d
	}

	one, same := digest("trivet-node", "1"), digest("trivet-cluster", "1")
	other := digest("trivet-node", "2")
	if one != same || one == other {
		t.Errorf("digests %s, %s, %s: want another one for another trivet-node alone", one, same, other)
	}
}

func TestMachineIsDescribed(t *testing.T) {
	if got := Host(); !regexp.MustCompile(`^\d+ cores, Linux \d+\.\d+\S*, cgroup v[12]$`).MatchString(got) {
		t.Errorf("machine %q", got)
	}
}

func TestCommitOfADirectoryWithoutARepositoryIsUnknown(t *testing.T) {
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(t.TempDir()))
	if got := Commit(t.Context(), t.TempDir()); got != "unknown" {
		t.Errorf("commit %q", got)
	}
}
