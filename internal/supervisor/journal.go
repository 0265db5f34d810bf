package supervisor

import (
	"fmt"
	"os"
	"syscall"
)

// journalVariable is how systemd says that output goes to its journal: the device and inode of the stream
// (systemd.exec(5)).
const journalVariable = "JOURNAL_STREAM"

// Journal reports whether what is written to the file is in the service manager's journal. The environment
// alone does not say so: processes inherit it, also those whose output goes elsewhere.
func Journal(file *os.File) bool {
	info, err := file.Stat()
	if err != nil {
		return false
	}

	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv(journalVariable) == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}
