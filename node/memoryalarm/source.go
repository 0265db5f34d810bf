package memoryalarm

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// stalls are triggers of psi(5), in microseconds: tasks have waited for memory for a tenth of the time, of
// one second or, without CAP_SYS_RESOURCE, of two.
var stalls = []string{"some 100000 1000000", "some 200000 2000000"}

// machineStalls is where the kernel reports how long tasks of the machine wait for memory.
const machineStalls = "/proc/pressure/memory"

// openSources opens what does not depend on an amount. What a kernel does not have is left out: a look now
// and then finds out later what it would have reported.
func (a *Alarm) openSources(pods string) {
	unreported := a.openStalls(machineStalls)
	if a.host.V2 {
		dir := a.host.Dir("memory", pods)
		a.note(a.openStalls(filepath.Join(dir, "memory.pressure")))
		a.note(a.openChanges(filepath.Join(dir, "memory.events")))
	} else if unreported != nil {
		a.note(a.register("/", "memory.pressure_level", "medium"))
	}

	a.note(unreported)
}

func (a *Alarm) note(err error) {
	if err != nil {
		a.log.Debug("the kernel does not report memory in this way", "err", err)
	}
}

// openStalls has stalls reported: a file of psi(5).
func (a *Alarm) openStalls(file string) error {
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}

	for _, trigger := range stalls {
		if _, err = unix.Write(fd, append([]byte(trigger), 0)); err == nil {
			break
		}
	}

	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", file, err), unix.Close(fd))
	}

	if err := a.add(fd, source{name: file}, unix.EPOLLPRI); err != nil {
		return errors.Join(err, unix.Close(fd))
	}

	return nil
}

// openChanges has changes of a file of a control group reported.
func (a *Alarm) openChanges(file string) error {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}

	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", file, err), unix.Close(fd))
	}

	if err := a.add(fd, source{name: file, counted: true}, unix.EPOLLIN); err != nil {
		return errors.Join(err, unix.Close(fd))
	}

	return nil
}

// register has a file of a control group of cgroup v1 reported on (cgroup.event_control).
func (a *Alarm) register(group, file, argument string) error {
	_, err := a.registered(group, file, argument)
	return err
}

// registered is register, and returns the descriptor on which the kernel reports.
func (a *Alarm) registered(group, file, argument string) (fd int, err error) {
	dir := a.host.Dir("memory", group)
	name := filepath.Join(dir, file)
	watched, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(watched)

	control, err := unix.Open(filepath.Join(dir, "cgroup.event_control"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(control)

	if fd, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}

	// The order is the kernel's: who is told, of what, when.
	if _, err = fmt.Fprintf(writer(control), "%d %d %s", fd, watched, argument); err == nil {
		err = a.add(fd, source{name: name, counted: true}, unix.EPOLLIN)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("%s: %w", name, err), unix.Close(fd))
	}

	return fd, nil
}

// writer writes to a descriptor.
type writer int

func (w writer) Write(p []byte) (int, error) { return unix.Write(int(w), p) }
