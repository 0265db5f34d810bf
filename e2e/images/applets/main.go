// Command applets stands in for what Debian's busybox lacks, or does in another way than the busybox of the
// published images:
//
//	pgrep NAME    the PIDs of the processes whose name contains NAME; status 1 when there is none
//	ipcs -m       the shared memory segments of the IPC namespace
//	sh ...        a shell that executes the programs it is asked for: Debian's runs its own applets instead,
//	              whatever is at their path
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

var errNone = errors.New("no process matches")

func main() {
	var err error
	name := filepath.Base(os.Args[0])
	switch name {
	case "pgrep":
		err = pgrep(os.Args[1:])
	case "ipcs":
		err = ipcs()
	case "sh":
		err = shell(os.Args)
	default:
		err = fmt.Errorf("%s is none of pgrep, ipcs, sh", name)
	}

	if err != nil {
		if !errors.Is(err, errNone) {
			fmt.Fprintln(os.Stderr, err)
		}

		os.Exit(1)
	}
}

func pgrep(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: pgrep NAME")
	}

	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}

	found := errNone
	for _, file := range names {
		name, err := os.ReadFile(file)
		pid := filepath.Base(filepath.Dir(file))
		if err != nil || pid == strconv.Itoa(os.Getpid()) || !strings.Contains(string(name), args[0]) {
			continue
		}

		fmt.Println(pid)
		found = nil
	}

	return found
}

// ipcs prints the columns of util-linux' ipcs -m, from the kernel's table (proc(5), /proc/sysvipc/shm).
func ipcs() error {
	table, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return err
	}

	fmt.Print("\n------ Shared Memory Segments --------\n")
	fmt.Printf("%-10s %-10s %-10s %-10s %-10s %-10s\n", "key", "shmid", "owner", "perms", "bytes", "nattch")
	_, segments, _ := strings.Cut(string(table), "\n")
	for line := range strings.Lines(segments) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}

		key, _ := strconv.ParseInt(f[0], 10, 64)
		fmt.Printf("0x%08x %-10s %-10s %-10s %-10s %-10s\n", uint32(key), f[1], f[7], f[2], f[3], f[6])
	}

	return nil
}
