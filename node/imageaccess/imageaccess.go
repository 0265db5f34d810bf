// Package imageaccess decides which pods may use an image that is on the node already: an image that was
// pulled with a secret is for the pods that have the secret. It keeps kubelet's records of pulls, in
// kubelet's files and by kubelet's rules, so that either agent can take the other's place on a live node
// (https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/2535-ensure-secret-pulled-images).
//
// Before a pull the intent is written (image_manager/pulling), and after it the record of the image, with the
// credentials that it was pulled with (image_manager/pulled). An image that has neither is preloaded: it was
// there before.
package imageaccess

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// Config says where the records are and what the policy is.
type Config struct {
	// RootDir is kubelet's root directory, /var/lib/kubelet.
	RootDir string

	// Policy is imagePullCredentialsVerificationPolicy; empty stands for NeverVerifyPreloadedImages.
	Policy string

	// Allowlist is preloadedImagesVerificationAllowlist: names of images, or prefixes that end in /*.
	Allowlist []string
	Log       *slog.Logger
}

// Access decides for one node. All methods may be called at the same time.
type Access struct {
	policy policy

	// pulls are the intents, by the image's name in the pod.
	pulls store

	// images are the records, by the image's ID.
	images store
	log    *slog.Logger

	// mu guards the files and what follows.
	mu sync.Mutex

	// pulling counts the pulls that are on their way, by name.
	pulling map[string]int

	// before is, for names with an intent, the ID of the preloaded image that was there when its pull began:
	// a pull that is cut off and leaves that image has changed nothing.
	before map[string]string
}

// Open makes the directories and removes what a killed agent left half-written. It fails when the policy or a
// pattern of the allowlist is not valid.
func Open(cfg Config) (*Access, error) {
	p, err := newPolicy(cfg.Policy, cfg.Allowlist)
	if err != nil {
		return nil, err
	}

	dir := filepath.Join(cfg.RootDir, "image_manager")
	a := &Access{
		policy:  p,
		pulls:   store{filepath.Join(dir, "pulling")},
		images:  store{filepath.Join(dir, "pulled")},
		log:     cfg.Log,
		pulling: map[string]int{},
		before:  map[string]string{},
	}

	for _, s := range []store{a.pulls, a.images} {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return nil, fmt.Errorf("records of image pulls: %w", err)
		}
		if err := s.sweep(); err != nil {
			return nil, fmt.Errorf("records of image pulls: %w", err)
		}
	}

	return a, nil
}

// Granted reports whether a pod may use the image without a pull. name is how its container calls the image.
// secrets returns the pod's own secrets for the image; it is called only when they decide.
func (a *Access) Granted(name string, image *runtime.Image, secrets func() ([]Secret, error)) (bool, error) {
	a.mu.Lock()
	r, known, err := a.find(name, image)
	a.mu.Unlock()
	if err != nil {
		a.log.Warn("record of image pulls; the image is pulled again", "image", name, "err", err)
		return false, nil
	}

	if !a.policy.verifies(name, known) {
		return true, nil
	}

	repository, err := trim(name)
	if err != nil {
		// Such a name was not pulled.
		return false, nil
	}

	have := r.Grants[repository]
	if have.Everyone {
		return true, nil
	}
	if len(have.Secrets) == 0 {
		return false, nil
	}

	own, err := secrets()
	if err != nil {
		return false, err
	}

	for _, s := range own {
		if !have.fits(s) {
			continue
		}

		// From now on the secret is known by its object and by its content.
		if len(have.Secrets) < maxSecrets {
			if err := a.record(name, image.ID, &grant{Secrets: []Secret{s}}); err != nil {
				a.log.Warn("record of image pulls", "image", name, "err", err)
			}
		}

		return true, nil
	}

	return false, nil
}

// find returns the image's record. known reports whether an agent has pulled the image; the record is empty
// if that agent did not live to write it. It needs the lock.
func (a *Access) find(name string, image *runtime.Image) (r record, known bool, err error) {
	r, known, err = a.images.record(image.ID)
	if known || err != nil {
		return r, known, err
	}

	// A pull that is on its way has brought it, or one that was cut off.
	if a.pulling[name] > 0 && a.before[name] != image.ID {
		return r, true, nil
	}

	intents, err := a.pulls.files()
	if err != nil {
		return r, false, err
	}

	own := names(image)
	for _, f := range intents {
		i, err := a.pulls.intent(f)
		matches := err == nil && (i.Image == name || own[normal(i.Image)])
		if matches && a.before[i.Image] != image.ID {
			return r, true, nil
		}
	}

	return r, false, nil
}

