// Command staticpods prints what kubelet makes of a directory of static pods: name and UID of each file's
// pod, and the hash by which it knows that pod's first container again, computed by kubelet's own code. The
// values that node/manifest is tested with come from it. As both depend on where the files are, it copies
// them to a directory that is given.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/config"
	"k8s.io/kubernetes/pkg/kubelet/container"
	kubelettypes "k8s.io/kubernetes/pkg/kubelet/types"
)

func main() {
	from := flag.String("from", "", "directory of manifests")
	at := flag.String("at", "/tmp/trivet-static-pods", "where kubelet finds them: made and removed")
	node := flag.String("node", "node1", "name of the node")
	flag.Parse()
	if err := run(*from, *at, *node); err != nil {
		fmt.Fprintln(os.Stderr, "staticpods:", err)
		os.Exit(1)
	}
}

// run has kubelet read one manifest after the other, so that its answer is known to be about that file.
func run(from, at, node string) error {
	files, err := filepath.Glob(filepath.Join(from, "[^.]*.yaml"))
	if err != nil {
		return err
	}

	slices.Sort(files)
	for _, file := range files {
		pod, err := read(file, at, node)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}

		hash := container.HashContainer(&pod.Spec.Containers[0])
		fmt.Printf("%s %s %s %x\n", filepath.Base(file), pod.Name, pod.UID, hash)
	}

	return nil
}

func read(file, at, node string) (*v1.Pod, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(at)

	if err := os.WriteFile(filepath.Join(at, filepath.Base(file)), data, 0o600); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	pods := config.NewPodConfig(record.NewFakeRecorder(10), nil)
	files := pods.Channel(ctx, kubelettypes.FileSource)
	config.NewSourceFile(klog.Background(), at, types.NodeName(node), time.Minute, files)
	select {
	case update := <-pods.Updates():
		if len(update.Pods) != 1 {
			return nil, fmt.Errorf("kubelet sees %d pods", len(update.Pods))
		}

		return update.Pods[0], nil

	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
