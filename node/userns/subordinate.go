package userns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"time"
)

// unit is what each range is a multiple of: as many IDs as programs expect that there are.
const unit = 65536

// Range is one of IDs of the machine.
type Range struct{ First, Length uint32 }

// everything is all IDs but as many as a pod has, which are the machine's own.
func everything(perPod uint32) Range { return Range{First: perPod, Length: -perPod} }

// Check returns an error for IDs that cannot be divided among pods, in kubelet's words.
func (r Range) Check(perPod uint32, maxPods int64) error {
	switch {
	case perPod == 0 || perPod%unit != 0:
		return fmt.Errorf("kubelet user namespace length %d is not a multiple of %d", perPod, unit)
	case r.First%perPod != 0:
		return fmt.Errorf("kubelet user assigned ID %d is not a multiple of %d", r.First, perPod)
	case r.First < perPod:
		return fmt.Errorf("kubelet user assigned ID %d must be greater or equal to %d", r.First, perPod)
	case r.Length%perPod != 0:
		return fmt.Errorf("kubelet user assigned IDs length %d is not a multiple of %d", r.Length, perPod)
	case uint64(r.First)+uint64(r.Length) > math.MaxUint32+1:
		return fmt.Errorf("kubelet user assigned IDs %d from %d on are not all IDs", r.Length, r.First)
	case int64(r.Length/perPod) < maxPods:
		return fmt.Errorf("kubelet user assigned IDs are not enough to support %d pods", maxPods)
	}
	return nil
}

// subordinateUser is the user whose subordinate IDs (subuid(5)) are those of pods: kubelet's.
const subordinateUser = "kubelet"

// subordinateLimit bounds a query, which may go to a directory service.
const subordinateLimit = 30 * time.Second

// Available returns the IDs that pods may have: the subordinate ones of the user kubelet where the machine
// has that user and getsubids, else all but the first perPod.
func Available(ctx context.Context, perPod uint32) (Range, error) {
	_, err := user.Lookup(subordinateUser)
	if _, unknown := errors.AsType[user.UnknownUserError](err); unknown {
		return everything(perPod), nil
	}
	if err != nil {
		return Range{}, fmt.Errorf("kubelet mappings: %w", err)
	}

	program, err := exec.LookPath("getsubids")
	if errors.Is(err, exec.ErrNotFound) {
		return everything(perPod), nil
	}
	if err != nil {
		return Range{}, fmt.Errorf("kubelet mappings: %w", err)
	}

	found, err := query(ctx, program)
	if err != nil {
		return Range{}, fmt.Errorf("kubelet mappings: %w", err)
	}

	return found, nil
}

// query asks for both kinds of IDs, which must be the same.
func query(ctx context.Context, program string) (Range, error) {
	ctx, cancel := context.WithTimeout(ctx, subordinateLimit)
	defer cancel()

	users, err := exec.CommandContext(ctx, program, subordinateUser).Output()
	if err != nil {
		return Range{}, fmt.Errorf("error retrieving additional uids for user %q: %w", subordinateUser, err)
	}

	groups, err := exec.CommandContext(ctx, program, "-g", subordinateUser).Output()
	if err != nil {
		return Range{}, fmt.Errorf("error retrieving additional gids for user %q: %w", subordinateUser, err)
	}

	if !bytes.Equal(users, groups) {
		return Range{}, fmt.Errorf("mismatched subuids and subgids for user %q", subordinateUser)
	}

	return parse(string(users))
}

// parse reads the one line of getsubids, such as "0: kubelet 65536 2147483648".
func parse(output string) (Range, error) {
	lines := strings.Split(strings.Trim(output, "\n"), "\n")
	if len(lines) != 1 {
		return Range{}, fmt.Errorf("error parsing line %q: it must contain only one line", output)
	}

	fields := strings.Fields(lines[0])
	if len(fields) != 4 {
		return Range{}, fmt.Errorf("invalid line %q", output)
	}

	var numbers [2]uint32
	for i, text := range fields[2:] {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return Range{}, fmt.Errorf("error parsing line %q: %w", output, err)
		}

		numbers[i] = uint32(n)
	}

	return Range{First: numbers[0], Length: numbers[1]}, nil
}
