package podsource

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// Annotations that mark where a pod comes from, kubelet's names.
const (
	AnnotationSource = "kubernetes.io/config.source" // "file" for static pods, "api" else
	AnnotationHash   = "kubernetes.io/config.hash"   // of the manifest: the UID of a static pod
	AnnotationMirror = v1.MirrorPodAnnotationKey
)

// Static tells whether the pod comes from a manifest file of the node.
func Static(pod *v1.Pod) bool { return pod.Annotations[AnnotationSource] == "file" }

// Mirror tells whether the API's pod only shows a static one: it is not run for itself.
func Mirror(pod *v1.Pod) bool { return pod.Annotations[AnnotationMirror] != "" }

// Load makes the pods in the files of dir known. It comes before Watch: whatever runs and is not known when the API's list is there counts as
// a pod that is gone.
func (s *Source) Load(dir, node string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("static pods: %w", err)
	}
	s.readManifests(dir, node)
	return nil
}

// Manifests follows the files of dir until ctx ends. A changed manifest is another pod: the old one ends, a new one begins.
func (s *Source) Manifests(ctx context.Context, dir, node string) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch static pods: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(dir); err != nil {
		return fmt.Errorf("watch static pods in %s: %w", dir, err)
	}
	// inotify loses events when its queue overflows, and knows nothing of files changed on another machine: look again now and then.
	again := time.NewTicker(20 * time.Second)
	defer again.Stop()
	for {
		s.readManifests(dir, node)
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-watcher.Events:
			if !ok {
				return errors.New("watch of static pods ended")
			}
		case err := <-watcher.Errors:
			s.log.Warn("events of static pods were lost", "dir", dir, "err", err)
		case <-again.C:
		}
	}
}

// readManifests makes the static pods those of the files. A file that cannot be read or is half written keeps the pod it had.
func (s *Source) readManifests(dir, node string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.log.Warn("read static pods", "dir", dir, "err", err)
		return
	}
	found, broken := map[types.UID]*v1.Pod{}, map[string]bool{}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			broken[path] = !errors.Is(err, os.ErrNotExist)
			continue
		}
		pod, err := ParseManifest(data, path, node)
		if err != nil {
			broken[path] = true
			s.tellOnce(path, err)
			continue
		}
		found[pod.UID] = pod
	}
	s.replaceStatic(found, broken)
}

func (s *Source) tellOnce(path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[path] != err.Error() {
		s.told[path] = err.Error()
		s.log.Error("static pod is not valid", "file", path, "err", err)
	}
}

const annotationFile = "trivet.dev/manifest"

func (s *Source) replaceStatic(found map[types.UID]*v1.Pod, broken map[string]bool) {
	var changed []types.UID
	s.mu.Lock()
	for uid, pod := range found {
		if s.pods[uid] == nil {
			s.pods[uid] = pod
			changed = append(changed, uid)
		}
	}
	for uid, old := range s.pods {
		if Static(old) && found[uid] == nil && !broken[old.Annotations[annotationFile]] {
			delete(s.pods, uid)
			changed = append(changed, uid)
		}
	}
	for uid, p := range s.pods {
		if Mirror(p) && s.pods[StaticOf(p)] == nil {
			changed = append(changed, uid) // shows what is no more
		}
	}
	s.mu.Unlock()
	for _, uid := range changed {
		s.notify(uid)
	}
}

// ParseManifest reads a pod manifest. The UID is made from its content, so that a changed file is another pod and the same one survives
// restarts of the agent; the name gets the node's, as it must be unique in the cluster.
func ParseManifest(data []byte, path, node string) (*v1.Pod, error) {
	pod := &v1.Pod{}
	if err := yaml.UnmarshalStrict(data, pod); err != nil {
		return nil, err
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" || pod.Name == "" || len(pod.Spec.Containers) == 0 {
		return nil, fmt.Errorf("want a v1 Pod with a name and containers, it is %s %s %q with %d containers", pod.APIVersion, pod.Kind, pod.Name, len(pod.Spec.Containers))
	}
	sum := md5.Sum(append([]byte(node+"\x00"+path+"\x00"), data...)) // an identity, not a secret
	hash := hex.EncodeToString(sum[:])
	pod.UID, pod.Name = types.UID(hash), pod.Name+"-"+node
	if pod.Namespace == "" {
		pod.Namespace = v1.NamespaceDefault
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[AnnotationSource], pod.Annotations[AnnotationHash], pod.Annotations[annotationFile] = "file", hash, path
	pod.Generation = 1
	pod.Spec.NodeName = node
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute})
	setDefaults(&pod.Spec)
	pod.Status.Phase = v1.PodPending
	return pod, nil
}

// setDefaults fills in what the API server would have.
func setDefaults(s *v1.PodSpec) {
	if s.RestartPolicy == "" {
		s.RestartPolicy = v1.RestartPolicyAlways
	}
	if s.DNSPolicy == "" {
		s.DNSPolicy = v1.DNSClusterFirst
	}
	if s.TerminationGracePeriodSeconds == nil {
		s.TerminationGracePeriodSeconds = new(int64(v1.DefaultTerminationGracePeriodSeconds))
	}
	if s.SecurityContext == nil {
		s.SecurityContext = &v1.PodSecurityContext{}
	}
	if s.EnableServiceLinks == nil {
		s.EnableServiceLinks = new(true)
	}
	for _, all := range [][]v1.Container{s.InitContainers, s.Containers} {
		for i := range all {
			c := &all[i]
			if c.TerminationMessagePath == "" {
				c.TerminationMessagePath = v1.TerminationMessagePathDefault
			}
			if c.TerminationMessagePolicy == "" {
				c.TerminationMessagePolicy = v1.TerminationMessageReadFile
			}
			if c.ImagePullPolicy == "" {
				c.ImagePullPolicy = v1.PullIfNotPresent
				if strings.HasSuffix(c.Image, ":latest") || !strings.Contains(filepath.Base(c.Image), ":") && !strings.Contains(c.Image, "@") {
					c.ImagePullPolicy = v1.PullAlways
				}
			}
			for name, limit := range c.Resources.Limits {
				if _, ok := c.Resources.Requests[name]; !ok {
					if c.Resources.Requests == nil {
						c.Resources.Requests = v1.ResourceList{}
					}
					c.Resources.Requests[name] = limit
				}
			}
		}
	}
}
