package deb

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// member of an ar archive.
type member struct {
	name string
	data []byte
}

// maxName is the longest name that a header of ar has room for.
const maxName = 16

// writeArchive writes an ar archive as deb(5) wants it: its members are files of root.
func writeArchive(w io.Writer, changed time.Time, members []member) error {
	if _, err := io.WriteString(w, "!<arch>\n"); err != nil {
		return err
	}

	for _, m := range members {
		if len(m.name) > maxName {
			return fmt.Errorf("member %s: the name is longer than %d bytes", m.name, maxName)
		}

		// Name, time, user, group, mode and size.
		const form = "%-16s%-12d%-6d%-6d%-8o%-10d`\n"
		header := fmt.Sprintf(form, m.name, changed.Unix(), 0, 0, 0o100644, len(m.data))
		data := m.data
		if len(data)%2 == 1 {
			// Headers are at even offsets.
			data = append(slices.Clip(data), '\n')
		}

		for _, part := range [][]byte{[]byte(header), data} {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
	}

	return nil
}
