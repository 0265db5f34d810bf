package plugin

import (
	"errors"
	"io/fs"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
)

var (
	// errNetns means that the container's network namespace cannot be used.
	errNetns = errors.New("invalid network namespace")
	// errUnavailable means that an ADD would fail now.
	errUnavailable = errors.New("ADD would fail")
	// errLimited means that ADD fails now or soon for want of room, which containers that there are may feel,
	// too.
	errLimited = errors.New("the network has run short")
)

// shortages are errors of STATUS that are errLimited; others are errUnavailable.
var shortages = []error{unix.ENOSPC, unix.EDQUOT, ipam.ErrNearlyExhausted}

// codes are the CNI error codes (CNI specification, section 5, "Error"). The first that matches counts; an
// error that matches none is ErrInternal.
var codes = []struct {
	err  error
	code uint
}{
	{conf.ErrUnsupported, types.ErrUnsupportedField},
	{conf.ErrDecode, types.ErrDecodingFailure},
	{conf.ErrInvalid, types.ErrInvalidNetworkConfig},
	{errNetns, types.ErrInvalidNetNS},
	{errLimited, types.ErrLimitedConnectivity},
	{errUnavailable, types.ErrPluginNotAvailable},
	{ipam.ErrExhausted, types.ErrTryAgainLater},
}

// cniError returns err as the CNI protocol has it; what names the call. It returns nil for nil.
func cniError(what string, err error) error {
	if err == nil {
		return nil
	}

	// What a plugin that was called by exec says comes first.
	code := types.ErrInternal
	switch other := codeOf(err); {
	case other != 0:
		code = other
	case isIO(err):
		code = types.ErrIOFailure
	}

	for _, c := range codes {
		if errors.Is(err, c.err) {
			code = c.code
			break
		}
	}
	return types.NewError(code, what, err.Error())
}

// isIO reports whether a file could not be read or written, as on a full disk. A program that cannot be run
// is something else.
func isIO(err error) bool {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Op != "fork/exec"
	}
	_, ok := errors.AsType[*os.LinkError](err)
	return ok
}

// codeOf returns the code of a CNI error, 0 for none.
func codeOf(err error) uint {
	if failure, ok := errors.AsType[*types.Error](err); ok {
		return failure.Code
	}
	return 0
}
