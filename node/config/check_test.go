package config

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultsAreValid(t *testing.T) {
	c := defaults()
	if err := c.complete(); err != nil {
		t.Error(err)
	}
	if len(c.Notices) > 0 {
		t.Errorf("notices about defaults: %q", c.Notices)
	}
}

// refused checks that each file ends the start with an error that names the field.
func refused(t *testing.T, files map[string]string) {
	t.Helper()
	for text, want := range files {
		if _, err := configured(t, header+text+"\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error that names %s", text, err, want)
		}
	}
}

func TestBadValuesOfTheNodeAreRefusedByName(t *testing.T) {
	refused(t, map[string]string{
		"address: localhost":                         "address",
		"port: 70000":                                "port",
		"readOnlyPort: -1":                           "readOnlyPort",
		"healthzPort: 65536":                         "healthzPort",
		"authorization: {mode: Allow}":               "authorization.mode",
		"authentication: {webhook: {cacheTTL: -1s}}": "cacheTTL",

		"tlsCertFile: /a":               "tlsPrivateKeyFile",
		"tlsMinVersion: VersionTLS14":   "tlsMinVersion",
		"tlsMinVersion: VersionTLS10":   "tlsMinVersion",
		"tlsCipherSuites: [TLS_NONE]":   "tlsCipherSuites",
		"tlsCurvePreferences: [1]":      "tlsCurvePreferences",
		"tlsCurvePreferences: [29, 29]": "tlsCurvePreferences",

		"eventRecordQPS: -1": "eventRecordQPS",
		"kubeAPIBurst: -1":   "kubeAPIBurst",
		"enableSystemLogQuery: true\nenableSystemLogHandler: false": "enableSystemLogQuery",
		"logging: {format: xml}":                                    "logging.format",

		"nodeLeaseDurationSeconds: -1":   "nodeLeaseDurationSeconds",
		"nodeStatusUpdateFrequency: -1s": "nodeStatusUpdateFrequency",
		"nodeStatusMaxImages: -2":        "nodeStatusMaxImages",
		"maxPods: -1":                    "maxPods",
		"podsPerCore: -1":                "podsPerCore",
		"maxOpenFiles: -1":               "maxOpenFiles",
		"oomScoreAdj: 1001":              "oomScoreAdj",
		"registerWithTaints: [{key: a b, effect: NoSchedule}]": "registerWithTaints",
		"registerWithTaints: [{key: a, effect: Never}]":        "registerWithTaints",
		"iptablesDropBit: 32":                                  "iptablesDropBit",
		"hairpinMode: x":                                       "hairpinMode",

		"maxParallelImagePulls: 0":                            "maxParallelImagePulls",
		"serializeImagePulls: true\nmaxParallelImagePulls: 2": "serializeImagePulls",
		"imageGCHighThresholdPercent: 101":                    "imageGCHighThresholdPercent",
		"imageGCLowThresholdPercent: 85":                      "imageGCLowThresholdPercent",
		"imageMaximumGCAge: 1m":                               "imageMaximumGCAge",
	})
}

func TestBadValuesOfPodsAreRefusedByName(t *testing.T) {
	refused(t, map[string]string{
		"podLogsDir: var/log":                                "podLogsDir",
		"podLogsDir: /var/../log":                            "podLogsDir",
		"podLogsDir: /var/lög":                               "podLogsDir",
		"containerLogMaxSize: big":                           "containerLogMaxSize",
		"containerLogMaxFiles: 1":                            "containerLogMaxFiles",
		"containerLogMaxWorkers: 0":                          "containerLogMaxWorkers",
		"containerLogMonitorInterval: 1s":                    "containerLogMonitorInterval",
		"clusterDNS: [dns]":                                  "clusterDNS",
		"httpCheckFrequency: -1s":                            "httpCheckFrequency",
		"syncFrequency: -1s":                                 "syncFrequency",
		"crashLoopBackOff: {maxContainerRestartPeriod: 10m}": "maxContainerRestartPeriod",
		"allowedUnsafeSysctls: [vm.swappiness]":              "allowedUnsafeSysctls",
		"allowedUnsafeSysctls: ['net.*.x']":                  "allowedUnsafeSysctls",
		"userNamespaces: {idsPerPod: 65537}":                 "userNamespaces.idsPerPod",
		"configMapAndSecretChangeDetectionStrategy: Poll":    "configMapAndSecret",
	})
}

