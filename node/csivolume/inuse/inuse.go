// Package inuse knows which attachable volumes the node uses: those that are staged or published, or are to
// be. The Node shows them (node.status.volumesInUse), and the attach-detach controller detaches none of them.
// So a volume is shown before it is mounted, and as long as anything of it may be left.
package inuse

import (
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
)

// Volumes is the set of volumes, each with its holders. The zero value has none. It is safe for concurrent
// use.
type Volumes struct {
	// mu guards what follows.
	mu   sync.Mutex
	held map[v1.UniqueVolumeName]*volume

	// changed is called when a volume has come or gone.
	changed func()

	// attachable reports whether the volumes of a driver are attached, and whether that is known. It is nil
	// until what was there at the start has been entered.
	attachable func(driver string) (is, known bool)

	// left is nil if everything was known at the start.
	left *left
}

// left are the volumes that the Node showed at the start, and that may be in use by what could not be read.
type left struct {
	// taken is set when the Node has been seen.
	taken bool
	shown map[v1.UniqueVolumeName]bool

	// gone are those that were let go before that.
	gone map[v1.UniqueVolumeName]bool
}

// volume is one that is in use.
type volume struct {
	driver  string
	holders map[string]bool

	// reported means that the API has shown it since it came.
	reported bool
}

// Follow has a function called when a volume has come or gone.
func (v *Volumes) Follow(changed func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.changed = changed
}

// Begin says that what was in use at the start has been entered: from now on the volumes are reported, of
// drivers whose volumes are attached. If some could not be read (all is false), those that the Node shows
// stay beside them, each until it is held and let go.
func (v *Volumes) Begin(attachable func(driver string) (is, known bool), all bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.attachable = attachable
	if !all {
		v.left = &left{shown: map[v1.UniqueVolumeName]bool{}, gone: map[v1.UniqueVolumeName]bool{}}
	}
	v.hintLocked()
}

// see enters what the Node shows at the start.
func (l *left) see(names []v1.UniqueVolumeName) {
	if l.taken {
		return
	}

	for _, name := range names {
		l.shown[name] = !l.gone[name]
	}
	l.taken = true
	l.gone = nil
}

// letGo says that nobody holds a volume any more.
func (l *left) letGo(name v1.UniqueVolumeName) {
	if l.taken {
		delete(l.shown, name)
		return
	}
	l.gone[name] = true
}

// Name is the name of a volume in a Node, kubelet's.
func Name(driver, handle string) v1.UniqueVolumeName {
	return v1.UniqueVolumeName("kubernetes.io/csi/" + driver + "^" + handle)
}

// Hold enters a volume for a holder: a pod, or the place where it is staged.
func (v *Volumes) Hold(driver, handle, holder string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.held == nil {
		v.held = map[v1.UniqueVolumeName]*volume{}
	}

	name := Name(driver, handle)
	if v.held[name] == nil {
		v.held[name] = &volume{driver: driver, holders: map[string]bool{}}
		v.hintLocked()
	}
	v.held[name].holders[holder] = true
}

// Release takes a holder from all that it holds. What nobody holds any more is not in use.
func (v *Volumes) Release(holder string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, held := range v.held {
		delete(held.holders, holder)
		if len(held.holders) == 0 {
			delete(v.held, name)
			if v.left != nil {
				v.left.letGo(name)
			}
			v.hintLocked()
		}
	}
}

func (v *Volumes) hintLocked() {
	if v.changed != nil {
		v.changed()
	}
}

// IsReported reports whether the API has shown that the volume is in use.
func (v *Volumes) IsReported(driver, handle string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	held := v.held[Name(driver, handle)]
	return held != nil && held.reported
}

// Names returns the volumes that are in use, for a Node that shows some now. known is false as long as it is
// not known which they are.
func (v *Volumes) Names(shown []v1.UniqueVolumeName) (names []v1.UniqueVolumeName, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.attachable == nil {
		return nil, false
	}
	if v.left != nil {
		v.left.see(shown)
	}

	for name, held := range v.held {
		is, known := v.attachable(held.driver)
		if !known {
			return nil, false
		}
		if is {
			names = append(names, name)
		}
	}

	if v.left != nil {
		for name, is := range v.left.shown {
			if is && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}

	slices.Sort(names)
	return names, true
}

// Reported says that the API shows these volumes, and no others, as in use.
func (v *Volumes) Reported(names []v1.UniqueVolumeName) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, held := range v.held {
		held.reported = slices.Contains(names, name)
	}
}
