package spec

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Signal reads an image's STOPSIGNAL: a number, TERM or SIGTERM. 0 is none of them.
func Signal(text string) unix.Signal {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > 64 {
			return 0
		}
		return unix.Signal(n)
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	return unix.SignalNum(name)
}
