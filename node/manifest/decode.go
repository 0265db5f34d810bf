// Package manifest reads the manifests of static pods as kubelet does: decoded leniently, filled up with the
// API's defaults, named after the node, and with kubelet's UID, so that a node can be handed from one agent
// to the other with its static pods running. It is pure.
//
// It does not validate pods as the API server does, which judges the mirror. What a manifest may not say is
// refused: invalid names, as paths are made of them, and references to objects of the API, of which a static
// pod must be independent.
package manifest

import (
	"errors"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Annotations of static pods and their mirrors, kubelet's names.
const (
	AnnotationSource = "kubernetes.io/config.source" // where the pod comes from
	AnnotationHash   = "kubernetes.io/config.hash"   // the UID of a static pod
)

// Sources of static pods, values of AnnotationSource.
const (
	SourceFile = "file"
	SourceURL  = "http"
)

// IsStatic reports, from the annotations of a pod or its sandbox, whether the pod is from a manifest. A
// source of another name, which any user may write, means nothing.
func IsStatic(annotations map[string]string) bool {
	source := annotations[AnnotationSource]
	return source == SourceFile || source == SourceURL
}

// Origin is where a manifest comes from. It is a part of the pod's identity.
type Origin struct {
	Node string
	File string // path
	URL  string // in the place of File
}

// Pod makes the static pod of a manifest, in YAML or JSON. Warnings are of fields that are not known and of
// keys that are given twice: the pod runs nevertheless.
func Pod(data []byte, from Origin) (pod *v1.Pod, warnings []string, err error) {
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, nil, err
	}
	return one(string(text), from)
}

// one makes a static pod of its JSON.
func one(text string, from Origin) (pod *v1.Pod, warnings []string, err error) {
	pod = &v1.Pod{}
	if warnings, err = decode(text, pod); err != nil {
		return nil, nil, err
	}

	// A file that is being written is empty at first.
	if pod.Kind == "" && pod.APIVersion == "" {
		return nil, nil, errors.New("want a v1 Pod, but apiVersion and kind are missing")
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, nil, fmt.Errorf("want a v1 Pod, it is %q %q", pod.APIVersion, pod.Kind)
	}
	if pod.Name == "" {
		return nil, nil, errors.New("the pod has no name")
	}

	if pod.UID == "" {
		if pod.UID, err = uid(text, from); err != nil {
			return nil, nil, err
		}
	}

	setDefaults(pod)
	identify(pod, from)
	if err := check(pod); err != nil {
		return nil, nil, err
	}

	return pod, warnings, nil
}

// decode parses a pod. The warnings are about fields that do not exist; the case of their names matters, as
// everywhere in Kubernetes.
func decode(text string, pod *v1.Pod) (warnings []string, err error) {
	strict, err := json.UnmarshalStrict([]byte(text), pod)
	for _, w := range strict {
		warnings = append(warnings, w.Error())
	}
	return warnings, err
}

// identify makes the pod one of this node.
func identify(pod *v1.Pod, from Origin) {
	// The name must be unique in the cluster.
	pod.Name += "-" + strings.ToLower(from.Node)
	if pod.Namespace == "" {
		pod.Namespace = v1.NamespaceDefault
	}

	pod.Spec.NodeName = from.Node

	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}

	delete(pod.Annotations, v1.MirrorPodAnnotationKey)
	pod.Annotations[AnnotationHash] = string(pod.UID)
	pod.Annotations[AnnotationSource] = SourceFile
	if from.URL != "" {
		pod.Annotations[AnnotationSource] = SourceURL
	} else {
		tolerateEverything(&pod.Spec)
	}

	// A manifest that was read from an API server may say more. That is not this pod's.
	pod.Generation, pod.ResourceVersion, pod.ManagedFields = 1, "", nil
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = nil, nil
	pod.Status = v1.PodStatus{Phase: v1.PodPending}
}

// tolerateEverything keeps the pod on the node whatever its taints are.
func tolerateEverything(spec *v1.PodSpec) {
	always := v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute}
	for i := range spec.Tolerations {
		if t := &spec.Tolerations[i]; t.MatchToleration(&always) {
			*t = always
			return
		}
	}
	spec.Tolerations = append(spec.Tolerations, always)
}
