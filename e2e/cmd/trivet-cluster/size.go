package main

import (
	"flag"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/e2e/cluster"
)

// sizeFlags adds the flags that say what each node has of its own.
func sizeFlags(fs *flag.FlagSet) *cluster.Size {
	size := &cluster.Size{}
	quantity(
		fs,
		&size.Disk,
		"node-disk",
		"size of a file system of each node's own for kubelet's directory, "+
			"logs, images and containers, such as 2Gi; without it they are on this host's",
	)

	quantity(fs, &size.ImageDisk, "image-disk", "size of a second one for images and containers")
	quantity(fs, &size.Inodes, "disk-inodes", "inodes of each of them; without it as many as ext4 has for "+
		"their size")
	quantity(fs, &size.Memory, "node-memory", "memory that all processes of a node together may have")
	quantity(
		fs,
		&size.Volumes,
		"node-volumes",
		"how much each node's volumes may have together; without it 5Gi",
	)

	return size
}

func quantity(fs *flag.FlagSet, value *int64, name, usage string) {
	fs.Func(name, usage, func(text string) error {
		if text == "" {
			*value = 0
			return nil
		}

		q, err := resource.ParseQuantity(text)
		*value = q.Value()
		return err
	})
}
