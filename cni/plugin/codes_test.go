package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
)

func TestErrorsHaveTheCodesOfTheSpecification(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "/var/lib/cni/networks/n/10.0.0.2", Err: unix.ENOSPC}
	for name, c := range map[string]struct {
		err  error
		code uint
	}{
		"a full disk":            {fmt.Errorf("reserve address: %w", full), types.ErrIOFailure},
		"no second link":         {&os.LinkError{Op: "link", Err: unix.EROFS}, types.ErrIOFailure},
		"a full disk, to STATUS": {fmt.Errorf("%w: %w", errLimited, full), types.ErrLimitedConnectivity},
		"a file of a key":        {conf.Invalid("resolvConf: %w", full), types.ErrInvalidNetworkConfig},
		"a program":              {&fs.PathError{Op: "fork/exec", Err: unix.ENOENT}, types.ErrInternal},
		"another program's":      {errors.Join(types.NewError(100, "no", ""), full), 100},
		"no address":             {ipam.ErrExhausted, types.ErrTryAgainLater},
		"no namespace":           {errNetns, types.ErrInvalidNetNS},
		"anything else":          {errors.New("x"), types.ErrInternal},
	} {
		if got := codeOf(cniError("ADD", c.err)); got != c.code {
			t.Errorf("%s: code %d, want %d", name, got, c.code)
		}
	}
}
