package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/csi/survey"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/projectquota"
)

// withQuota are facts of a healthy node that has a volume with a project quota, too.
func withQuota() Facts {
	f := healthy()
	f.set("pvc-2", "ready", func(r *volume.Recorded) { r.Backend, r.FSType = "quota", "xfs" })
	delete(f.Pool.Volumes, "pvc-2")
	f.API.Volumes = append(f.API.Volumes, pvOf(f.API.Local, "pvc-2"))
	f.Quota = survey.Quota{
		Root:    "/data/quota/volumes",
		Disk:    holding("xfs"),
		Volumes: map[string]survey.Directory{"pvc-2": {Used: 1 << 20, Limit: gib}},
	}
	return f
}

// holding is the state of a disk on which limits of projects hold.
func holding(kind string) projectquota.State {
	return projectquota.State{
		FileSystem: kind,
		Kernel:     true,
		Counts:     true,
		Holds:      true,
	}
}

func TestNothingIsWrongWithProjectQuotas(t *testing.T) {
	found := Findings(withQuota())
	if IsWrong(found) || !strings.Contains(text(found), "ok     project quotas of /data: xfs, 1 volumes") {
		t.Error(text(found))
	}

	// Nor with a disk without, if no volume needs them.
	f := healthy()
	f.Quota.Disk = projectquota.State{FileSystem: "ext4", Kernel: true}
	found = Findings(f)
	if IsWrong(found) || !strings.Contains(text(found), "tune2fs -O project,quota") {
		t.Error(text(found))
	}
}

// While their disk is not mounted nobody is told to restore or delete volumes.
func TestDirectoryOfQuotasThatIsNotThereIsNamed(t *testing.T) {
	f := withQuota()
	f.Quota.Volumes = nil
	found := text(Findings(f))
	want := "wrong  directory /data/quota/volumes: it is not there, and has 1 volumes; mount its disk"
	if !strings.Contains(found, want) || strings.Contains(found, "volume pvc-2") {
		t.Error(found)
	}
}

func TestWhatIsWrongWithProjectQuotasIsNamed(t *testing.T) {
	for want, v := range map[string]survey.Directory{
		"wrong  volume pvc-2: its directory has no limit":    {},
		"wrong  volume pvc-2: its limit is 1Mi, its size":    {Limit: 1 << 20},
		"wrong  volume pvc-2: it takes 2Gi, its size is 1Gi": {Limit: gib, Used: 2 * gib},
	} {
		f := withQuota()
		f.Quota.Volumes["pvc-2"] = v
		if found := text(Findings(f)); !strings.Contains(found, want) {
			t.Errorf("nothing begins with %q in\n%s", want, found)
		}
	}

	f := withQuota()
	f.Quota.Volumes = map[string]survey.Directory{"pvc-3": {}}
	f.Quota.Unknown = []string{"/data/quota/volumes/x"}
	f.Quota.Deleting = []survey.Deleting{
		{ID: "pvc-4", Files: 9},
		{ID: "pvc-5", Files: 9, Age: time.Hour},
		{ID: "pvc-6", Files: 9, Age: time.Hour, Empty: true},
	}
	f.Quota.Disk.Holds = false
	found := text(Findings(f))
	for _, want := range []string{
		"wrong  project quotas of /data: the sizes of 1 volumes do not hold: its xfs counts",
		"wrong  volume pvc-2: its directory is not in /data/quota/volumes; restore",
		"wrong  directory of volume pvc-3 in /data/quota/volumes: it has no record",
		"note   file /data/quota/volumes/x: it is of no volume",
		"wrong  deleted volume pvc-5: its deletion has shown nothing for 1h0m0s, and 9 files are left",
		"wrong  deleted volume pvc-6: 8 files are charged to it that are elsewhere",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("nothing begins with %q in\n%s", want, found)
		}
	}
	if strings.Contains(found, "pvc-4") {
		t.Errorf("a deletion that has just begun is named in\n%s", found)
	}
}

func TestVolumesOfOneProjectAreWrong(t *testing.T) {
	f := withQuota()
	f.Quota.Volumes["pvc-2"] = survey.Directory{Used: 1, Limit: gib, Project: 7}
	f.Quota.Volumes["pvc-3"] = survey.Directory{Used: 1, Limit: gib, Project: 7}
	found := text(Findings(f))
	if !strings.Contains(found, "wrong  volume pvc-2: its directory says project 7") {
		t.Error(found)
	}
}

// What a volume takes beyond its size, or without a record, is there for nobody.
func TestOnlyWhatVolumesMayTakeIsThereForThem(t *testing.T) {
	of := func(used int64) string {
		f := withQuota()
		f.Quota.Volumes["pvc-2"] = survey.Directory{Used: used, Limit: gib}
		f.Quota.Volumes["pvc-9"] = survey.Directory{Used: used}
		before, _, _ := strings.Cut(text(Findings(f)), "pool ")
		return before
	}
	if full, more := of(gib), of(5*gib); full != more {
		t.Errorf("with a full volume\n%s, and beyond its size\n%s", full, more)
	}
}
