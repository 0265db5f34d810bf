package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/attach"
	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/throttle"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/program"
)

// storage is what holds the volumes and puts them on paths.
type storage struct {
	lock      *os.File
	targets   *target.Root
	backends  backends
	volumes   *volume.Store
	groups    *group.Groups
	attached  *attach.Attachments // nil: volumes are used without being attached
	publisher *publish.Publisher
}

// openStorage opens all that the driver works on, and logs what was found and put right.
func openStorage(ctx context.Context, log *slog.Logger, o options) (s *storage, err error) {
	if err := makeDirectories(o); err != nil {
		return nil, err
	}
	if err := target.Supported(); err != nil {
		return nil, &program.CantRunError{
			What: "the kernel is too old: " + err.Error(),
			Do:   "use Linux 5.12 or newer",
		}
	}

	s = &storage{}
	what := "data directory " + o.dataDir + " (--data-dir)"
	if s.lock, err = lockfile.Take(ctx, filepath.Join(o.dataDir, "lock"), what); err != nil {
		return nil, err
	}
	if s.targets, err = target.OpenRoot(o.kubeletDir); err != nil {
		return nil, err
	}

	instance, err := instanceOf(o)
	if err != nil {
		return nil, err
	}

	// Mounting a pool and reading thousands of records take as long as each other.
	read := sync.OnceValues(func() (*volume.Records, error) {
		return volume.Load(filepath.Join(o.dataDir, "volumes"))
	})
	go func() { _, _ = read() }()
	s.backends, err = openBackends(ctx, log, o, instance, read)
	records, readErr := read()
	if readErr == nil {
		// They are set aside by now, whatever fails next.
		logUnreadable(log, records.Unreadable())
	}
	if err := errors.Join(err, readErr); err != nil {
		return nil, err
	}
	if err := s.openVolumes(log, o, records); err != nil {
		return nil, err
	}
	if err := s.openGroups(ctx, log, o); err != nil {
		return nil, err
	}
	if err := s.openAttached(log, o); err != nil {
		return nil, err
	}
	if err := s.openPublisher(log, o); err != nil {
		return nil, err
	}

	return s, nil
}

