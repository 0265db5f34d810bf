package podsource

import (
	v1 "k8s.io/api/core/v1"
)

// Annotations that mark where a pod comes from, kubelet's names.
const (
	AnnotationSource = "kubernetes.io/config.source" // "file" for static pods
	AnnotationHash   = "kubernetes.io/config.hash"
	AnnotationMirror = v1.MirrorPodAnnotationKey
)

func static(pod *v1.Pod) bool { return pod.Annotations[AnnotationSource] == "file" }

// Mirror tells whether the API's pod only shows a static one: it is not run for itself.
func Mirror(pod *v1.Pod) bool { return pod.Annotations[AnnotationMirror] != "" }
