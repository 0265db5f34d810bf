package plugin

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
)

func TestTheNameThatTheProgramIsCalledByIsThePlugin(t *testing.T) {
	for _, c := range []struct{ program, kind, ipam, want string }{
		{"trivet-cni", "trivet-cni", "host-local", "trivet-cni"},
		{"bridge", "bridge", "host-local", "bridge"},
		{"ptp", "ptp", "host-local", "ptp"},
		// The IPAM plugin of another main plugin, by upstream's name and by our own.
		{"host-local", "ptp", "host-local", "host-local"},
		{"host-local", "bridge", "host-local", "host-local"},
		{"static", "macvlan", "static", "static"},
		{"trivet-cni", "macvlan", "trivet-cni", "host-local"},
		{"trivet-cni", "bridge", "trivet-cni", "host-local"},
		{"loopback", "", "", "loopback"},
		// What the configuration says is no matter.
		{"portmap", "bridge", "host-local", "portmap"},
		{"trivet-cni", "bridge", "host-local", "trivet-cni"},
	} {
		var h conf.Head
		h.Type = c.kind
		h.IPAMType = c.ipam
		got, err := roleOf(c.program, h)
		if _, known := plugins[got]; got != c.want || !known || err != nil {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}

	var h conf.Head
	h.Type = "bridge"
	if role, err := roleOf("my-bridge", h); !errors.Is(err, conf.ErrInvalid) {
		t.Errorf("a program of another name is %s, %v", role, err)
	}
}

func TestAPluginHasAVersionOfUpstreams(t *testing.T) {
	const want = "CNI firewall plugin v1.10.0\nabout\n"
	if got := introduce("firewall", "about"); !strings.HasPrefix(got, want) {
		t.Errorf("firewall: %q", got)
	}
	if got := introduce(own, "about"); !strings.HasPrefix(got, "about\n") {
		t.Errorf("trivet-cni: %q", got)
	}
}

func TestEachKindOfFailureHasItsCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		code uint
	}{
		{fmt.Errorf("%w: vlan", conf.ErrUnsupported), types.ErrUnsupportedField},
		{fmt.Errorf("%w: x", conf.ErrDecode), types.ErrDecodingFailure},
		{fmt.Errorf("%w: x", conf.ErrInvalid), types.ErrInvalidNetworkConfig},
		{fmt.Errorf("%w: x", errNetns), types.ErrInvalidNetNS},
		{fmt.Errorf("%w in 10.0.0.0/24", ipam.ErrExhausted), types.ErrTryAgainLater},
		// The failure of an ADD is not one that a STATUS foretells.
		{fmt.Errorf("%w: %w", errUnavailable, ipam.ErrExhausted), types.ErrPluginNotAvailable},
		{fmt.Errorf("%w: %w", errLimited, unix.ENOSPC), types.ErrLimitedConnectivity},
		// A configuration that makes no sense is not mended by waiting.
		{fmt.Errorf("%w: %w", errUnavailable, conf.ErrInvalid), types.ErrInvalidNetworkConfig},
		{errors.Join(errors.New("x"), ipam.ErrExhausted), types.ErrTryAgainLater},
		{errors.New("something else"), types.ErrInternal},
	} {
		got, ok := errors.AsType[*types.Error](cniError("ADD of network n (bridge)", c.err))
		if !ok || got.Code != c.code || got.Details != c.err.Error() ||
			got.Msg != "ADD of network n (bridge)" {
			t.Errorf("%v: %+v, want code %d", c.err, got, c.code)
		}
	}

	if err := cniError("ADD", nil); err != nil {
		t.Errorf("success has a code: %v", err)
	}
}
