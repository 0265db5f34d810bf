package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/namespace"
)

// side is one plugin set with a host of its own.
type side struct {
	name      string
	dir, host string
	list      *libcni.NetworkConfigList
	cni       *libcni.CNIConfig
	ports     int                // host ports of a pod
	took      [2][]time.Duration // ADD, DEL
	burned    [2]time.Duration   // of the processors, all together
}

func newSide(name, dir, list, extra, plugins string, ports int) (*side, error) {
	s := &side{
		name:  name,
		dir:   dir,
		host:  filepath.Join(dir, "host"),
		ports: ports,
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}

	text := fmt.Appendf(nil, list, filepath.Join(dir, "data"), extra)
	var err error
	if s.list, err = libcni.ConfListFromBytes(text); err != nil {
		return nil, err
	}
	if plugins, err = filepath.Abs(plugins); err != nil {
		return nil, err
	}

	s.cni = libcni.NewCNIConfigWithCacheDir([]string{plugins}, filepath.Join(dir, "cache"), nil)
	return s, namespace.Create(map[namespace.Kind]string{namespace.Net: s.host}, nil)
}

func (s *side) close() {
	pins, _ := filepath.Glob(filepath.Join(s.dir, "pod-*"))
	for _, pin := range append(pins, s.host) {
		if err := namespace.Unpin(pin); err != nil {
			fmt.Fprintln(os.Stderr, "cni-bench:", err)
		}
	}
}

func (s *side) attachment(i int) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{
		ContainerID: fmt.Sprintf("pod-%d", i),
		NetNS:       filepath.Join(s.dir, fmt.Sprintf("pod-%d", i)),
		IfName:      "eth0",

		// As the runtimes of Kubernetes: for pods, ADD looks who listens on host ports.
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "bench"}},
	}
	if s.ports > 0 {
		rt.CapabilityArgs = map[string]any{"portMappings": s.portMappings(i)}
	}

	return rt
}

// portMappings are the host ports of a pod with a number.
func (s *side) portMappings(i int) (all []map[string]any) {
	for n := range s.ports {
		all = append(all, map[string]any{
			"hostPort":      10000 + s.ports*i + n,
			"containerPort": 80 + n,
			"protocol":      "tcp",
		})
	}
	return all
}

// addAll adds the first pods, which are not measured.
func (s *side) addAll(ctx context.Context, pods int) error {
	for i := range pods {
		if _, err := s.add(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// add makes a pod's namespace and attaches it; the time is that of the ADD alone.
func (s *side) add(ctx context.Context, i int) (took time.Duration, err error) {
	rt := s.attachment(i)
	if err := namespace.Create(map[namespace.Kind]string{namespace.Net: rt.NetNS}, nil); err != nil {
		return 0, err
	}

	// Plugins inherit the namespace that stands for the host's from the thread.
	err = namespace.Do(func() error {
		start := time.Now()
		_, err := s.cni.AddNetworkList(ctx, s.list, rt)
		took = time.Since(start)
		return err
	}, s.host)

	return took, err
}

// measure adds and deletes one pod.
func (s *side) measure(ctx context.Context, i int) error {
	for n, do := range []func(context.Context, int) (time.Duration, error){s.add, s.del} {
		before := childrenTime()
		took, err := do(ctx, i)
		if err != nil {
			return err
		}

		s.burned[n] += childrenTime() - before
		s.took[n] = append(s.took[n], took)
	}
	return nil
}

// forget forgets what was measured.
func (s *side) forget() {
	s.took, s.burned = [2][]time.Duration{}, [2]time.Duration{}
}

// processor is the mean of the time that ADD or DEL has taken of the processors, in ms.
func (s *side) processor(n int) float64 {
	return s.burned[n].Seconds() * 1000 / float64(len(s.took[n]))
}

// childrenTime is the processor time of all plugins so far.
func childrenTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// del deletes a pod and its namespace; the time is that of the DEL alone.
func (s *side) del(ctx context.Context, i int) (took time.Duration, err error) {
	rt := s.attachment(i)
	err = namespace.Do(func() error {
		start := time.Now()
		err := s.cni.DelNetworkList(ctx, s.list, rt)
		took = time.Since(start)
		return err
	}, s.host)
	return took, errors.Join(err, namespace.Unpin(rt.NetNS))
}
