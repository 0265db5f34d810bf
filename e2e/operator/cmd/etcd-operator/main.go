// Command etcd-operator runs the controllers of EtcdClusters and EtcdSnapshots. Of several replicas one
// works.
package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/trivet-node/trivet/e2e/operator/controller"
	"github.com/trivet-node/trivet/e2e/operator/v1alpha1"
)

func main() {
	image := flag.String("etcd-image", "docker.io/trivet/etcd", "image of etcd; its tag is v and the version")
	flag.Parse()

	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil)))
	if err := run(*image); err != nil {
		fmt.Fprintln(os.Stderr, "etcd-operator:", err)
		os.Exit(1)
	}
}

func run(image string) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}

	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}

	m, err := ctrl.NewManager(config, options(scheme))
	if err != nil {
		return err
	}
	if err := m.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}

	clusters := &controller.Cluster{Client: m.GetClient(), Image: image}
	if err := clusters.SetupWithManager(m); err != nil {
		return err
	}

	snapshots := &controller.Snapshot{Client: m.GetClient(), Image: image}
	if err := snapshots.SetupWithManager(m); err != nil {
		return err
	}

	return m.Start(ctrl.SetupSignalHandler())
}

func options(scheme *runtime.Scheme) ctrl.Options {
	return ctrl.Options{
		Scheme:                        scheme,
		HealthProbeBindAddress:        ":8081",
		Metrics:                       metrics.Options{BindAddress: ":8080"},
		LeaderElection:                true,
		LeaderElectionID:              "etcd-operator",
		LeaderElectionReleaseOnCancel: true,

		// A replica whose node has died is succeeded within these.
		LeaseDuration: new(8 * time.Second),
		RenewDeadline: new(5 * time.Second),
		RetryPeriod:   new(time.Second),

		// A decision about members is made of what is there now.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{
			&corev1.Pod{}, &corev1.PersistentVolumeClaim{}, &batchv1.Job{}, &v1alpha1.EtcdCluster{},
		}}},
	}
}
