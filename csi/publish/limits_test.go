package publish

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

// fakeThrottle keeps which devices have limits, and for which pods.
type fakeThrottle struct {
	limits map[uint64]volume.Limits
	pods   []string // of the last call
	fail   error
}

func (f *fakeThrottle) Apply(device uint64, l volume.Limits, pods []string) error {
	f.pods = pods
	switch {
	case f.fail != nil:
		return f.fail
	case l == volume.Limits{}:
		delete(f.limits, device)
	default:
		f.limits[device] = l
	}
	return nil
}

func (f *fakeThrottle) String() string { return fmt.Sprint(f.limits) }

// numbered are fakeDevices with numbers.
type numbered struct {
	*fakeDevices
	number uint64 // of each device
}

func (f *numbered) Number(id string, _ uint64) (uint64, error) {
	if !f.attached[id] {
		return 0, nil
	}
	return f.number, nil
}

// limitedFixture has a volume "raw" with limits.
func limitedFixture(t *testing.T) (*fixture, *fakeThrottle, *numbered) {
	t.Helper()
	f := newFixture(t)
	throttle := &fakeThrottle{limits: map[uint64]volume.Limits{}}
	devices := &numbered{fakeDevices: f.devices, number: 7}
	f.cfg.Throttle = throttle
	f.cfg.Backends["devices"] = devices
	f.restart()
	f.limitRaw(volume.Limits{WriteBytes: 5})
	return f, throttle, devices
}

func (f *fixture) limitRaw(l volume.Limits) {
	v := f.volumes.all["raw"]
	v.Limits = l
	f.volumes.all["raw"] = v
}

func TestLimitsAreInForceFromStageToUnstage(t *testing.T) {
	f, throttle, _ := limitedFixture(t)
	check := func(when, want string) {
		t.Helper()
		if got := throttle.String(); got != want {
			t.Errorf("%s: limits %s, want %s", when, got, want)
		}
	}

	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Fatal(err)
	}
	check("staged", "map[7:{0 5 0 0}]")

	f.limitRaw(volume.Limits{ReadOps: 9})
	if err := f.Limits.Enforce(t.Context(), "raw"); err != nil {
		t.Error(err)
	}
	check("modified", "map[7:{0 0 9 0}]")
	f.restart()
	f.limitRaw(volume.Limits{})
	if err := f.Limits.Enforce(t.Context(), "raw"); err != nil {
		t.Error(err)
	}
	check("modified away after a restart", "map[]")

	f.limitRaw(volume.Limits{ReadOps: 9})
	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Error(err)
	}
	check("staged again", "map[7:{0 0 9 0}]")
	if err := f.Unstage(t.Context(), "raw", f.stage); err != nil {
		t.Error(err)
	}
	check("unstaged", "map[]")
	if err := f.Limits.Enforce(t.Context(), "raw"); err != nil {
		t.Errorf("nobody uses it: %v", err)
	}
}

func TestNoVolumeIsUsedWithoutItsLimits(t *testing.T) {
	f, throttle, _ := limitedFixture(t)
	throttle.fail = errors.New("broken")
	if err := f.Stage(t.Context(), "raw", f.stage, raw); !errors.Is(err, throttle.fail) {
		t.Errorf("staged: %v", err)
	}

	throttle.fail = nil
	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Fatal(err)
	}

	f.cfg.Throttle = nil
	f.restart()
	if err := f.Limits.Check(volume.Limits{ReadOps: 9}); !errors.Is(err, volume.ErrInvalid) {
		t.Errorf("limits on a node without: %v", err)
	}
	if err := f.Stage(t.Context(), "raw", f.stage, raw); !errors.Is(err, volume.ErrInvalid) {
		t.Errorf("staged on a node without limits: %v", err)
	}
}

// The next volume that has a device must not have the limits of the one before.
func TestLimitsDoNotStayWithADevice(t *testing.T) {
	f, throttle, devices := limitedFixture(t)
	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Fatal(err)
	}

	devices.number = 8
	if err := f.Limits.Enforce(t.Context(), "raw"); err != nil || throttle.String() != "map[8:{0 5 0 0}]" {
		t.Errorf("on another device: %s, %v", throttle, err)
	}

	delete(devices.attached, "raw")
	f.restart()
	if throttle.String() != "map[]" {
		t.Errorf("the device is gone: %s", throttle)
	}
}

func TestPodsOfTargets(t *testing.T) {
	f, throttle, _ := limitedFixture(t)
	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Fatal(err)
	}

	st, _ := f.stagings.get("raw")
	for _, path := range []string{
		"pods/uid-1/volumes/kubernetes.io~csi/pods/mount",
		"plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1/uid-2",
		"pods",
		"plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1",
		"somewhere/else",
	} {
		st.Targets = append(st.Targets, filepath.Join(f.devices.dir, path))
	}

	f.stagings.keep("raw", st)
	if err := f.Limits.Enforce(t.Context(), "raw"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"uid-1", "uid-2"}; !slices.Equal(throttle.pods, want) {
		t.Errorf("pods %q, want %q", throttle.pods, want)
	}
}

func TestLimitsThatCannotBeLiftedAreTriedAgainAtTheNextStart(t *testing.T) {
	f, throttle, _ := limitedFixture(t)
	if err := f.Stage(t.Context(), "raw", f.stage, raw); err != nil {
		t.Fatal(err)
	}

	clear(f.devices.attached)
	throttle.fail = errors.New("read-only")
	if report := f.restart(); report.Limited["raw"] == nil || len(throttle.limits) != 1 {
		t.Errorf("report %+v, limits %v", report, throttle)
	}
	throttle.fail = nil
	if report := f.restart(); len(report.Limited) > 0 || len(throttle.limits) > 0 {
		t.Errorf("at the next start: report %+v, limits %v", report, throttle)
	}
}
