package smoke

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// logs are what kind exports.
type logs Smoke

// export looks in what kind exports for the logs of trivet's programs.
func (s logs) export(ctx context.Context) (string, error) {
	dir := filepath.Join(s.Dir, "logs")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if _, err := s.Cluster.Output(ctx, "", "kind", "export", "logs", "--name="+s.Name, dir); err != nil {
		return "", err
	}

	var missing error
	for _, node := range s.Nodes {
		for _, l := range wanted {
			missing = errors.Join(missing, l.look(filepath.Join(dir, node)))
		}
	}
	return dir, missing
}

// log is a file, and what must be in it.
type log struct{ files, text string }

var wanted = []log{
	{"journal.log", "trivet-cri["},
	{"journal.log", "monitor is ready"},
	{"kubelet.log", "node agent"},
	{"pods/kube-system_trivet-netd-*/trivet-netd/0.log", "level=INFO"},
	{"pods/kube-system_trivet-csi-*/trivet-csi/0.log", "level=INFO"},
	{"containers/app-*.log", "level=INFO"},
	{"images.log", "busybox"},
}

func (l log) look(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, l.files))
	if err != nil {
		return err
	}

	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.Contains(string(data), l.text) {
			return nil
		}
	}
	return fmt.Errorf("%d files %s in %s, and none has %q", len(files), l.files, dir, l.text)
}