func TestBadValuesOfResourcesAreRefusedByName(t *testing.T) {
	refused(t, map[string]string{
		"cgroupDriver: none":                                "cgroupDriver",
		"cpuCFSQuotaPeriod: 2s":                             "cpuCFSQuotaPeriod",
		"memorySwap: {swapBehavior: Always}":                "memorySwap.swapBehavior",
		"memoryThrottlingFactor: 1.5":                       "memoryThrottlingFactor",
		"enforceNodeAllocatable: [none, pods]":              "enforceNodeAllocatable",
		"enforceNodeAllocatable: [pods, pods]":              "enforceNodeAllocatable",
		"cgroupsPerQOS: false":                              "cgroupsPerQOS",
		"systemReserved: {cpu: x}":                          "systemReserved",
		"kubeReserved: {memory: -1Gi}":                      "kubeReserved",
		"kubeReserved: {example.com/x: 1}":                  "kubeReserved",
		"reservedSystemCPUs: 3-x":                           "reservedSystemCPUs",
		"cpuManagerPolicy: magic":                           "cpuManagerPolicy",
		"topologyManagerScope: node":                        "topologyManagerScope",
		"shutdownGracePeriodCriticalPods: 10s":              "shutdownGracePeriodCriticalPods",
		"evictionHard: {memory.free: 1Mi}":                  "evictionHard",
		"evictionHard: {memory.available: 101%}":            "evictionHard",
		"evictionSoft: {memory.available: 10%}":             "evictionSoftGracePeriod",
		"evictionMinimumReclaim: {nodefs.available: -1Gi}":  "evictionMinimumReclaim",
		"imagePullCredentialsVerificationPolicy: Sometimes": "imagePullCredentialsVerificationPolicy",
		"featureGates: {NoSuchGate: true}":                  "NoSuchGate",
		"featureGates: {UserNamespacesSupport: false}":      "UserNamespacesSupport",

		"serverTLSBootstrap: true\nfeatureGates: {RotateKubeletServerCertificate: false}": "serverTLSB",
	})
}

func TestBadFlagsAreRefusedByName(t *testing.T) {
	for line, want := range map[string]string{
		"--node-labels=node-role.kubernetes.io/x=":       "node-role.kubernetes.io/x",
		"--node-labels=a/b/c=d":                          "node-labels",
		"--node-labels=a=b_":                             "node-labels",
		"--node-ip=host":                                 "node-ip",
		"--node-ip=127.0.0.1":                            "node-ip",
		"--node-ip=fe80::1":                              "node-ip",
		"--node-ip=192.0.2.1,192.0.2.2":                  "node-ip",
		"--root-dir=var":                                 "root directory",
		"--cloud-provider=aws":                           "cloud-provider",
		"--max-pods=many":                                "max-pods",
		"--experimental-mounter-path=/bin/mount":         "experimental-mounter-path",
		"--feature-gates=ContainerCheckpoint=perhaps":    "feature-gates",
		"--qos-reserved=memory=50%":                      "qosReserved",
		"--reserved-memory=0:memory=1Gi":                 "reservedMemory",
		"--register-with-taints=a=b:Sometimes":           "registerWithTaints",
		"--authorization-webhook-cache-authorized-ttl=x": "cache-authorized-ttl",
	} {
		if _, err := configured(t, "", line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error that names %s", line, err, want)
		}
	}
}

