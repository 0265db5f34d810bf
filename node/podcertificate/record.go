package podcertificate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
)

// record is what an agent leaves the next one beside the files of a volume: when certificates are to be
// renewed, by the index of the source. It has nothing of a key.
type record map[int]renewed

// renewed is when a certificate is to be renewed. Sum is the SHA-256 of its chain.
type renewed struct {
	Sum     string    `json:"sum"`
	RenewAt time.Time `json:"renewAt"`
}

// The largest files that are read: a key, a chain, and the record of as many sources as a pod can have.
const (
	maxBundle = maxChain + 16<<10
	maxRecord = 16 << 20
)

func sum(chain []byte) string {
	digest := sha256.Sum256(chain)
	return hex.EncodeToString(digest[:])
}

// Adopt takes over what the volume in the directory shows, as an earlier agent has written it, unless the
// volume is known. The file at record says when it is to be renewed; what it does not name is renewed now.
// A source that shows only one of key and chain cannot be taken over.
func (k *Keeper) Adopt(about *v1.Pod, v *v1.Volume, dir, record string) {
	if !Shows(v) || k.knows(about, v) {
		return
	}

	vol := k.hold(about, v)
	times, now := readRecord(record), time.Now()
	for i, c := range vol.all() {
		found, err := readPair(dir, c.source)
		if err != nil {
			continue
		}

		found.renewAt = renewal(now.Add(jitter(maxJitter)), found.notAfter, now)
		if known := times[i]; known.Sum == sum(found.Chain) {
			found.renewAt = known.RenewAt
		}

		k.mu.Lock()
		c.pair = found
		k.mu.Unlock()
	}

	k.mu.Lock()
	vol.record = record
	k.mu.Unlock()
}

func (k *Keeper) knows(about *v1.Pod, v *v1.Volume) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pods[about.UID]
	return p != nil && p.volumes[v.Name] != nil
}

// readPair reads the key and the chain that a source shows in a volume. Both may have been changed.
func readPair(dir string, source *v1.PodCertificateProjection) (*pair, error) {
	data, err := read(dir, source.CredentialBundlePath, source.KeyPath)
	if err != nil {
		return nil, err
	}

	key, encoded, certificates, err := readKey(data)
	if err != nil {
		return nil, err
	}
	if source.CredentialBundlePath == "" {
		if certificates, err = read(dir, source.CertificateChainPath); err != nil {
			return nil, err
		}
	}

	issued, err := readChain(certificates, key.Public())
	if err != nil {
		return nil, err
	}
	return &pair{
		Credential: Credential{Key: encoded, Chain: issued.pem},
		notAfter:   issued.notAfter,
	}, nil
}

// read reads the first of the files that has a name.
func read(dir string, names ...string) ([]byte, error) {
	for _, name := range names {
		if name == "" {
			continue
		}

		f, err := boundedfile.OpenBelow(dir, name, os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return boundedfile.Contents(f, maxBundle)
	}
	return nil, errors.New("the source does not show it")
}

// readRecord reads a record; one that cannot be read is empty.
func readRecord(path string) record {
	out := record{}
	data, err := boundedfile.Read(path, maxRecord)
	if err != nil || json.Unmarshal(data, &out) != nil {
		return nil
	}
	return out
}

// toRecord returns the record if it has to be written, and where; else an empty path. The caller holds the
// lock.
func (v *volume) toRecord() (path string, times record) {
	if !v.unrecorded {
		return "", nil
	}

	v.unrecorded = false
	times = record{}
	for i, c := range v.all() {
		times[i] = renewed{Sum: sum(c.pair.Chain), RenewAt: c.pair.renewAt}
	}
	return v.record, times
}

// writeRecord writes when the certificates of a volume are to be renewed. It is lost with the volume, by a
// reboot.
func writeRecord(path string, times record) error {
	data, err := json.Marshal(times)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	return durable.WriteVolatile(path, data, 0o600)
}
