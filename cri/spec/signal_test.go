package spec

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSignalIsReadInAllItsSpellings(t *testing.T) {
	for text, want := range map[string]unix.Signal{
		"SIGTERM":    15,
		"TERM":       15,
		"term":       15,
		"sigusr1":    10,
		"USR1":       10,
		"15":         15,
		" 9 ":        9,
		"64":         64,
		"SIGRTMIN":   34,
		"RTMIN":      34,
		"SIGRTMIN+3": 37,
		"RTMIN+3":    37,
		"rtmin+30":   64,
		"SIGRTMAX":   64,
		"SIGRTMAX-3": 61,
		"RTMAX-30":   34,
		"SIGCLD":     unix.SIGCHLD,
		"IOT":        unix.SIGABRT,
		"SIGPOLL":    unix.SIGIO,
		"SIGKILL":    unix.SIGKILL,

		// These are none.
		"":                           0,
		"0":                          0,
		"65":                         0,
		"-1":                         0,
		"RTMIN-1":                    0,
		"RTMIN+31":                   0,
		"RTMAX+1":                    0,
		"RTMAX-31":                   0,
		"RTMIN+x":                    0,
		"RTMIN+":                     0,
		"RTMIN+99999999999999999999": 0,
		"SIGNOTHING":                 0,
		"SIG":                        0,
	} {
		if got := signalOf(text); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}

func TestEachStopSignalOfThePodIsKnown(t *testing.T) {
	for number, name := range runtimeapi.Signal_name {
		if number == int32(runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT) {
			continue
		}

		got := StopSignal(runtimeapi.Signal(number), "SIGQUIT")
		if got == unix.SIGQUIT && !strings.HasSuffix(name, "SIGQUIT") {
			t.Errorf("%s is not known", name)
		}
	}

	for _, c := range []struct {
		pod   runtimeapi.Signal
		image string
		want  unix.Signal
	}{
		{runtimeapi.Signal_SIGNAL_SIGRTMINPLUS15, "SIGQUIT", 49},
		{runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS14, "SIGQUIT", 50},
		{runtimeapi.Signal_SIGNAL_SIGUSR1, "", unix.SIGUSR1},
		{runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, "RTMIN+3", 37},
		{runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, "nonsense", unix.SIGTERM},
		{runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, "", unix.SIGTERM},
	} {
		if got := StopSignal(c.pod, c.image); got != c.want {
			t.Errorf("pod %s, image %q: %d, want %d", c.pod, c.image, got, c.want)
		}
	}
}
