package publish

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

func TestTargetsOfAVolume(t *testing.T) {
	cases := []struct {
		name         string
		have         staging
		target       string
		singleWriter bool
		want         staging
		err          error
	}{
		{"first", staging{}, "a", false, staging{Targets: []string{"a"}}, nil},
		{
			"first of a single writer",
			staging{},
			"a",
			true,
			staging{Targets: []string{"a"}, SingleWriter: true},
			nil,
		},
		{"second", staging{Targets: []string{"a"}}, "b", false, staging{Targets: []string{"a", "b"}}, nil},
		{"repeated", staging{Targets: []string{"a"}}, "a", false, staging{Targets: []string{"a"}}, nil},
		{
			"repeated by the single writer",
			staging{Targets: []string{"a"}, SingleWriter: true}, "a", true,
			staging{Targets: []string{"a"}, SingleWriter: true}, nil,
		},
		{
			"second beside a single writer",
			staging{Targets: []string{"a"}, SingleWriter: true}, "b", false,
			staging{Targets: []string{"a"}, SingleWriter: true}, volume.ErrInUse,
		},
		{
			"single writer that is second",
			staging{Targets: []string{"a"}}, "b", true,
			staging{Targets: []string{"a"}}, volume.ErrInUse,
		},
	}

	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := slices.Clone(c.have.Targets)
			got, err := c.have.with("v", c.target, c.singleWriter)
			if !reflect.DeepEqual(got, c.want) || !errors.Is(err, c.err) {
				t.Errorf("%+v, %v; want %+v, %v", got, err, c.want, c.err)
			}
			if !slices.Equal(c.have.Targets, before) {
				t.Errorf("the record from which it was made changed: %v", c.have.Targets)
			}
		})
	}
}

func TestTargetsThatGoAway(t *testing.T) {
	have := staging{Path: "/s", Targets: []string{"a", "b", "c"}}
	if got := have.without("b"); !slices.Equal(got.Targets, []string{"a", "c"}) || got.Path != "/s" {
		t.Errorf("without b: %+v", got)
	}
	if got := have.without("x"); !reflect.DeepEqual(got, have) {
		t.Errorf("without one that is not there: %+v", got)
	}
	mounted := func(target string) bool { return target == "c" }
	if got := have.only(mounted); !slices.Equal(got.Targets, []string{"c"}) || len(have.Targets) != 3 {
		t.Errorf("only c: %+v of %+v", got, have)
	}
}

func TestStagingHasOnePath(t *testing.T) {
	st := staging{Path: "/s"}
	if err := st.checkPath("v", "/s"); err != nil {
		t.Errorf("the same: %v", err)
	}
	if err := st.checkPath("v", "/t"); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("another: %v", err)
	}
}

func TestUseMustFitTheVolume(t *testing.T) {
	v := volume.Volume{Spec: volume.Spec{ID: "v", Access: volume.Filesystem, FSType: "xfs"}}
	for _, c := range []struct {
		use Use
		err error
	}{
		{Use{Access: volume.Filesystem}, nil},
		{Use{Access: volume.Filesystem, FSType: "xfs"}, nil},
		{Use{Access: volume.Filesystem, FSType: "ext4"}, volume.ErrInvalid},
		{Use{Access: volume.Block}, volume.ErrInvalid},
	} {
		if err := c.use.Check(v); !errors.Is(err, c.err) {
			t.Errorf("%+v: %v", c.use, err)
		}
	}
}

// fakeVolumes are volumes in memory.
type fakeVolumes struct {
	all  map[string]volume.Volume
	held map[string]string
}

func (f *fakeVolumes) Get(id string) (volume.Volume, error) {
	v, ok := f.all[id]
	if !ok {
		return v, volume.ErrNotFound
	}
	return v, nil
}

func (f *fakeVolumes) Lock(context.Context, string) (func(), error) { return func() {}, nil }

func (f *fakeVolumes) Acquire(_ context.Context, id string) (volume.Volume, func(), error) {
	v, err := f.Get(id)
	return v, func() {}, errors.Join(err, v.Damage)
}

func (f *fakeVolumes) Hold(id, where string) { f.held[id] = where }
func (f *fakeVolumes) Release(id string)     { delete(f.held, id) }

// fakeDevices is a backend whose volumes are raw, on files in place of devices. It cannot mount.
type fakeDevices struct {
	dir      string
	attached map[string]bool
	fail     error // of Device
}

func (f *fakeDevices) Mount(volume.Spec, target.Options) (*target.Tree, error) {
	return nil, errors.New("no mounts here")
}

func (f *fakeDevices) Usage(volume.Spec, *os.File) (Usage, error) {
	return Usage{}, errors.New("unknown")
}

func (f *fakeDevices) Device(s volume.Spec) (*os.File, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	f.attached[s.ID] = true
	return os.OpenFile(filepath.Join(f.dir, s.ID), os.O_CREATE|os.O_RDWR, 0o600)
}

func (f *fakeDevices) Attached(id string) (bool, error) { return f.attached[id], nil }

func (f *fakeDevices) Detach(id string) error {
	delete(f.attached, id)
	return nil
}

// mountsOnly is fakeDevices without its devices.
type mountsOnly struct{ Backend }

