package spec

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Real-time signals as programs number them: the C library reserves the kernel's first two (32 and 33).
const (
	rtMin = 34
	rtMax = 64
)

// aliases are names that unix.SignalNum does not know.
var aliases = map[string]unix.Signal{
	"CLD":  unix.SIGCHLD,
	"IOT":  unix.SIGABRT,
	"POLL": unix.SIGIO,
}

// StopSignal returns the signal that asks a container to end: the pod's, else the image's, else SIGTERM.
func StopSignal(pod runtimeapi.Signal, image string) unix.Signal {
	// SIGNAL_SIGRTMINPLUS3 is SIGRTMIN+3.
	name := strings.TrimPrefix(pod.String(), "SIGNAL_")
	name = strings.NewReplacer("MINPLUS", "MIN+", "MAXMINUS", "MAX-").Replace(name)
	for _, text := range []string{name, image} {
		if n := signalOf(text); n != 0 {
			return n
		}
	}
	return unix.SIGTERM
}

// signalOf reads an image's STOPSIGNAL: a number, or a name with or without SIG, in upper or lower case, also
// RTMIN+n and RTMAX-n. It returns 0 if the text is none of them.
func signalOf(text string) unix.Signal {
	name := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(text)), "SIG")
	if n, ok := number(name); ok {
		if n < 1 || n > rtMax {
			return 0
		}

		return unix.Signal(n)
	}

	if n := realTime(name); n != 0 {
		return n
	}
	if n := aliases[name]; n != 0 {
		return n
	}

	return unix.SignalNum("SIG" + name)
}

// realTime reads RTMIN, RTMIN+n, RTMAX and RTMAX-n. It returns 0 for others.
func realTime(name string) unix.Signal {
	n := 0
	switch offset, base, sign := cutOffset(name); {
	case base == "RTMIN" && sign != "-":
		n = rtMin + offset
	case base == "RTMAX" && sign != "+":
		n = rtMax - offset
	}
	if n < rtMin || n > rtMax {
		return 0
	}
	return unix.Signal(n)
}

// cutOffset splits RTMIN+3. If the offset is not a number, base is empty.
func cutOffset(name string) (offset int, base, sign string) {
	i := strings.IndexAny(name, "+-")
	if i < 0 {
		return 0, name, ""
	}
	n, ok := number(name[i+1:])
	if !ok {
		return 0, "", ""
	}
	return n, name[:i], name[i : i+1]
}

// number reads a text of digits only. A number that is too large becomes one above all signals.
func number(text string) (int, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return rtMax + 1, true
	}
	return int(n), true
}
