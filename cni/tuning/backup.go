package tuning

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/blocking"
	"github.com/trivet-node/trivet/internal/durable"
)

// Backups is the directory of what interfaces had before.
type Backups struct{ Dir string }

// backup is JSON on the disk. Network is ours: GC of a network leaves the files of others alone.
type backup struct {
	MAC           string `json:"mac,omitempty"`
	Promiscuous   *bool  `json:"promisc,omitempty"`
	MTU           int    `json:"mtu,omitempty"`
	AllMulticast  *bool  `json:"allmulti,omitempty"`
	TxQueueLength *int   `json:"txQLen,omitempty"`
	Network       string `json:"network,omitempty"`
}

// tempPrefix begins the names of files that are being written; after tempAge there is no writer any more.
const (
	tempPrefix = ".tmp-"
	tempAge    = time.Minute
)

// suffix ends the names of the files.
const suffix = ".json"

func (b Backups) file(o ipam.Owner) string {
	return filepath.Join(b.Dir, o.ContainerID+"_"+o.IfName+suffix)
}

// Save keeps what the interface of an attachment has of what is about to be changed. What is kept already
// is from an ADD that did not come to its end, and stays.
func (b Backups) Save(network string, o ipam.Owner, link rtnl.Link, s Settings) error {
	file := b.file(o)
	if _, err := os.Lstat(file); err == nil {
		return nil
	}

	old := backup{Network: network}
	if s.MAC != nil {
		old.MAC = link.MAC.String()
	}
	if s.Promiscuous {
		old.Promiscuous = new(link.Promiscuity != 0)
	}
	if s.MTU != 0 {
		old.MTU = link.MTU
	}
	if s.AllMulticast != nil {
		old.AllMulticast = &link.AllMulticast
	}
	if s.TxQueueLength != nil {
		old.TxQueueLength = &link.TxQueueLength
	}

	data, err := json.MarshalIndent(old, "", " ")
	if err == nil {
		err = os.MkdirAll(b.Dir, 0o700)
	}
	if err == nil {
		err = durable.WriteVolatile(file, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the settings of interface %s: %w", o.IfName, err)
	}

	return nil
}

// Restore gives an interface back what it had, in the network namespace that the thread is in. Nothing kept
// is success, and so is an interface that is gone.
func (b Backups) Restore(pod *rtnl.Conn, o ipam.Owner) error {
	old, ok := read(b.file(o))
	if !ok {
		return nil
	}
	link, err := pod.LinkByName(o.IfName)
	if err != nil {
		// Its settings went with it.
		return nil
	}

	var s Settings
	if s.MAC, err = net.ParseMAC(old.MAC); err != nil {
		s.MAC = nil
	}
	s.MTU = old.MTU
	s.AllMulticast = old.AllMulticast
	s.TxQueueLength = old.TxQueueLength
	err = s.SetInterface(pod, link)
	if old.Promiscuous != nil {
		err = errors.Join(err, pod.Must(rtnl.SetPromiscuous(link.Index, *old.Promiscuous)))
	}

	return err
}

// read reads what is kept. What cannot be read says nothing.
func read(file string) (b backup, ok bool) {
	data, err := blocking.ReadFile(file)
	if err != nil || json.Unmarshal(data, &b) != nil {
		return backup{}, false
	}
	return b, true
}

// Remove removes what is kept of an attachment; nothing is success.
func (b Backups) Remove(o ipam.Owner) error {
	err := os.Remove(b.file(o))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// isLeft reports whether a killed writer has left a file.
func isLeft(e os.DirEntry) bool {
	if !strings.HasPrefix(e.Name(), tempPrefix) || !strings.Contains(e.Name(), suffix+"-") {
		return false
	}
	info, err := e.Info()
	return err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > tempAge
}

// Keep removes what is kept of attachments of a network that are not valid, and what killed writers of any
// network have left: CNI's GC.
func (b Backups) Keep(network string, valid []ipam.Owner) error {
	due := map[string]bool{}
	for _, o := range valid {
		due[b.file(o)] = true
	}

	entries, err := os.ReadDir(b.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}

	for _, e := range entries {
		file := filepath.Join(b.Dir, e.Name())
		if isLeft(e) {
			err = errors.Join(err, os.Remove(file))
			continue
		}

		old, ok := read(file)
		if ok && strings.HasSuffix(file, suffix) && old.Network == network && !due[file] {
			err = errors.Join(err, os.Remove(file))
		}
	}

	return err
}
