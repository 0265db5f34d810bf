package volume

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
)

// Request asks for a volume.
type Request struct {
	Name     string
	Required int64 // bytes at least; 0 leaves it open
	Limit    int64 // bytes at most; 0 leaves it open
	Backend  string
	Access   Access
	FSType   string
	NoCOW    *bool    // nil leaves it open
	Reserve  *bool    // likewise
	Options  []string // mount options that it is going to be used with
	Limits   Limits

	Encryption Encryption

	// Source is the ID of a volume or snapshot to begin with the content of; "": the volume begins empty.
	// With Snapshot set nobody can use or change what is made, and nothing else is asked for.
	Source   string
	Snapshot bool

	// Imported names what a new volume is filled with, see Store.Fill.
	Imported string
}

const (
	maxName     = 128
	defaultSize = 1 << 30
	granularity = 1 << 20 // sizes are multiples of this
)

// size chooses the size of a volume between the bounds; ErrSize if there is none.
func (r Request) size() (int64, error) {
	switch {
	case r.Required < 0 || r.Limit < 0 || r.Limit > 0 && r.Required > r.Limit:
		return 0, fmt.Errorf("%w: %d required bytes with a limit of %d", ErrInvalid, r.Required, r.Limit)
	case r.Required > math.MaxInt64-granularity:
		return 0, fmt.Errorf("%w: %d bytes", ErrSize, r.Required)
	case r.Required == 0 && r.Limit == 0:
		return defaultSize, nil
	case r.Required == 0:
		size := min(defaultSize, r.Limit/granularity*granularity)
		if size == 0 {
			return 0, fmt.Errorf("%w: no volume is smaller than %d bytes, the limit is %d",
				ErrSize, granularity, r.Limit)
		}

		return size, nil
	}

	size := (r.Required + granularity - 1) / granularity * granularity
	if r.Limit > 0 && size > r.Limit {
		return 0, fmt.Errorf("%w: sizes are multiples of %d bytes, none is between %d and %d",
			ErrSize, granularity, r.Required, r.Limit)
	}

	return size, nil
}

// spec is what the request says about a volume of one backend. Blocks are overwritten in place unless it says
// otherwise: a volume that was written once must not run full by being written again.
func (r Request) spec(backend string, size int64) Spec {
	return Spec{
		ID:      r.id(),
		Name:    r.Name,
		Size:    size,
		Backend: backend,
		Access:  r.Access,
		FSType:  r.FSType,
		NoCOW:   r.NoCOW == nil || *r.NoCOW,
		Reserve: r.Reserve != nil && *r.Reserve,
		Limits:  r.Limits,
		Source:  r.Source,

		Encryption: r.Encryption,
		Snapshot:   r.Snapshot,
		Imported:   r.Imported,
	}
}

func (r Request) id() string {
	if r.Snapshot {
		return SnapshotID(r.Name)
	}
	return ID(r.Name)
}

// of returns the request for a copy of source: what was left open is as it is there. Where the content cannot
// be as requested that is ErrInvalid.
func (r Request) of(source Spec) (Request, error) {
	refuse := func(what string, have, want any) (Request, error) {
		return r, fmt.Errorf("%w: the source %s has %s %v, requested was %v",
			ErrInvalid, source.ID, what, have, want)
	}
	if r.Snapshot {
		r.Access, r.Encryption = source.Access, source.Encryption
	}

	// The image of a file system is as good a device as any, for who reads its blocks. The other way round
	// the kernel would mount what a pod has written.
	asDevice := r.Access == Block && source.Access == Filesystem && source.Pooled

	switch {
	case r.Access != source.Access && !asDevice:
		return refuse("access", source.Access, r.Access)
	case r.Encryption != source.Encryption:
		// A copy has the key of its source: the class that it is asked for by has to say where the Secret is.
		return refuse("encryption", encryptionName(source.Encryption), encryptionName(r.Encryption))
	case r.Backend != "" && r.Backend != source.Backend:
		return refuse("backend", source.Backend, r.Backend)
	case r.FSType != "" && r.FSType != source.FSType:
		return refuse("file system", source.FSType, r.FSType)
	case r.NoCOW != nil && *r.NoCOW != source.NoCOW:
		return refuse("nocow", source.NoCOW, *r.NoCOW)
	case r.Limit > 0 && r.Limit < source.Size, r.Required > 0 && r.Required < source.Size:
		return r, fmt.Errorf("%w: the source %s has %d bytes, requested were %d to %d",
			ErrSize, source.ID, source.Size, r.Required, r.Limit)
	}

	r.Required = max(r.Required, source.Size)
	r.Backend = source.Backend
	r.NoCOW = &source.NoCOW
	if !asDevice {
		r.FSType = source.FSType
	}
	return r, nil
}

// checkSatisfied returns ErrConflict if an existing volume of the request's name is not what it asks for.
func (r Request) checkSatisfied(by Spec) error {
	conflict := func(what string, have, want any) error {
		return fmt.Errorf("%w: volume %s has %s %v, requested was %v", ErrConflict, by.ID, what, have, want)
	}
	if r.Snapshot {
		if r.Source != by.Source {
			return conflict("source", by.Source, r.Source)
		}
		return nil
	}

	switch {
	case r.Required > by.Size, r.Limit > 0 && r.Limit < by.Size:
		return conflict("size", by.Size, fmt.Sprintf("%d to %d", r.Required, r.Limit))
	case r.Access != by.Access:
		return conflict("access", by.Access, r.Access)
	case r.Backend != "" && r.Backend != by.Backend:
		return conflict("backend", by.Backend, r.Backend)
	case r.FSType != "" && r.FSType != by.FSType:
		return conflict("file system", by.FSType, r.FSType)
	case r.NoCOW != nil && *r.NoCOW != by.NoCOW:
		return conflict("nocow", by.NoCOW, *r.NoCOW)
	case r.Reserve != nil && *r.Reserve && !by.Reserve:
		// A backend may reserve what was not asked for.
		return conflict("reserve", by.Reserve, *r.Reserve)
	case r.Encryption != by.Encryption:
		return conflict("encryption", encryptionName(by.Encryption), encryptionName(r.Encryption))
	case r.Limits != by.Limits:
		return conflict("limits", by.Limits, r.Limits)
	case r.Source != by.Source:
		return conflict("source", by.Source, r.Source)
	case r.Imported != by.Imported:
		return conflict("imported content", strconv.Quote(by.Imported), strconv.Quote(r.Imported))
	}

	return nil
}

// encryptionName is what the parameter of a class is for that.
func encryptionName(e Encryption) string { return cmp.Or(string(e), "none") }
