package runtime_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

func TestImagesArePulledAndDescribed(t *testing.T) {
	s, c := connect(t)
	spec := runtime.ImageSpec{Image: "user/app"}
	if have, err := c.Image(t.Context(), spec); have != nil || err != nil {
		t.Errorf("before the pull: %+v, %v", have, err)
	}

	s.Private("user/app", "secret")
	if _, err := c.Pull(t.Context(), spec, nil, nil); err == nil {
		t.Error("pulled without the password")
	}

	auth := &runtime.Auth{Username: "u", Password: "secret"}
	ref, err := c.Pull(t.Context(), spec, auth, nil)
	if ref != "id-user/app" || err != nil {
		t.Errorf("pulled %q, %v", ref, err)
	}

	// containerd sends nothing to a registry whose name is not the one that is given, and a key of a docker
	// configuration may be a pattern.
	if named := s.NamedServers(); slices.ContainsFunc(named, func(n string) bool { return n != "" }) {
		t.Errorf("the credentials name the servers %q", named)
	}

	want := &runtime.Image{
		ID:       "id-user/app",
		RepoTags: []string{"user/app"},
		Size:     1 << 20,
		UID:      new(int64(1000)),
	}

	have, err := c.Image(t.Context(), spec)
	if diff := cmp.Diff(want, have); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}

	all, err := c.ListImages(t.Context())
	if diff := cmp.Diff([]*runtime.Image{want}, all); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
}

func TestInfoIsInTheTypesOfTheAPI(t *testing.T) {
	s, c := connect(t)
	got, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	want := runtime.Info{
		Name:         "fake",
		Version:      "1",
		RuntimeReady: true,
		NetworkReady: true,
		RuntimeWhy:   ": ",
		NetworkWhy:   ": ",
		Handlers: []v1.NodeRuntimeHandler{{
			Name: "all",
			Features: &v1.NodeRuntimeHandlerFeatures{
				RecursiveReadOnlyMounts: new(true),
				UserNamespaces:          new(true),
			},
		}},
		Features: &v1.NodeFeatures{SupplementalGroupsPolicy: new(true)},
	}
	if diff := cmp.Diff(want, got); diff != "" || !got.SupplementalGroupsPolicy() {
		t.Error(diff)
	}
	if (runtime.Info{}).SupplementalGroupsPolicy() {
		t.Error("a runtime that does not say follows group policies")
	}
	if driver := c.CgroupDriver(t.Context()); driver != "systemd" {
		t.Errorf("cgroup driver %q", driver)
	}

	if err := c.UpdatePodCIDR(t.Context(), "10.0.0.0/24"); err != nil {
		t.Error(err)
	}
	if want := "UpdateRuntimeConfig 10.0.0.0/24"; !slices.Contains(s.Calls(), want) {
		t.Errorf("calls %v, want %q", s.Calls(), want)
	}

	s.FailOn("Version", errors.New("starting"))
	if _, err := c.Info(t.Context()); err == nil || err.Error() != "starting" {
		t.Errorf("error %v", err)
	}
}

func TestImagesAreOnAFileSystem(t *testing.T) {
	_, c := connect(t)
	dir, used, err := c.ImageFS(t.Context())
	if dir != "/" || *used.UsedBytes != 5<<20 || *used.InodesUsed != 7 || err != nil {
		t.Errorf("%s, %+v, %v", dir, used, err)
	}
	if dir, err := c.ImageDir(t.Context()); dir != "/" || err != nil {
		t.Errorf("%s, %v", dir, err)
	}
}