type fixture struct {
	*Publisher
	t       *testing.T
	cfg     Config
	volumes *fakeVolumes
	devices *fakeDevices
	stage   string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	root, err := target.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { root.Close() })
	devices := &fakeDevices{dir: dir, attached: map[string]bool{}}
	volumes := &fakeVolumes{all: map[string]volume.Volume{}, held: map[string]string{}}
	for id, backend := range map[string]string{"raw": "devices", "odd": "mounts"} {
		volumes.all[id] = volume.Volume{
			Spec: volume.Spec{
				ID:      id,
				Backend: backend,
				Access:  volume.Block,
				Size:    1 << 20,
			},
		}
	}

	volumes.all["fs"] = volume.Volume{
		Spec: volume.Spec{ID: "fs", Backend: "devices", Access: volume.Filesystem},
	}
	f := &fixture{
		t:       t,
		volumes: volumes,
		devices: devices,
		stage:   filepath.Join(dir, "stage"),
	}

	f.cfg = Config{
		Dir:      filepath.Join(dir, "records"),
		Volumes:  volumes,
		Targets:  root,
		Backends: map[string]Backend{"devices": devices, "mounts": mountsOnly{devices}},
	}

	f.restart()
	return f
}

func (f *fixture) restart() Report {
	f.t.Helper()
	p, report, err := Open(f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Publisher = p
	return report
}

var raw = Use{Access: volume.Block}

func TestStagedDeviceIsHeldUntilItIsUnstaged(t *testing.T) {
	f := newFixture(t)
	for range 2 {
		if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
			t.Fatal(err)
		}
	}

	if !f.devices.attached["raw"] || f.volumes.held["raw"] != "staged on "+f.stage {
		t.Errorf("attached %v, held %v", f.devices.attached, f.volumes.held)
	}
	if err := f.Stage(t.Context(), "raw", f.stage+"2", raw); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("staged elsewhere: %v", err)
	}
	if err := f.Unstage(t.Context(), "raw", f.stage+"2"); err != nil || !f.devices.attached["raw"] {
		t.Errorf("unstaged from elsewhere: %v", err)
	}

	for range 2 {
		if err := f.Unstage(t.Context(), "raw", f.stage); err != nil {
			t.Fatal(err)
		}
	}

	if len(f.devices.attached)+len(f.volumes.held) > 0 {
		t.Errorf("left: %v, %v", f.devices.attached, f.volumes.held)
	}
}

func TestFailedStagingLeavesNothing(t *testing.T) {
	f := newFixture(t)
	f.devices.fail = errors.New("broken")
	for id, u := range map[string]Use{"raw": raw, "odd": raw, "fs": {Access: volume.Filesystem}} {
		if err := f.Stage(t.Context(), id, f.stage, u); err == nil {
			t.Errorf("%s is staged", id)
		}
	}
	if records, err := os.ReadDir(f.cfg.Dir); len(records)+len(f.volumes.held) > 0 || err != nil {
		t.Errorf("left: %v, %v, %v", records, f.volumes.held, err)
	}
}

func TestRawBlockNeedsABackendWithDevices(t *testing.T) {
	f := newFixture(t)
	if err := f.Stage(t.Context(), "odd", f.stage, raw); !errors.Is(err, volume.ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

// A killed process finds its devices, and after a reboot there are none.
func TestRecordsAreComparedWithWhatThereIs(t *testing.T) {
	f := newFixture(t)
	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Fatal(err)
	}

	clear(f.volumes.held)
	if report := f.restart(); len(report.Unstaged) > 0 || f.volumes.held["raw"] == "" {
		t.Errorf("report %+v, held %v", report, f.volumes.held)
	}

	clear(f.volumes.held)
	clear(f.devices.attached)
	if report := f.restart(); !slices.Equal(report.Unstaged, []string{"raw"}) || len(f.volumes.held) > 0 {
		t.Errorf("after a reboot: report %+v, held %v", report, f.volumes.held)
	}
	if report := f.restart(); len(report.Unstaged) > 0 {
		t.Errorf("once more: report %+v", report)
	}
}

func TestRecordOfAVolumeThatIsGoneIsRemoved(t *testing.T) {
	f := newFixture(t)
	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Fatal(err)
	}
	delete(f.volumes.all, "raw")
	if report := f.restart(); !slices.Equal(report.Unstaged, []string{"raw"}) {
		t.Errorf("report %+v", report)
	}
}

func TestPublishNeedsAStagedVolume(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(f.devices.dir, "pod", "target")
	if err := f.Publish(t.Context(), "raw", path, raw); !errors.Is(err, volume.ErrNotStaged) {
		t.Errorf("error %v", err)
	}
	if err := f.Unpublish(t.Context(), "raw", path); err != nil {
		t.Errorf("unpublished what is not there: %v", err)
	}
}

func TestStatsOfARawBlockVolumeAreItsSize(t *testing.T) {
	f := newFixture(t)
	if _, _, err := f.Stats("raw", f.stage); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("not staged: %v", err)
	}
	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Fatal(err)
	}
	if _, usage, err := f.Stats("raw", f.stage); err != nil || usage != (Usage{Total: 1 << 20}) {
		t.Errorf("usage %+v, %v", usage, err)
	}

	damaged := f.volumes.all["raw"]
	damaged.Damage = fmt.Errorf("%w: gone", volume.ErrDamaged)
	f.volumes.all["raw"] = damaged
	if _, _, err := f.Stats("raw", f.stage); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
}

// A backend that does not implement Grower has volumes that are larger at once.
func TestGrowthOfABackendThatNeedsNoStep(t *testing.T) {
	f := newFixture(t)
	if f.GrowsStaged(f.volumes.all["raw"]) {
		t.Error("a step is demanded")
	}
	if _, err := f.GrowStaged(t.Context(), "raw"); !errors.Is(err, volume.ErrNotStaged) {
		t.Errorf("not staged: %v", err)
	}
	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Fatal(err)
	}
	if _, err := f.GrowStaged(t.Context(), "raw"); err != nil {
		t.Errorf("staged: %v", err)
	}
}
