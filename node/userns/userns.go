// Package userns gives each pod with a user namespace (hostUsers: false) a range of IDs that no other pod of
// the node has. Which one is in the pod's directory (ROOT/pods/UID/userns) in kubelet's words, before
// anything is made of it: so the next agent, or kubelet, gives the pod the same.
package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/criconfig"
)

// Config is what Ranges are made of.
type Config struct {
	// RootDir is kubelet's root directory, /var/lib/kubelet.
	RootDir string

	// Range are all IDs for pods, and PerPod is how many of them each gets.
	Range  Range
	PerPod uint32

	// Handlers are the runtime's, with what each supports.
	Handlers func() []v1.NodeRuntimeHandler

	Log *slog.Logger
}

// Ranges are those of the node's pods. All methods may be called at the same time.
type Ranges struct {
	cfg Config

	// mu guards what follows.
	mu   sync.Mutex
	used map[types.UID]criconfig.Users
}

// Open returns the ranges, with those that earlier agents have given to pods. A record that is damaged, or
// that claims what another pod has, gives nothing, and its pod does not start.
func Open(cfg Config) (*Ranges, error) {
	r := &Ranges{cfg: cfg, used: map[types.UID]criconfig.Users{}}
	entries, err := os.ReadDir(filepath.Join(cfg.RootDir, "pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("user namespaces of pods: %w", err)
	}

	for _, e := range entries {
		uid := types.UID(e.Name())
		if _, err := r.recall(uid); err != nil && !errors.Is(err, fs.ErrNotExist) {
			cfg.Log.Warn("the user namespace of a pod is not known", "pod", uid, "err", err)
		}
	}

	return r, nil
}

// Wants reports whether a pod is to have a user namespace.
func Wants(pod *v1.Pod) bool { return pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers }

// Of returns the users of a pod of a runtime handler. The first time, they are chosen and recorded. Errors
// are in kubelet's words.
func (r *Ranges) Of(pod *v1.Pod, handler string) (criconfig.Users, error) {
	if !Wants(pod) {
		return criconfig.Users{}, nil
	}
	if err := r.checkHandler(handler); err != nil {
		return criconfig.Users{}, err
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	users, err := r.recall(pod.UID)
	if errors.Is(err, fs.ErrNotExist) {
		users, err = r.give(pod.UID)
		if err != nil {
			return criconfig.Users{}, fmt.Errorf("create user namespace: %w", err)
		}
	}
	if err != nil {
		return criconfig.Users{}, fmt.Errorf("user namespace: %w", err)
	}

	return users, nil
}

// checkHandler refuses a handler whose containers would be in the host's user namespace.
func (r *Ranges) checkHandler(handler string) error {
	who := "runtime"
	if handler != "" {
		who = fmt.Sprintf("RuntimeClass handler %q", handler)
	}

	refusal := fmt.Sprintf("can't set `spec.hostUsers: false`, %s does not support user namespaces", who)

	all := r.cfg.Handlers()
	for _, h := range all {
		if h.Name != handler {
			continue
		}
		if h.Features != nil && h.Features.UserNamespaces != nil && *h.Features.UserNamespaces {
			return nil
		}
		return errors.New(refusal)
	}

	if len(all) == 0 {
		return errors.New(refusal)
	}

	return fmt.Errorf("%s: the handler %q is not known", refusal, handler)
}

// recall returns the range that a pod has. One that is on disk only is known from now on. fs.ErrNotExist says
// that it has none.
func (r *Ranges) recall(uid types.UID) (criconfig.Users, error) {
	if users, ok := r.used[uid]; ok {
		return users, nil
	}

	users, err := read(r.file(uid))
	if err != nil {
		return users, err
	}

	for other, theirs := range r.used {
		if overlap(users, theirs) {
			return users, fmt.Errorf("range picked for pod %q already taken by pod %q", uid, other)
		}
	}

	r.used[uid] = users
	return users, nil
}

// give chooses a range that overlaps no other, and records it. Older ones may be of another length.
func (r *Ranges) give(uid types.UID) (criconfig.Users, error) {
	users, ok := r.free()
	if !ok {
		return users, errors.New("could not find an empty slot to allocate a user namespace")
	}
	if err := write(r.file(uid), users); err != nil {
		return users, err
	}

	r.used[uid] = users
	return users, nil
}

// signed is the first ID that no group of net.ipv4.ping_group_range can have: pods with such groups cannot be
// let send pings.
const signed = 1 << 31

// free returns one that nobody has, below signed as long as there is one.
func (r *Ranges) free() (criconfig.Users, bool) {
	count := r.cfg.Range.Length / r.cfg.PerPod
	low := uint32(0)
	if r.cfg.Range.First < signed {
		low = min(count, (signed-r.cfg.Range.First)/r.cfg.PerPod)
	}

	users, ok := r.freeAmong(0, low)
	if !ok {
		users, ok = r.freeAmong(low, count)
	}

	return users, ok
}

// freeAmong looks for one in slots from begin on to before end. The search begins anywhere: so pods of two
// nodes, which may share a volume, seldom have the same, and a range that a pod has just left mostly rests.
func (r *Ranges) freeAmong(begin, end uint32) (criconfig.Users, bool) {
	count := end - begin
	if count == 0 {
		return criconfig.Users{}, false
	}

	first := rand.Uint32N(count)
	for i := range count {
		slot := begin + uint32((uint64(first)+uint64(i))%uint64(count))
		users := criconfig.Users{First: r.cfg.Range.First + slot*r.cfg.PerPod, Length: r.cfg.PerPod}
		if r.isFree(users) {
			return users, true
		}
	}

	return criconfig.Users{}, false
}

func (r *Ranges) isFree(users criconfig.Users) bool {
	// The last of all IDs means none, so the kernel does not map it.
	if uint64(users.First)+uint64(users.Length) > math.MaxUint32 {
		return false
	}
	for _, taken := range r.used {
		if overlap(users, taken) {
			return false
		}
	}
	return true
}

func overlap(a, b criconfig.Users) bool {
	return uint64(a.First) < uint64(b.First)+uint64(b.Length) &&
		uint64(b.First) < uint64(a.First)+uint64(a.Length)
}

// Has reports whether a pod has a range.
func (r *Ranges) Has(uid types.UID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, has := r.used[uid]
	return has
}

// Release frees the range of a pod that has ended, whose directory may be gone.
func (r *Ranges) Release(uid types.UID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.release(uid)
}

func (r *Ranges) release(uid types.UID) error {
	if err := os.Remove(r.file(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(r.used, uid)
	return nil
}

// ReleaseUnless frees the ranges of all pods for which keep returns false. keep may not call the ranges.
func (r *Ranges) ReleaseUnless(keep func(types.UID) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()

	var errs []error
	for uid := range r.used {
		if !keep(uid) {
			errs = append(errs, r.release(uid))
		}
	}

	return errors.Join(errs...)
}

func (r *Ranges) file(uid types.UID) string {
	return filepath.Join(r.cfg.RootDir, "pods", string(uid), "userns")
}