// makeDirectories makes those that are not there. Of records and keys nobody but root sees what they are of;
// what backends hold they narrow themselves.
func makeDirectories(o options) error {
	err := errors.Join(os.MkdirAll(o.dataDir, 0o700), os.MkdirAll(o.stateDir, 0o755),
		os.MkdirAll(o.kubeletDir, 0o755))
	if err != nil {
		return err
	}

	for _, private := range []string{
		"volumes", "groups", "claims", "attached",
		"keys", "keys/" + btrfspool.Name, "keys/" + loopfile.Name, "quota",
	} {
		err := datadir.Narrow(filepath.Join(o.dataDir, private))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *storage) openVolumes(log *slog.Logger, o options, records *volume.Records) error {
	reserve, err := reserveOf(o)
	if err != nil {
		return err
	}

	volumes, report, err := volume.Open(volume.Config{
		Dir:      filepath.Join(o.dataDir, "volumes"),
		Records:  records,
		Disk:     space.FileSystem{Dir: o.dataDir, Reserve: reserve},
		Backends: s.backends.forVolumes,
		Default:  s.backends.preferred,
		Most:     o.poolSize,
	})
	if err != nil {
		return err
	}

	s.volumes = volumes

	for _, id := range report.Unmade {
		log.Info("removed a volume whose creation was cut short", "volume", id)
	}

	for _, id := range report.Deleted {
		log.Info("finished the deletion of a volume", "volume", id)
	}

	for _, what := range report.Strays {
		log.Warn("a volume without a record is left alone", "volume", what)
	}

	log.Info("volumes are ready", "volumes", report.Recovered, "damaged", len(report.Damaged))
	// What is wrong at the start is reported as well.
	volumes.OnTrouble(func(backend string, err error) {
		if err == nil {
			log.Info("backend works again", "backend", backend)
		} else {
			log.Error("backend is in trouble", "backend", backend, "err", err)
		}
	})

	return nil
}

func (s *storage) openGroups(ctx context.Context, log *slog.Logger, o options) error {
	groups, report, err := group.Open(ctx, filepath.Join(o.dataDir, "groups"), s.volumes)
	if err != nil {
		return err
	}

	s.groups = groups

	logUnreadable(log, report.Unreadable)
	for _, id := range report.Removed {
		log.Info("removed a group snapshot whose making or deleting was cut short", "group", id)
	}
	for id, err := range report.Stuck {
		log.Error("group snapshot cannot be used", "group", id, "err", err)
	}
	return nil
}

func (s *storage) openAttached(log *slog.Logger, o options) error {
	if o.attachMost == 0 {
		return nil
	}
	attached, unreadable, err := attach.Open(filepath.Join(o.dataDir, "attached"), o.attachMost)
	if err != nil {
		return err
	}
	s.attached = attached
	logUnreadable(log, unreadable)
	return nil
}

func (s *storage) openPublisher(log *slog.Logger, o options) error {
	publisher, report, err := publish.Open(publish.Config{
		Dir:      filepath.Join(o.stateDir, "staged"),
		Volumes:  s.volumes,
		Targets:  s.targets,
		Backends: s.backends.forPods,
		Throttle: newThrottle(log),
	})
	if err != nil {
		return err
	}

	s.publisher = publisher

	logUnreadable(log, report.Unreadable)
	for id, err := range report.Limited {
		log.Error("the limits of a volume that is not in use are still in force", "volume", id, "error", err)
	}
	log.Info("staged volumes are found",
		"volumes", s.volumes.InUse(), "unstaged_by_reboot", len(report.Unstaged))
	return nil
}

// newThrottle returns nil where the kernel, or what is seen of it here, has no limits of input and output.
func newThrottle(log *slog.Logger) publish.Throttle {
	host, err := cgroup.Open()
	if err == nil {
		var t *throttle.Throttle
		if t, err = throttle.New(host, "/"); err == nil {
			return t
		}
	}
	log.Warn("limits of volumes are refused", "err", err)
	return nil
}

// keepLimits keeps the limits of volumes in force until ctx ends, and logs where that begins or ceases to
// fail.
func (s *storage) keepLimits(ctx context.Context, log *slog.Logger) {
	failing := map[string]string{}
	s.publisher.Limits.Run(ctx, func(id string, err error) {
		switch {
		case err == nil && failing[id] != "":
			log.Info("the limits of a volume are in force again", "volume", id)
			delete(failing, id)
		case err != nil && failing[id] != err.Error():
			log.Error("the limits of a volume are not in force", "volume", id, "err", err)
			failing[id] = err.Error()
		}
	})
}

func logUnreadable(log *slog.Logger, unreadable []durable.Unreadable) {
	for _, t := range unreadable {
		log.Error("record cannot be read and is set aside",
			"record", t.Name, "kept_as", t.Moved, "err", t.Err)
	}
}

// close frees what the process holds. The pool stays mounted while pods use it.
func (s *storage) close() error {
	var err error
	if s.backends.pool != nil {
		err = s.backends.pool.Close(s.volumes.InUse() == 0)
	}
	return errors.Join(err, s.targets.Close(), s.lock.Close())
}

// placeOf is where the volumes are, and where outside it is said that they are there: what kubelet keeps for
// its plugins is on the disk of the node.
func placeOf(o options) datadir.Place {
	return datadir.Place{
		Dir:     o.dataDir,
		Witness: filepath.Join(o.kubeletDir, "plugins", driver.Name, "data-directory"),
	}
}

// instanceOf returns the name of the data directory. One that is empty because its disk is not mounted is no
// new one: no pool is made there, and no volume that cannot be found is taken for deleted.
func instanceOf(o options) (string, error) {
	instance, err := placeOf(o).Instance()
	if m, ok := errors.AsType[*datadir.Mismatch](err); ok {
		return "", &program.CantRunError{What: m.What, Do: m.Do}
	}
	return instance, err
}

// reserveOf returns the bytes of the disk that volumes never get.
func reserveOf(o options) (int64, error) {
	if o.reserve > 0 {
		return o.reserve, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(o.dataDir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: o.dataDir, Err: err}
	}
	return min(int64(st.Blocks)*st.Bsize/20, 2<<30), nil
}