// Pulling records that an image is about to be pulled. have is the image that has its name already, or nil.
// Pulled or Failed must follow.
func (a *Access) Pulling(name string, have *runtime.Image) error {
	a.mu.Lock()
	defer a.mu.Unlock()

	preloaded := false
	if have != nil {
		_, known, err := a.find(name, have)
		preloaded = err == nil && !known
	}

	// Not durable: it is for an agent that is killed, and each start of a container may pull.
	err := a.pulls.write(name, intent{typed: typed{"ImagePullIntent", version}, Image: name}, false)
	if err != nil {
		return fmt.Errorf("record that image %s is to be pulled: %w", name, err)
	}

	a.pulling[name]++
	if preloaded {
		a.before[name] = have.ID
	}

	return nil
}

// Pulled records that the image of that ID was pulled with a secret, or with nil that all pods may use it: it
// was pulled without credentials or with the node's.
func (a *Access) Pulled(name, id string, with *Secret) error {
	g := grant{Everyone: with == nil}
	if with != nil {
		g.Secrets = []Secret{*with}
	}

	err := a.record(name, id, &g)
	a.ended(name, err == nil)
	return err
}

// Failed ends a pull. present says that the image may be on the node nevertheless: then the intent stays, so
// that pods must show a secret for the image.
func (a *Access) Failed(name string, present bool) { a.ended(name, !present) }

// ended counts a pull out. The last one of a name removes the intent, unless the image may be on the node
// without a record.
func (a *Access) ended(name string, recorded bool) {
	a.mu.Lock()
	defer a.mu.Unlock()

	if a.pulling[name]--; a.pulling[name] > 0 {
		return
	}

	delete(a.pulling, name)
	if !recorded {
		return
	}

	delete(a.before, name)
	if err := a.pulls.remove(fileName(name)); err != nil {
		a.log.Warn("record of image pulls", "image", name, "err", err)
	}
}

// record adds a grant to the image's record.
func (a *Access) record(name, id string, g *grant) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.put(name, id, g)
}

// put adds a grant to the image's record. With nil it only makes sure that there is a record: then no pod may
// use the image unverified. It needs the lock.
func (a *Access) put(name, id string, g *grant) error {
	repository, err := trim(name)
	if err != nil {
		return err
	}

	r, found, err := a.images.record(id)
	if err != nil {
		a.log.Warn("record of image pulls is replaced", "image", name, "err", err)
		r = record{}
		found = false
	}

	changed := g != nil && r.add(repository, *g)
	if found && !changed {
		return nil
	}

	r.typed = typed{"ImagePulledRecord", version}
	r.ImageRef = id
	r.Updated = metav1.Now()

	// Durable: an image that survives a power loss without its record would count as a preloaded one.
	if err := a.images.write(id, r, true); err != nil {
		return fmt.Errorf("record that image %s was pulled: %w", name, err)
	}

	return nil
}

// abandonedAfter is the age of an intent from which on its pull cannot be running in the runtime any more, if
// no pull of this agent waits for it.
const abandonedAfter = time.Hour

// Reconcile brings the records in line with the images of the runtime, which must have been listed after
// asked. It removes the records of images that are gone. Intents whose pull was abandoned, because the agent
// was killed or gave up, become records without a grant if the image is there, and are removed otherwise.
func (a *Access) Reconcile(images []*runtime.Image, asked time.Time) error {
	present := map[string]bool{}
	byName := map[string]*runtime.Image{}
	for _, i := range images {
		present[fileName(i.ID)] = true
		for n := range names(i) {
			byName[n] = i
		}
	}

	a.mu.Lock()
	defer a.mu.Unlock()

	return errors.Join(a.reconcileIntents(byName, asked), a.forget(present, asked))
}

// reconcileIntents does that for the intents. byName are the images by their full names. It needs the lock.
func (a *Access) reconcileIntents(byName map[string]*runtime.Image, asked time.Time) error {
	intents, err := a.pulls.files()
	errs := []error{err}
	for _, f := range intents {
		if f.written.After(asked.Add(-abandonedAfter)) {
			continue
		}

		i, err := a.pulls.intent(f)
		if err != nil {
			a.log.Warn("intent of an image pull is not readable and removed", "err", err)
		}
		if a.pulling[i.Image] > 0 {
			continue
		}

		if image := byName[normal(i.Image)]; image != nil && image.ID != a.before[i.Image] {
			if err := a.put(i.Image, image.ID, nil); err != nil {
				errs = append(errs, err)
				continue
			}
		}

		delete(a.before, i.Image)
		errs = append(errs, a.pulls.remove(f.name))
	}

	return errors.Join(errs...)
}

// forget removes the records of images that are not present, by the names of their files. It needs the lock.
func (a *Access) forget(present map[string]bool, asked time.Time) error {
	records, err := a.images.files()
	errs := []error{err}
	for _, f := range records {
		if !present[f.name] && f.written.Before(asked) {
			errs = append(errs, a.images.remove(f.name))
		}
	}
	return errors.Join(errs...)
}
