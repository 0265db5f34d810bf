package program

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// residentOfFiles is how many KiB of files the process has resident.
func residentOfFiles(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "RssFile:"); ok {
			size, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return size
		}
	}
	t.Fatal("no RssFile in /proc/self/status")
	return 0
}

func TestWhatTheStartNeededIsNotResident(t *testing.T) {
	before := residentOfFiles(t)
	ForgetStart()
	if after := residentOfFiles(t); after > before*9/10 {
		t.Errorf("%d KiB of files are resident, there were %d", after, before)
	}
}

func TestOnlyWhatNobodyWritesToIsForgotten(t *testing.T) {
	const file = "/usr/bin/a program"
	for line, want := range map[string]bool{
		"00400000-00b0c000 r-xp 00000000 fe:00 79 /usr/bin/a program\n":       true,
		"00b0c000-01200000 r--p 0070c000 fe:00 79 /usr/bin/a program":         true,
		"01200000-01260000 rw-p 00e00000 fe:00 79 /usr/bin/a program":         false,
		"00400000-00b0c000 r-xp 00000000 fe:00 79 /usr/bin/a program of ours": false,
		"7f0000000000-7f0000021000 rw-p 00000000 00:00 0":                     false,
		"7ffc0000-7ffc1000 r-xp 00000000 00:00 0 [vdso]":                      false,
		"torn r-xp 00000000 fe:00 79 /usr/bin/a program":                      false,
		"": false,
	} {
		start, size, ok := parseReadOnly(line, file)
		if ok != want || ok && (start%4096 != 0 || size%4096 != 0 || size == 0) {
			t.Errorf("%q: %#x, %#x, %t", line, start, size, ok)
		}
	}
}
