package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/provision"
	"github.com/trivet-node/trivet/csi/provision/kubeapi"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
)

// startProvisioner starts the provisioner where there are credentials for the Kubernetes API.
func startProvisioner(
	ctx context.Context,
	group *errgroup.Group,
	log *slog.Logger,
	o options,
	volumes *volume.Service,
) error {
	config, err := credentials(o.kubeconfig)
	if config == nil || err != nil {
		return err
	}

	klog.SetSlogLogger(log)
	config.UserAgent = "trivet-csi/" + program.Version
	client, err := kubeapi.New(config)
	if err != nil {
		return &program.UsageError{Err: err}
	}

	conn, err := socket.Dial(o.endpoint)
	if err != nil {
		return err
	}

	p, err := provision.New(provision.Config{
		Driver:      driver.Name,
		TopologyKey: driver.TopologyKey,
		Node:        o.nodeName,
		Dir:         filepath.Join(o.dataDir, "claims"),
		Client:      client,
		CSI:         csi.NewControllerClient(conn),
		Log:         log,
	})
	if err != nil {
		return errors.Join(err, conn.Close())
	}

	volumes.OnChange(p.CapacityChanged)
	volumes.OnTrouble(p.Trouble)
	group.Go(func() error { return errors.Join(p.Run(ctx), conn.Close()) })
	return nil
}

// credentials returns nil when there is no kubeconfig and the process is not in a pod.
func credentials(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, nil
		}

		return config, err
	}

	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, &program.UsageError{Err: fmt.Errorf("--kubeconfig %s: %w", kubeconfig, err)}
	}

	return config, nil
}
