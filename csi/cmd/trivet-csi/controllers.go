package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/csi/alarm"
	"github.com/trivet-node/trivet/csi/capacity"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/groupsnapshot"
	"github.com/trivet-node/trivet/csi/modify"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/orphan"
	"github.com/trivet-node/trivet/csi/provision"
	"github.com/trivet-node/trivet/csi/resize"
	"github.com/trivet-node/trivet/csi/snapshot"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
)

// builtIn are the names of the controllers that a sidecar may be in the place of.
var builtIn = []string{"provision", "capacity", "resize", "modify", "snapshot", "groupsnapshot"}

// calls are the methods of CSI that nobody calls but who does the work of a controller.
var calls = map[string]string{
	"provision":     csi.Controller_CreateVolume_FullMethodName,
	"resize":        csi.Controller_ControllerExpandVolume_FullMethodName,
	"modify":        csi.Controller_ControllerModifyVolume_FullMethodName,
	"snapshot":      csi.Controller_CreateSnapshot_FullMethodName,
	"groupsnapshot": csi.GroupController_CreateVolumeGroupSnapshot_FullMethodName,
}

// parseControllers returns the names in a list: "all" are all of them, and "none" is none.
func parseControllers(list string) ([]string, error) {
	switch list {
	case "all":
		return builtIn, nil
	case "none":
		return nil, nil
	}

	names := strings.Split(list, ",")
	for i, name := range names {
		if !slices.Contains(builtIn, name) || slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("--controllers %q: it is all, none, or some of %s",
				list, strings.Join(builtIn, ","))
		}
	}
	return names, nil
}

// controllers are what the driver does in the Kubernetes API, in place of the CSI sidecars. They speak to the
// driver over CSI, as those do.
type controllers struct {
	log         *slog.Logger
	chosen      []string // of builtIn: those that run
	driver      *grpc.ClientConn
	objects     *objects.Watched
	events      *event.Recorder
	provisioner *provision.Provisioner
	resizer     *resize.Resizer
	modifier    *modify.Modifier
	capacities  *capacity.Publisher
	snapshotter *snapshot.Snapshotter
	groups      *groupsnapshot.Snapshotter
	orphans     *orphan.Watcher
	alarms      *alarm.Watcher
}

// newControllers returns nil where none is wanted, and where there are no credentials for the Kubernetes API.
func newControllers(log *slog.Logger, o options, volumes *volume.Store) (*controllers, error) {
	if len(o.controllers) == 0 {
		return nil, nil
	}

	config, err := credentials(o.kubeconfig)
	if errors.Is(err, kube.ErrNotInCluster) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}

	klog.SetSlogLogger(log)
	config.UserAgent = "trivet-csi/" + program.Version
	client, err := kube.New(config)
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}

	conn, err := dialAsController(o.endpoint)
	if err != nil {
		return nil, err
	}

	c, err := connectControllers(log, o, client, conn, volumes.Changes())
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}

	volumes.OnTrouble(c.recordTrouble(o.nodeName))
	c.alarms = alarm.New(volumes, alarm.ToEvents(alarm.Config{
		Local:   localOf(o),
		Objects: c.objects,
		Events:  c.events,
	}))
	c.orphans = orphan.New(orphan.Config{
		Node:    o.nodeName,
		Volumes: volumes,
		Objects: c.objects,
		Handles: c.snapshotter.Handles,
		Events:  c.events,
		Log:     log,
	})
	return c, nil
}

// dialAsController connects to the driver such that it knows its own controllers.
func dialAsController(endpoint string) (*grpc.ClientConn, error) {
	return socket.Dial(endpoint, grpc.WithUserAgent(driver.UserAgent))
}

// connectControllers makes the controllers over the objects that they watch together. A further one is added
// here and in run.
func connectControllers(
	log *slog.Logger,
	o options,
	client *kube.Client,
	conn *grpc.ClientConn,
	changes <-chan struct{},
) (*controllers, error) {
	local := localOf(o)
	c := &controllers{
		log:     log,
		chosen:  o.controllers,
		driver:  conn,
		objects: objects.New(client, local),
		events: event.New(
			kube.Events(client),
			event.Config{Component: driver.Name + "_" + o.nodeName, Log: log},
		),
	}

	var err error
	c.provisioner, err = provision.New(provision.Config{
		Dir:     filepath.Join(o.dataDir, "claims"),
		Local:   local,
		Objects: c.objects,
		Client:  client,
		CSI:     csi.NewControllerClient(conn),
		Events:  c.events,
		Log:     log,
	})
	if err != nil {
		return nil, err
	}

	c.resizer = resize.New(resize.Config{
		Local:   local,
		Objects: c.objects,
		Client:  client,
		CSI:     csi.NewControllerClient(conn),
		Events:  c.events,
		Log:     log,
	})

	c.modifier = c.newModifier(client, local)
	c.snapshotter = c.newSnapshotter(client, local)
	c.groups = c.newGroupSnapshotter(client, local)
	c.capacities = capacity.New(capacity.Config{
		Local:   local,
		Objects: c.objects,
		Client:  client,
		CSI:     csi.NewControllerClient(conn),
		Changes: changes,
		Log:     log,
	})

	return c, nil
}

