package admit

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/node/podspec"
)

// pressure refuses pods on a node that has too little of something. Memory alone keeps only those away that
// asked for none of it.
func pressure(node Node, pod *v1.Pod) Verdict {
	if len(node.Pressure) == 0 || Critical(pod) {
		return Verdict{}
	}
	if len(node.Pressure) == 1 && node.Pressure[0] == v1.NodeMemoryPressure {
		taint := &v1.Taint{Key: v1.TaintNodeMemoryPressure, Effect: v1.TaintEffectNoSchedule}
		if podspec.QOS(pod) != v1.PodQOSBestEffort || tolerated(pod, taint) {
			return Verdict{}
		}
	}
	return reject("Evicted", "The node had condition: %v. ", node.Pressure)
}

func tolerated(pod *v1.Pod, taint *v1.Taint) bool {
	return corev1.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, taint, true)
}