func TestSettingsThatHardenAreServedOrRefused(t *testing.T) {
	for text, refused := range map[string]bool{
		"enableDebuggingHandlers: false":                                  false,
		"tlsMinVersion: VersionTLS13":                                     false,
		"tlsCipherSuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]":        false,
		"tlsCurvePreferences: [29, 4588]":                                 false,
		"imagePullCredentialsVerificationPolicy: AlwaysVerify":            false,
		"protectKernelDefaults: true":                                     false,
		"streamingConnectionIdleTimeout: 5m":                              false,
		"eventRecordQPS: 5":                                               false,
		"podPidsLimit: 100":                                               false,
		"seccompDefault: true":                                            false,
		"enableProfilingHandler: false":                                   false,
		"enableSystemLogHandler: false":                                   false,
		"enableDebugFlagsHandler: false":                                  false,
		"enforceNodeAllocatable: [pods]":                                  false,
		"enforceNodeAllocatable: [kube-reserved]\nkubeReservedCgroup: /a": false,
		"cpuManagerPolicy: static":                                        true,
		"memoryManagerPolicy: Static":                                     true,
		"topologyManagerPolicy: restricted":                               true,
		"featureGates: {VolumeBindMountOptions: true}":                    true,
		"featureGates: {AllAlpha: true}":                                  true,
		"featureGates: {AllAlpha: true, VolumeBindMountOptions: false, QOSReserved: false, " +
			"EmptyDirVolumeMode: false, DefaultPodSysctls: false, AtomicWriteVolumeUserFields: false}": false,
		"staticPodURL: http://x":                            false,
		"systemCgroups: /s\ncgroupRoot: /r":                 true,
		"defaultPodSysctls: {net.ipv4.tcp_syncookies: '1'}": true,
	} {
		c, err := configured(t, header+text+"\n")
		if (err != nil) != refused {
			t.Errorf("%q: %v, refused should be %v", text, err, refused)
		}

		name, _, _ := strings.Cut(text, ":")
		for _, notice := range c.Notices {
			if strings.Contains(notice, "field "+name) {
				t.Errorf("%q is ignored: %s", text, notice)
			}
		}
	}
}

func TestWhatHasNoEffectIsSaidOnce(t *testing.T) {
	c, err := configured(t,
		header+"fileCheckFrequency: 30s\nshutdownGracePeriod: 30s\nregistryPullQPS: 5\n",
		"--registry-burst=20",
		"--feature-gates=WatchList=false")
	if err != nil {
		t.Fatal(err)
	}

	got := strings.Join(c.Notices, "\n")
	for _, want := range []string{"fileCheckFrequency", "shutdownGracePeriod", "registryBurst",
		"WatchList=false"} {
		if strings.Count(got, want+" has no effect") != 1 {
			t.Errorf("%s is not named once in:\n%s", want, got)
		}
	}

	if strings.Contains(got, "registryPullQPS") {
		t.Errorf("a default is named in:\n%s", got)
	}
}

func TestTheImagePolicyFollowsItsGate(t *testing.T) {
	c, err := configured(t, header+"featureGates: {KubeletEnsureSecretPulledImages: false}\n")
	if err != nil || c.Kubelet.ImagePullCredentialsVerificationPolicy != "NeverVerify" {
		t.Errorf("%q, %v", c.Kubelet.ImagePullCredentialsVerificationPolicy, err)
	}
}

func TestConfigzCanBeReadAsAConfigurationFile(t *testing.T) {
	file := strings.Replace(kubeadm, "nodeStatusUpdateFrequency: 0s", "nodeStatusUpdateFrequency: 20s", 1)
	c, err := configured(t, file, "--max-pods=7", "--register-with-taints=a=b:NoSchedule")
	if err != nil {
		t.Fatal(err)
	}

	data, err := json.Marshal(&c.Kubelet)
	if err != nil {
		t.Fatal(err)
	}

	again, err := configured(t, string(data))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.Kubelet, again.Kubelet); diff != "" {
		t.Error(diff)
	}

	for _, want := range []string{`"kind":"KubeletConfiguration"`,
		`"apiVersion":"kubelet.config.k8s.io/v1beta1"`,
		`"nodeStatusUpdateFrequency":"20s"`, `"cacheTTL":"2m0s"`, `"maxPods":7`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in %s", want, data)
		}
	}
}
