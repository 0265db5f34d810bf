package images

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestTagOfEtcdIsTheVersionThatIsBuilt compares the catalog with the modules that pin etcd.
func TestTagOfEtcdIsTheVersionThatIsBuilt(t *testing.T) {
	built := names(t)
	modules, err := filepath.Glob("../peers/etcd-*/go.mod")
	if err != nil || len(modules) < 2 {
		t.Fatalf("modules %v, %v", modules, err)
	}

	pinned := regexp.MustCompile(`go\.etcd\.io/etcd/(?:server|etcdctl|etcdutl)/v3 (v\S+)`)
	for _, module := range modules {
		data, err := os.ReadFile(module)
		if err != nil {
			t.Fatal(err)
		}

		var versions []string
		for _, m := range pinned.FindAllStringSubmatch(string(data), -1) {
			versions = append(versions, m[1])
		}
		if len(versions) != 3 || len(slices.Compact(versions)) != 1 {
			t.Errorf("%s has the versions %v, want one thrice", module, versions)
			continue
		}
		if name := "docker.io/trivet/etcd:" + versions[0]; !built[name] {
			t.Errorf("%s is not in the catalog", name)
		}
	}
}