// localOf is the driver of this node.
func localOf(o options) objects.Local {
	return objects.Local{Driver: driver.Name, TopologyKey: driver.TopologyKey, Node: o.nodeName}
}

func (c *controllers) newModifier(client *kube.Client, local objects.Local) *modify.Modifier {
	return modify.New(modify.Config{
		Local:   local,
		Objects: c.objects,
		Client:  client,
		CSI:     csi.NewControllerClient(c.driver),
		Events:  c.events,
		Log:     c.log,
	})
}

func (c *controllers) newSnapshotter(client *kube.Client, local objects.Local) *snapshot.Snapshotter {
	return snapshot.New(snapshot.Config{
		Local:   local,
		Objects: c.objects,
		Client:  client,
		CSI:     csi.NewControllerClient(c.driver),
		Events:  c.events,
		Log:     c.log,
	})
}

func (c *controllers) newGroupSnapshotter(
	client *kube.Client,
	local objects.Local,
) *groupsnapshot.Snapshotter {
	return groupsnapshot.New(groupsnapshot.Config{
		Local:   local,
		Objects: c.objects,
		Client:  client,
		CSI:     csi.NewGroupControllerClient(c.driver),
		Events:  c.events,
		Log:     c.log,
	})
}

// credentials returns kube.ErrNotInCluster when there is no kubeconfig and the process is not in a pod.
func credentials(kubeconfig string) (kube.Config, error) {
	if kubeconfig == "" {
		return kube.InCluster()
	}
	config, err := kube.Load(kubeconfig)
	if err != nil {
		err = &program.UsageError{Err: fmt.Errorf("--kubeconfig: %w", err)}
	}
	return config, err
}

// recordTrouble returns a function that records an event about the Node when a backend fails or recovers.
func (c *controllers) recordTrouble(node string) func(backend string, err error) {
	return func(backend string, err error) {
		kind, reason, text := corev1.EventTypeNormal, "VolumesRecovered", "works again"
		if err != nil {
			kind, reason, text = corev1.EventTypeWarning, "VolumesInTrouble", err.Error()
		}
		message := fmt.Sprintf("backend %s of %s: %s", backend, driver.Name, text)
		c.events.Record(event.Node(node), kind, reason, message)
	}
}

// recordFinding returns a function that records an event about the Node when something was found about a
// volume: its pods may be gone.
func (c *controllers) recordFinding(node string) func(id string, err error) {
	return func(id string, err error) {
		message := fmt.Sprintf("volume %s of %s: %v", id, driver.Name, err)
		if id == "" {
			message = fmt.Sprintf("volumes of %s: %v", driver.Name, err)
		}
		c.events.Record(event.Node(node), corev1.EventTypeWarning, "VolumeFinding", message)
	}
}

// run works until ctx ends, and returns when that work is done.
func (c *controllers) run(ctx context.Context) error {
	var group sync.WaitGroup
	group.Go(func() { c.events.Run(ctx) })
	group.Go(func() { c.objects.Run(ctx) })
	if c.objects.AwaitListed(ctx) == nil {
		c.log.Info("controllers run", "controllers", strings.Join(c.chosen, ","))

		// The first lists were there whole, and are kept slim.
		program.ForgetStart()
		for _, run := range c.own() {
			group.Go(func() { run(ctx) })
		}
		group.Go(func() { c.orphans.Run(ctx) })
		group.Go(func() { c.alarms.Run(ctx) })
	}

	group.Wait()
	return c.driver.Close()
}

// calls returns the full names of the methods that the chosen controllers call; none of a nil one.
func (c *controllers) calls() (methods []string) {
	if c == nil {
		return nil
	}
	for _, name := range c.chosen {
		if method, ok := calls[name]; ok {
			methods = append(methods, method)
		}
	}
	return methods
}

// own returns what the controllers do that were chosen.
func (c *controllers) own() (work []func(context.Context)) {
	all := map[string]func(context.Context){
		"provision":     c.provisioner.Run,
		"capacity":      c.capacities.Run,
		"resize":        c.resizer.Run,
		"modify":        c.modifier.Run,
		"snapshot":      c.snapshotter.Run,
		"groupsnapshot": c.groups.Run,
	}
	for _, name := range c.chosen {
		work = append(work, all[name])
	}
	return work
}
