package driver

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/csi/volume"
)

func TestParameters(t *testing.T) {
	for _, c := range []struct {
		name string
		in   map[string]string
		want parameters
		ok   bool
	}{
		{"none", nil, parameters{}, true},
		{"auto", map[string]string{"backend": "auto"}, parameters{}, true},
		{"quota", map[string]string{"backend": "quota"}, parameters{backend: "quota"}, true},
		{"all", map[string]string{"backend": "image", "nocow": "true"},
			parameters{backend: "image", noCOW: new(true)}, true},
		{"of a provisioner", map[string]string{"csi.storage.k8s.io/pvc/name": "x"}, parameters{}, true},
		{"encrypted", map[string]string{"encryption": "fscrypt"},
			parameters{encryption: volume.Fscrypt}, true},
		{"not encrypted", map[string]string{"encryption": "none"}, parameters{}, true},
		{"encrypted in an unknown way", map[string]string{"encryption": "true"}, parameters{}, false},
		{"misspelt", map[string]string{"bakend": "image"}, parameters{}, false},
		{"not a truth", map[string]string{"nocow": "maybe"}, parameters{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseParameters(c.in)

			if !reflect.DeepEqual(got, c.want) || (err == nil) != c.ok ||
				err != nil && !errors.Is(err, volume.ErrInvalid) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestMountGroup(t *testing.T) {
	for group, want := range map[string]*int64{
		"":           nil,
		"0":          new(int64(0)),
		"2000":       new(int64(2000)),
		"4294967294": new(int64(4294967294)),
	} {
		c := mountCapability()
		c.GetMount().VolumeMountGroup = group
		w, err := parseCapabilities(c)
		if err != nil || !reflect.DeepEqual(w.use(false).Group, want) {
			t.Errorf("group %q: %v, %v", group, w.group, err)
		}
	}
	for _, group := range []string{"users", "-1", "4294967295", "1e3", " 5"} {
		c := mountCapability()
		c.GetMount().VolumeMountGroup = group
		if _, err := parseCapabilities(c); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("group %q: %v", group, err)
		}
	}
}

func FuzzParameters(f *testing.F) {
	f.Add("backend", "image", "nocow", "true")
	f.Add("csi.storage.k8s.io/fstype", "xfs", "nocow", "")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		p, err := parseParameters(map[string]string{k1: v1, k2: v2})
		if err != nil && (!errors.Is(err, volume.ErrInvalid) || p != (parameters{})) {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add("")
	f.Add("after:vol-1")
	f.Add("after:../x")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := parsePage(0, token)
		if err == nil && token != "" && (volume.CheckID(p.after) != nil || tokenPrefix+p.after != token) {
			t.Errorf("token %q gave %q", token, p.after)
		}
	})
}

func TestCapabilities(t *testing.T) {
	mode := func(m csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
		return &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: m},
			AccessType: &csi.VolumeCapability_Mount{
				Mount: &csi.VolumeCapability_MountVolume{FsType: "xfs", MountFlags: []string{"noatime"}},
			}}
	}

	block := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{
		Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}}

	for _, c := range []struct {
		name string
		caps []*csi.VolumeCapability
		ok   bool
	}{
		{"none", nil, false},
		{"nil", []*csi.VolumeCapability{nil}, false},
		{"writer", []*csi.VolumeCapability{mode(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)}, true},
		{
			"many readers",
			[]*csi.VolumeCapability{mode(csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY)},
			true,
		},
		{
			"many nodes",
			[]*csi.VolumeCapability{mode(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)},
			false,
		},
		{"unknown mode", []*csi.VolumeCapability{mode(99)}, false},
		{"no access type", []*csi.VolumeCapability{{AccessMode: block.GetAccessMode()}}, false},
		{"unknown file system", []*csi.VolumeCapability{{AccessMode: block.GetAccessMode(),
			AccessType: &csi.VolumeCapability_Mount{
				Mount: &csi.VolumeCapability_MountVolume{FsType: "ntfs"},
			}}}, false},
		{
			"both",
			[]*csi.VolumeCapability{block, mode(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)},
			false,
		},
		{"block", []*csi.VolumeCapability{block}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseCapabilities(c.caps...); (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhoOnlyReadsGetsAReadOnlyVolume(t *testing.T) {
	for mode, readOnly := range map[csi.VolumeCapability_AccessMode_Mode]bool{
		csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:  true,
		csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:   true,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER: false,
	} {
		c := mountCapability()
		c.AccessMode = &csi.VolumeCapability_AccessMode{Mode: mode}
		w, err := parseCapabilities(c)
		if err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if got := w.use(false).ReadOnly; got != readOnly {
			t.Errorf("%s: read-only is %t, want %t", mode, got, readOnly)
		}
	}
}

// The node of a device is written to whether or not its mount is read-only.
func TestRawBlockVolumesAreNotForReadersAlone(t *testing.T) {
	for _, mode := range readingModes {
		w, err := parseCapabilities(&csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		})
		if status.Code(toStatus(err)) != codes.InvalidArgument {
			t.Errorf("%s: %+v, %v", mode, w, err)
		}
	}
}

func TestCodes(t *testing.T) {
	if toStatus(nil) != nil {
		t.Error("no error became one")
	}

	for err, want := range map[error]codes.Code{
		volume.ErrFull:          codes.ResourceExhausted,
		volume.ErrSize:          codes.OutOfRange,
		volume.ErrDamaged:       codes.DataLoss,
		volume.ErrKey:           codes.Unauthenticated,
		errors.New("something"): codes.Internal,
	} {
		if got := status.Code(toStatus(errors.Join(errors.New("context"), err))); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

func TestHealthSaysWhatIsWrong(t *testing.T) {
	gone, readOnly := errors.New("gone"), errors.New("read-only")
	lost := fmt.Errorf("%w: removed", volume.ErrLost)
	for _, c := range []struct {
		v        volume.Volume
		statuses []csi.VolumeHealthErrorType
		messages []string
	}{
		{volume.Volume{}, nil, nil},
		{
			volume.Volume{Damage: gone},
			[]csi.VolumeHealthErrorType{csi.VolumeHealthErrorType_INACCESSIBLE},
			[]string{"gone"},
		},
		{
			volume.Volume{Damage: lost},
			[]csi.VolumeHealthErrorType{csi.VolumeHealthErrorType_DATA_LOSS},
			[]string{lost.Error()},
		},
		{
			volume.Volume{Trouble: readOnly},
			[]csi.VolumeHealthErrorType{csi.VolumeHealthErrorType_DEGRADED},
			[]string{"read-only"},
		},
		{
			volume.Volume{Damage: gone, Trouble: readOnly},
			[]csi.VolumeHealthErrorType{
				csi.VolumeHealthErrorType_INACCESSIBLE,
				csi.VolumeHealthErrorType_DEGRADED,
			},
			[]string{"gone", "read-only"},
		},
	} {
		var statuses []csi.VolumeHealthErrorType
		var messages []string
		for _, entry := range healthOf(c.v).GetHealthStatuses() {
			statuses, messages = append(statuses, entry.GetStatus()), append(messages, entry.GetMessage())
			if entry.GetReason() == "" {
				t.Errorf("entry without a reason: %v", entry)
			}
		}

		if !slices.Equal(statuses, c.statuses) || !slices.Equal(messages, c.messages) {
			t.Errorf("health of %+v is %v %q", c.v, statuses, messages)
		}
	}
}

func TestLimitsAreNumbersWithinBounds(t *testing.T) {
	cases := []struct {
		key, value string
		want       volume.Limits
		ok         bool
	}{
		{"readBytesPerSecond", "1Mi", volume.Limits{ReadBytes: 1 << 20}, true},
		{"readBytesPerSecond", "1000k", volume.Limits{}, false},
		{"writeBytesPerSecond", "9223372036854775807", volume.Limits{WriteBytes: 1<<63 - 1}, true},
		{"writeBytesPerSecond", "max", volume.Limits{}, true},
		{"readOperationsPerSecond", "10", volume.Limits{ReadOps: 10}, true},
		{"readOperationsPerSecond", "9", volume.Limits{}, false},
		{"writeOperationsPerSecond", "2147483648", volume.Limits{}, false},
		{"writeOperationsPerSecond", "-1", volume.Limits{}, false},
		{"writeOperationsPerSecond", "many", volume.Limits{}, false},
		{"writeOperationsPerSecond", "", volume.Limits{}, false},
		{"writeOps", "10", volume.Limits{}, false},
		{"csi.storage.k8s.io/pvc/name", "x", volume.Limits{}, true},
	}

	for _, c := range cases {
		got, err := parseLimits(map[string]string{c.key: c.value})
		if got != c.want || (err == nil) != c.ok || err != nil && !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("%s %q: %+v, %v", c.key, c.value, got, err)
		}
	}
}

func FuzzLimits(f *testing.F) {
	f.Add("readBytesPerSecond", "50Mi")
	f.Add("writeOperationsPerSecond", "1e3")
	f.Fuzz(func(t *testing.T, key, value string) {
		l, err := parseLimits(map[string]string{key: value})
		if err != nil && (!errors.Is(err, volume.ErrInvalid) || l != volume.Limits{}) {
			t.Errorf("%+v, %v", l, err)
		}
		if min(l.ReadBytes, l.WriteBytes, l.ReadOps, l.WriteOps) < 0 {
			t.Errorf("%s %q: %+v", key, value, l)
		}
	})
}
