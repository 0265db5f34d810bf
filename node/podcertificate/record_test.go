package podcertificate

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/atomicdir"
)

// write shows what a volume's sources have in a directory, as the agent does.
func write(t *testing.T, dir string, volume *v1.Volume, shown []Credential) {
	t.Helper()
	files := map[string]atomicdir.File{}
	for i, s := range volume.Projected.Sources {
		maps.Copy(files, map[string]atomicdir.File{
			s.PodCertificate.KeyPath:              {Data: shown[i].Key, Mode: 0o600},
			s.PodCertificate.CertificateChainPath: {Data: shown[i].Chain, Mode: 0o600},
			s.PodCertificate.CredentialBundlePath: {
				Data: slices.Concat(shown[i].Key, shown[i].Chain),
				Mode: 0o600,
			},
		})
	}

	delete(files, "")
	if _, err := atomicdir.Write(dir, files, atomicdir.Owner{}); err != nil {
		t.Fatal(err)
	}
}

// apart is a source with two files.
func apart(signer string) *v1.PodCertificateProjection {
	return &v1.PodCertificateProjection{
		SignerName:           signer,
		KeyType:              "ED25519",
		KeyPath:              "dir/key.pem",
		CertificateChainPath: "dir/chain.pem",
	}
}

// life is a volume in the life of an agent, with what the agent before has left.
func (c *cluster) life(t *testing.T, dir string, uid types.UID, sources ...*v1.PodCertificateProjection) (
	*Keeper, *v1.Pod, *v1.Volume,
) {
	t.Helper()
	k := c.run()
	pod, volume := shows(uid, sources...)
	k.Adopt(pod, volume, dir, dir+".json")
	return k, pod, volume
}

func TestAnAgentThatStartsAgainGoesOnWithWhatTheVolumeShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, dir := newCluster(t), filepath.Join(t.TempDir(), "v")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}

		sources := []*v1.PodCertificateProjection{source("example.com/a"), apart("example.com/b")}
		k, pod, volume := c.life(t, dir, "pod-1", sources...)
		first := get(t, k, pod, volume)
		write(t, dir, volume, first)
		renewAt := k.NextAt("pod-1")

		time.Sleep(30 * time.Minute)
		k, pod, volume = c.life(t, dir, "pod-1", sources...)
		again := get(t, k, pod, volume)
		for i := range first {
			if !bytes.Equal(first[i].Key, again[i].Key) || !bytes.Equal(first[i].Chain, again[i].Chain) {
				t.Errorf("source %d shows another certificate", i)
			}
		}
		if c.asked() != 2 || !k.NextAt("pod-1").Equal(renewAt) {
			t.Errorf("%d requests; renewed at %v, want %v", c.asked(), k.NextAt("pod-1"), renewAt)
		}

		// Its own renewals are for the agent after it.
		time.Sleep(20 * time.Minute)
		get(t, k, pod, volume)
		synctest.Wait()
		second := get(t, k, pod, volume)
		write(t, dir, volume, second)
		renewAt = k.NextAt("pod-1")
		k, pod, volume = c.life(t, dir, "pod-1", sources...)
		get(t, k, pod, volume)
		if c.asked() != 4 || !k.NextAt("pod-1").Equal(renewAt) {
			t.Errorf("%d requests; renewed at %v, want %v", c.asked(), k.NextAt("pod-1"), renewAt)
		}
	})
}

func TestARecordHasNothingOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, dir := newCluster(t), filepath.Join(t.TempDir(), "v")
		k, pod, volume := c.life(t, dir, "pod-1", source("example.com/a"))
		shown := get(t, k, pod, volume)

		data, err := os.ReadFile(dir + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 200 || strings.Contains(string(data), string(shown[0].Key[30:60])) {
			t.Errorf("the record is %s", data)
		}
	})
}

func TestWhatNobodyKnowsTheTimeOfIsRenewedSoon(t *testing.T) {
	for what, spoil := range map[string]func(record string) error{
		"no record":      os.Remove,
		"a torn record":  func(path string) error { return os.WriteFile(path, []byte(`{"0": {"su`), 0o600) },
		"another's sum":  func(path string) error { return writeRecord(path, record{0: {Sum: "1"}}) },
		"a large record": func(path string) error { return os.Truncate(path, maxRecord+1) },
	} {
		synctest.Test(t, func(t *testing.T) {
			c, dir := newCluster(t), filepath.Join(t.TempDir(), "v")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			k, pod, volume := c.life(t, dir, "pod-1", source("example.com/a"))
			write(t, dir, volume, get(t, k, pod, volume))
			if err := spoil(dir + ".json"); err != nil {
				t.Fatal(err)
			}

			k, pod, volume = c.life(t, dir, "pod-1", source("example.com/a"))
			get(t, k, pod, volume)
			if wait := time.Until(k.NextAt("pod-1")); c.asked() != 1 || wait > maxJitter {
				t.Errorf("%s: %d requests, the next in %v", what, c.asked(), wait)
			}
		})
	}
}

func TestWhatCannotBeTakenOverIsIssuedAnew(t *testing.T) {
	onlyKey := source("example.com/a")
	onlyKey.CredentialBundlePath, onlyKey.KeyPath = "", "key.pem"

	for what, c := range map[string]struct {
		source *v1.PodCertificateProjection
		file   string
		data   string
	}{
		"a source that shows the key alone": {source: onlyKey},
		"a file that is no bundle":          {source: source("example.com/a"), file: "bundle.pem", data: "x"},
		"a key that is not the chain's": {
			source: apart("example.com/a"),
			file:   "dir/key.pem",
			data:   anotherKey(t),
		},
		"a file that is too large": {
			source: source("example.com/a"),
			file:   "bundle.pem",
			data:   strings.Repeat("x", maxBundle+1),
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			api, dir := newCluster(t), filepath.Join(t.TempDir(), "v")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			k, pod, volume := api.life(t, dir, "pod-1", c.source)
			first := get(t, k, pod, volume)
			write(t, dir, volume, first)
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.data), 0o600); err != nil {
					t.Fatal(err)
				}
			}

			k, pod, volume = api.life(t, dir, "pod-1", c.source)
			if got := get(t, k, pod, volume); api.asked() != 2 || bytes.Equal(got[0].Key, first[0].Key) {
				t.Errorf("%s: %d requests, or the key of before", what, api.asked())
			}
		})
	}
}

func anotherKey(t *testing.T) string {
	_, encoded, err := newKey("ED25519")
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}
