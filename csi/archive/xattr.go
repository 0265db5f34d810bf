package archive

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// maxAttributes bounds the list of a file's attributes, and each value, in bytes (XATTR_LIST_MAX).
const maxAttributes = 64 << 10

// isKept reports whether an extended attribute belongs to the content of a volume. Labels of security modules
// belong to the node.
func isKept(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")
}

// attributes reads those of the file that a path in /proc leads to; the last component is not followed.
func attributes(path string) (map[string]string, error) {
	list := make([]byte, maxAttributes)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}

	var kept map[string]string
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if !isKept(name) {
			continue
		}

		value := make([]byte, maxAttributes)
		size, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("extended attribute %s: %w", name, err)
		}

		if kept == nil {
			kept = map[string]string{}
		}
		kept[xattrRecord+name] = string(value[:size])
	}

	return kept, nil
}

// setAttributes writes what attributes has read.
func setAttributes(path string, records map[string]string) error {
	for record, value := range records {
		name, is := strings.CutPrefix(record, xattrRecord)
		if !is || !isKept(name) {
			continue
		}
		if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}
