package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
)

// driver is a CSI driver behind a socket.
type driver struct {
	name   string
	side   string // in figures
	dir    string // beneath kubelet/ in it volumes are staged and published
	conn   *grpc.ClientConn
	filled int
}

// connect connects to a driver that runs already.
func connect(ctx context.Context, socketPath, dir string) (*driver, error) {
	conn, err := socket.Dial(socketPath)
	if err != nil {
		return nil, err
	}

	info, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("peer at %s: %w", socketPath, err), conn.Close())
	}

	name := info.GetName()
	return &driver{
		name: name,
		side: name,
		dir:  filepath.Join(dir, "peer"),
		conn: conn,
	}, nil
}

// startTimeout bounds how long a driver may take until it answers: with thousands of volumes it is less than
// a second.
const startTimeout = time.Minute

// bench is the driver that is started here.
type bench struct {
	driver
	options options
	state   string // on a tmpfs, as /run is
	cmd     *exec.Cmd

	// ended is closed when the process has ended, as exit says.
	ended chan struct{}
	exit  error
}

// start runs the program in a mount namespace of its own and waits until it answers. One that does not is
// ended.
func (b *bench) start(ctx context.Context) error {
	b.cmd = exec.CommandContext(
		ctx,
		b.options.binary,
		"--endpoint=unix://"+b.dir+"/csi.sock",
		"--node-name=bench",
		"--data-dir="+b.dir+"/data",
		"--state-dir="+b.state,
		"--kubelet-dir="+b.dir+"/kubelet",
		"--registration-dir=",
		"--pool-size=20Gi",
		"--log-level=error",
	)

	b.cmd.Stderr = os.Stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := b.cmd.Start(); err != nil {
		return err
	}

	// There is nothing to wait for once the process has ended.
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	b.ended = make(chan struct{})
	go func() {
		b.exit = b.cmd.Wait()
		giveUp(fmt.Errorf("%s has ended: %s", b.options.binary, b.cmd.ProcessState))
		close(b.ended)
	}()

	var err error
	if b.conn, err = await(ctx, b.dir+"/csi.sock"); err != nil {
		_ = b.cmd.Process.Kill()
		<-b.ended
	}
	return err
}

// await connects to a driver when it answers.
func await(ctx context.Context, path string) (*grpc.ClientConn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("no driver answers on %s within %s", path, startTimeout))
	defer cancel()

	// A client that finds no socket tries again after a second: there has to be one before it is asked.
	for range retry.Every(ctx, time.Millisecond) {
		if socket.Alive(path) {
			break
		}
	}

	conn, err := socket.Dial(path)
	if err != nil {
		return nil, err
	}
	_, err = csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
	if err == nil {
		return conn, nil
	}

	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, conn.Close())
}

// seen is a path of the driver's mount namespace.
func (b *bench) seen(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", b.cmd.Process.Pid, path)
}

func (b *bench) stop() error {
	b.conn.Close()
	err := b.cmd.Process.Signal(syscall.SIGTERM)
	<-b.ended
	return errors.Join(err, b.exit)
}

// fill brings the number of volumes that are just there to n.
func (d *driver) fill(ctx context.Context, n int) error {
	return inParallel(16, n-d.filled, func(int) error {
		_, err := d.create(ctx, fmt.Sprintf("present-%d-%d", n, time.Now().UnixNano()))
		d.filled = n
		return err
	})
}

func inParallel(workers, n int, f func(i int) error) error {
	if n <= 0 {
		return nil
	}

	var group sync.WaitGroup
	var next atomic.Int64
	var once sync.Once
	var failure error
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					once.Do(func() { failure = err })

					// The others stop, too.
					next.Store(int64(n))
				}
			}
		})
	}

	group.Wait()
	return failure
}
