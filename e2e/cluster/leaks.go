package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/durable"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// loops lists loop devices whose backing file lies (or lay) below the state directory: device -> file.
func (c *Cluster) loops() (map[string]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}

	kept := map[inode]string{}
	images, err := filepath.Glob(c.path("machines", "*", "keep", "var", "lib", "trivet"))
	if err != nil {
		return nil, err
	}

	for _, dir := range images {
		if err := inodes(dir, kept); err != nil {
			return nil, err
		}
	}

	out := map[string]string{}
	for _, f := range files {
		dev := "/dev/" + strings.Split(f, "/")[3]
		backing, err := backingFile(dev)
		if err != nil {
			// detached meanwhile
			continue
		}

		if file, ours := kept[backing]; ours {
			out[dev] = file
		}
	}

	return out, nil
}

// inode names a file on this machine.
type inode struct{ device, number uint64 }

// inodes notes the files that a volume driver may have put on a loop device: any but those of container
// images.
func inodes(dir string, into map[inode]string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.IsDir() && path == filepath.Join(dir, "cri"):
			return filepath.SkipDir
		case e.Type().IsRegular():
			var st unix.Stat_t
			if unix.Lstat(path, &st) == nil {
				into[inode{st.Dev, st.Ino}] = path
			}
		}

		return nil
	})
}

// backingFile identifies the file behind a loop device: its path is no help, because each node shows it with
// its own mounts' eyes.
func backingFile(dev string) (inode, error) {
	f, err := os.Open(dev)
	if err != nil {
		return inode{}, err
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return inode{}, err
	}
	return inode{info.Device, info.Inode}, nil
}

// detachLoops frees the loop devices that killed nodes have left.
func (c *Cluster) detachLoops() error {
	loops, err := c.loops()
	if err != nil {
		return err
	}

	var errs []error
	for dev := range loops {
		f, err := os.OpenFile(dev, os.O_RDWR, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}

		if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil &&
			!errors.Is(err, unix.ENXIO) {
			errs = append(errs, fmt.Errorf("detach %s: %w", dev, err))
		}

		f.Close()
	}

	return errors.Join(errs...)
}

// rememberHost writes down how the host looks before the cluster comes up.
func (c *Cluster) rememberHost() error {
	now, err := leaks.TakeSnapshot()
	if err != nil {
		return err
	}
	data, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return durable.WriteVolatile(c.path("host.json"), data, 0o644)
}

// Leaks lists what must not be there: on the host, after the cluster went down (host.json of the last cluster
// is kept for that); on the nodes, while it is up, whatever is left of pods that are gone.
func (c *Cluster) Leaks(ctx context.Context) ([]leaks.Leak, error) {
	plan, err := c.Plan()
	if errors.Is(err, fs.ErrNotExist) {
		return c.hostLeaks()
	}
	if err != nil {
		return nil, err
	}

	var out []leaks.Leak
	for _, n := range plan.Nodes {
		found, err := c.nodeLeaks(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}

		for _, l := range found {
			out = append(out, leaks.Leak{Kind: n.Name + ": " + l.Kind, What: l.What})
		}
	}

	return out, nil
}

// AwaitNoLeaks gives the nodes the time to clean up after pods that have just gone.
func (c *Cluster) AwaitNoLeaks(ctx context.Context, limit time.Duration) error {
	return leaks.Await(ctx, limit, func() ([]leaks.Leak, error) { return c.Leaks(ctx) })
}

func (c *Cluster) hostLeaks() ([]leaks.Leak, error) {
	out, err := leaks.Host(c.Dir, c.groups())
	if err != nil {
		return nil, err
	}

	data, err := os.ReadFile(c.path("host.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}

	var before leaks.Snapshot
	if err := json.Unmarshal(data, &before); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path("host.json"), err)
	}

	now, err := leaks.TakeSnapshot()
	if err != nil {
		return nil, err
	}

	return append(out, now.Since(before)...), nil
}

// nodeDaemons are the programs that belong on a node without any pod.
var nodeDaemons = []string{"containerd", "kubelet", "kube-proxy", "trivet-cri", "trivet-monitor",
	"trivet-node", "trivet-netd", "trivet-csi", "dbus-daemon"}

func (c *Cluster) nodeLeaks(ctx context.Context, n Node) ([]leaks.Leak, error) {
	m := c.Machine(n.Name)
	if m.Pid() == 0 {
		return nil, fmt.Errorf("machine %s is down", n.Name)
	}

	client, err := c.client()
	if err != nil {
		return nil, err
	}

	pods, err := client.CoreV1().Pods("").List(
		ctx,
		metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name},
	)
	if err != nil {
		return nil, err
	}

	view := leaks.View{
		Pid:        m.Pid(),
		Group:      c.group(n.Name),
		Daemons:    nodeDaemons,
		OldLogs:    n.Agent == "kubelet",
		UnitStates: func(names []string) map[string]string { return unitStates(ctx, m, names) },
	}

	for _, p := range pods.Items {
		view.Live = append(view.Live, leaks.Pod{UID: string(p.UID), HostNetwork: p.Spec.HostNetwork})
	}

	volumes, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}

	for _, pv := range volumes.Items {
		if pv.Spec.CSI != nil {
			view.Volumes = append(view.Volumes, pv.Spec.CSI.VolumeHandle)
		}
	}

	found, err := leaks.Node(view)
	if err != nil {
		return nil, err
	}

	loops, err := c.nodeLoops(n.Name, view.Volumes)
	return append(found, loops...), err
}

// unitStates asks a machine's systemd how its units are: "failed, failed, timeout".
func unitStates(ctx context.Context, m *machine.Machine, names []string) map[string]string {
	args := append([]string{"show", "--property=Id,ActiveState,SubState,Result", "--"}, names...)
	cmd, err := m.Command(ctx, "systemctl", args...)
	if err != nil {
		return nil
	}

	// a unit may be gone by now; the others are shown
	out, _ := cmd.Output()
	return parseUnitStates(string(out))
}

// parseUnitStates reads what "systemctl show" prints of several units: NAME=VALUE lines, and a blank line
// between two units.
func parseUnitStates(shown string) map[string]string {
	states := map[string]string{}
	for unit := range strings.SplitSeq(shown, "\n\n") {
		properties := map[string]string{}
		for line := range strings.Lines(unit) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			properties[name] = value
		}

		state := []string{properties["ActiveState"], properties["SubState"]}

		// slices have none
		if result := properties["Result"]; result != "" {
			state = append(state, result)
		}

		states[properties["Id"]] = strings.Join(state, ", ")
	}

	return states
}

// nodeLoops lists the loop devices of a node on files of volumes that are gone, and second ones on the same
// file.
func (c *Cluster) nodeLoops(node string, volumes []string) ([]leaks.Leak, error) {
	loops, err := c.loops()
	if err != nil {
		return nil, err
	}

	var out []leaks.Leak
	seen := map[string]bool{}
	for device, file := range loops {
		if !strings.HasPrefix(file, c.path("machines", node)+"/") {
			continue
		}

		volume, isImage := strings.CutSuffix(filepath.Base(file), ".img")
		gone := isImage && volume != "pool" && !slices.Contains(volumes, volume)
		if gone || seen[file] {
			out = append(out, leaks.Leak{Kind: "loop device", What: device + " on " + file})
		}

		seen[file] = true
	}

	return out, nil
}
