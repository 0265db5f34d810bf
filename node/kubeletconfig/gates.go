package kubeletconfig

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// gateList has a line for each feature gate of kubelet 1.37: name, default, stage, and whether it is locked
// to it.
//
//go:embed gates.txt
var gateList string

// gate is a feature gate.
type gate struct {
	usual  bool
	stage  string // ALPHA, BETA, GA or DEPRECATED
	locked bool
}

// ServedGates are those that change what the agent does.
var ServedGates = map[string]string{
	"ComponentFlagz":                          "off: no /flagz",
	"ComponentStatusz":                        "off: no /statusz",
	"ContainerCheckpoint":                     "off: no /checkpoint",
	"KubeletEnsureSecretPulledImages":         "off: as imagePullCredentialsVerificationPolicy: NeverVerify",
	"InPlacePodLevelResourcesVerticalScaling": "off: resources of a pod as a whole stay as they are",
	"MemoryQoS":                               "off: no memory.min, memory.low and memory.high",
	"PodCertificateRequest":                   "off: volumes with podCertificate sources are refused",
	"PodLevelResources":                       "off: pods with resources of their own are refused",
	"RestartAllContainersOnContainerExits":    "off: not declared, pods that need it are refused",
	"RotateKubeletServerCertificate":          "off: serverTLSBootstrap is refused",
}

// RefusedGates cannot be switched on: what hardens a pod by them would be missing.
var RefusedGates = map[string]string{
	"AtomicWriteVolumeUserFields": "files of pods would have another owner",
	"DefaultPodSysctls":           "see defaultPodSysctls",
	"EmptyDirVolumeMode":          "emptyDir volumes would have another mode",
	"QOSReserved":                 "see qosReserved",
	"VolumeBindMountOptions":      "mounts would lack noexec, nodev and nosuid",
}

// gates is the list, read once.
var gates = sync.OnceValue(func() map[string]gate {
	out := map[string]gate{}
	for line := range strings.Lines(gateList) {
		f := strings.Fields(line)
		if len(f) == 4 {
			out[f[0]] = gate{usual: f[1] == "true", stage: f[2], locked: f[3] == "locked"}
		}
	}
	return out
})

// groups are gates that stand for all of a stage that are not set themselves.
var groups = map[string]string{"AllAlpha": "ALPHA", "AllBeta": "BETA"}

// Enabled reports whether a feature gate of kubelet is on.
func (k *Configuration) Enabled(name string) bool {
	if on, set := k.FeatureGates[name]; set {
		return on
	}
	g := gates()[name]
	for group, stage := range groups {
		if on, set := k.FeatureGates[group]; set && g.stage == stage {
			return on
		}
	}
	return g.usual
}

// Gate is a feature gate of kubelet, and what it is set to. The stage is ALPHA, BETA, DEPRECATED, or empty
// for GA.
type Gate struct {
	Name, Stage string
	Enabled     bool
}

// Gates returns all feature gates of kubelet, by name.
func (k *Configuration) Gates() []Gate {
	known := gates()
	out := make([]Gate, 0, len(known))
	for _, name := range slices.Sorted(maps.Keys(known)) {
		stage := known[name].stage
		if stage == "GA" {
			stage = ""
		}
		out = append(out, Gate{Name: name, Stage: stage, Enabled: k.Enabled(name)})
	}
	return out
}

// checkGates refuses gates that kubelet does not know, that are locked, and that are not served.
func (k *Configuration) checkGates() error {
	known := gates()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(k.FeatureGates)) {
		g, ok := known[name]
		switch {
		case groups[name] != "":
		case !ok:
			errs = append(errs, fmt.Errorf("featureGates: unrecognized feature gate: %s", name))
		case g.locked && k.FeatureGates[name] != g.usual:
			errs = append(errs, fmt.Errorf("featureGates: cannot set %s to %v, feature is locked to %v",
				name, k.FeatureGates[name], g.usual))
		}
	}

	for _, name := range slices.Sorted(maps.Keys(RefusedGates)) {
		if k.Enabled(name) {
			errs = append(errs, fmt.Errorf("featureGates: %s is not served: %s", name, RefusedGates[name]))
		}
	}

	return errors.Join(errs...)
}

// GateNotices are gates that were set to what is not usual, without effect here.
func (k *Configuration) GateNotices() []string {
	known := gates()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(k.FeatureGates)) {
		if g, ok := known[name]; ok && ServedGates[name] == "" && k.FeatureGates[name] != g.usual {
			out = append(out, fmt.Sprintf("feature gate %s=%v has no effect here", name,
				k.FeatureGates[name]))
		}
	}
	return out
}
