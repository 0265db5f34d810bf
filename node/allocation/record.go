package allocation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
)

// record is what is on disk of a pod that was ever resized, in its directory: the pod's teardown removes it.
type record struct {
	UID        types.UID `json:"uid"`
	Generation int64     `json:"generation"`
	At         time.Time `json:"at"`
	Resources  Resources `json:"resources"`
}

// Names of the record, and of one that cannot be read, in the directory of the pod.
const (
	recordFile = "allocation.json"
	asideFile  = "allocation.json.unreadable"
)

// recordLimit bounds the size of a record in bytes. A container takes some 200.
const recordLimit = 1 << 20

func (l *Ledger) path(uid types.UID, file string) string {
	return filepath.Join(l.rootDir, "pods", string(uid), file)
}

// write writes the record of a pod. It need not survive a power loss: then what the API shows counts, which
// shows nothing before it is written. A resize waits for it, so it does not wait for the disk.
func (l *Ledger) write(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}

	path := l.path(r.UID, recordFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}

	return durable.WriteUnflushed(path, data, 0o600)
}

// read reads the record of a pod. One that is torn, or another pod's, is set aside and reported, and counts
// as missing.
func (l *Ledger) read(uid types.UID) (r record, found bool) {
	data, err := boundedfile.Read(l.path(uid, recordFile), recordLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && (r.UID != uid || r.At.IsZero()) {
		err = fmt.Errorf("it is of pod %q", r.UID)
	}
	if err == nil {
		return r, true
	}

	moved := os.Rename(l.path(uid, recordFile), l.path(uid, asideFile))
	l.log.Warn("the record of what a pod has been given cannot be read and is set aside",
		"uid", uid,
		"file", asideFile,
		"err", errors.Join(err, moved),
	)

	return record{}, false
}
