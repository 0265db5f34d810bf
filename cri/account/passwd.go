package account

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// entry is what is used of a line of passwd(5).
type entry struct {
	name     string
	uid, gid uint32
	home     string
}

// numeric returns the number in text, and whether it is one. A number is never looked up as a name: an image
// could have a user called 1000 with the uid 0. It is an error above the IDs that Kubernetes allows;
// 4294967295 means "none" to the kernel.
func numeric(text string) (id uint32, isNumber bool, err error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > math.MaxInt32 {
		return 0, true, fmt.Errorf("ID %s is above %d", text, math.MaxInt32)
	}
	return uint32(n), true, nil
}

// field returns the ID in a field of a line.
func field(text string) (uint32, error) {
	id, isNumber, err := numeric(text)
	if err == nil && !isNumber {
		err = fmt.Errorf("ID %q is not a number", text)
	}
	return id, err
}

// findAccount finds a user by name or number. The first line that matches counts, as for getpwnam(3).
func findAccount(passwd []byte, who string) (found entry, ok bool, err error) {
	uid, byNumber, err := numeric(who)
	if err != nil {
		return entry{}, false, err
	}

	for line := range bytes.Lines(passwd) {
		fields := strings.SplitN(strings.TrimSpace(string(line)), ":", 7)
		if len(fields) < 4 {
			continue
		}

		id, idErr := field(fields[2])
		if byNumber && (idErr != nil || id != uid) || !byNumber && fields[0] != who {
			continue
		}

		gid, gidErr := field(fields[3])
		if idErr != nil || gidErr != nil {
			err = errors.Join(idErr, gidErr)
			return entry{}, false, fmt.Errorf("user %q: /etc/passwd of the image: %w", who, err)
		}

		found = entry{name: fields[0], uid: id, gid: gid}
		if len(fields) >= 6 {
			found.home = fields[5]
		}

		return found, true, nil
	}

	return entry{}, false, nil
}

// findGroup finds a group by name or number.
func findGroup(group []byte, which string) (gid uint32, ok bool, err error) {
	want, byNumber, err := numeric(which)
	if err != nil || byNumber {
		return want, err == nil, err
	}

	for line := range bytes.Lines(group) {
		fields := strings.SplitN(strings.TrimSpace(string(line)), ":", 4)
		if len(fields) < 3 || fields[0] != which {
			continue
		}
		if gid, err = field(fields[2]); err != nil {
			return 0, false, fmt.Errorf("group %q: /etc/group of the image: %w", which, err)
		}

		return gid, true, nil
	}

	return 0, false, nil
}

// groupsOf returns the groups that have a user as a member.
func groupsOf(group []byte, name string) ([]uint32, error) {
	var gids []uint32
	for line := range bytes.Lines(group) {
		fields := bytes.SplitN(bytes.TrimSpace(line), []byte(":"), 4)
		if len(fields) < 4 || !isMember(fields[3], name) {
			continue
		}

		gid, err := field(string(fields[2]))
		if err != nil {
			return nil, fmt.Errorf("group %q: /etc/group of the image: %w", fields[0], err)
		}

		gids = append(gids, gid)
		if len(gids) > maxGroups {
			return nil, fmt.Errorf("user %q: more than %d groups in /etc/group of the image", name, maxGroups)
		}
	}

	return gids, nil
}

// isMember reports whether a list of names, separated by commas, has a name.
func isMember(list []byte, name string) bool {
	for member := range bytes.SplitSeq(list, []byte(",")) {
		if string(member) == name {
			return true
		}
	}
	return false
}
