package smoke

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// busybox is an image as the registry has it.
const busybox = Registry + "/library/busybox:1.37"

// images are those that are loaded or pulled.
type images Smoke

// build makes an image on the host that no node has.
func (s images) build(ctx context.Context, image string) error {
	label := strconv.FormatInt(time.Now().UnixNano(), 10)
	dockerfile := "FROM " + busybox + "\nLABEL smoke=" + label + "\n"
	_, err := s.Cluster.Output(ctx, dockerfile, "docker", "build", "--tag="+image, "-")
	return err
}

// load is kind load.
func (s images) load(ctx context.Context, args ...string) error {
	_, err := s.Cluster.Output(ctx, "", "kind", append([]string{"load", "--name=" + s.Name}, args...)...)
	return err
}

// runs runs a pod of an image on every node.
func (s images) runs(ctx context.Context, name, image, pullPolicy string) error {
	pairs := []string{"NAME", name, "IMAGE", image, "POLICY", pullPolicy}
	if err := namespace(s).applyEach(ctx, "image.yaml", pairs...); err != nil {
		return err
	}
	if err := namespace(s).ready(ctx, "image="+name); err != nil {
		return fmt.Errorf("pods of image %s: %w", image, err)
	}

	_, err := namespace(s).kubectl(ctx, "delete", "pod", patience, "-l", "image="+name)
	return err
}

// loadDockerImage loads an image, and then a second name of it, which kind only tags.
func (s images) loadDockerImage(ctx context.Context) (string, error) {
	const image, again = "smoke.example/loaded:1", "smoke.example/loaded:2"
	if err := s.build(ctx, image); err != nil {
		return "", err
	}
	if err := s.load(ctx, "docker-image", image); err != nil {
		return "", err
	}
	if err := s.runs(ctx, "loaded", image, "Never"); err != nil {
		return "", err
	}

	if _, err := s.Cluster.Output(ctx, "", "docker", "tag", image, again); err != nil {
		return "", err
	}
	if err := s.load(ctx, "docker-image", again); err != nil {
		return "", err
	}
	return "a second name, too", s.runs(ctx, "tagged", again, "Never")
}

// loadImageArchive loads two images from one file.
func (s images) loadImageArchive(ctx context.Context) (string, error) {
	images := []string{"smoke.example/archived:1", "smoke.example/archived:2"}
	for _, image := range images {
		if err := s.build(ctx, image); err != nil {
			return "", err
		}
	}

	archive := filepath.Join(s.Dir, "images.tar")
	save := append([]string{"save", "--output=" + archive}, images...)
	if _, err := s.Cluster.Output(ctx, "", "docker", save...); err != nil {
		return "", err
	}
	if err := s.load(ctx, "image-archive", archive); err != nil {
		return "", err
	}

	for i, image := range images {
		if err := s.runs(ctx, "archived-"+strconv.Itoa(i), image, "Never"); err != nil {
			return "", err
		}
	}
	return "two images in one file", nil
}

// localRegistry pulls by the name that the registry has on the host. Nodes would not find it there.
func (s images) localRegistry(ctx context.Context) (string, error) {
	return busybox, s.runs(ctx, "registry", busybox, "Always")
}

// onOneNode loads an image onto the last node, and looks that no other node has it.
func (s images) onOneNode(ctx context.Context) error {
	const image = "smoke.example/one:1"
	if err := s.build(ctx, image); err != nil {
		return err
	}

	last := s.Nodes[len(s.Nodes)-1]
	if err := s.load(ctx, "docker-image", image, "--nodes="+last); err != nil {
		return err
	}

	for _, node := range s.Nodes {
		out, err := s.Cluster.OnNode(ctx, node, "crictl images --output=json")
		if err != nil {
			return err
		}
		if has := strings.Contains(out, image); has != (node == last) {
			return fmt.Errorf("image %s was loaded onto %s, and node %s has it: %t", image, last, node, has)
		}
	}
	return nil
}
