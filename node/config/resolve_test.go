package config

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/threshold"
)

// read is the configuration of a file and flags, as the agent gets it.
func read(t *testing.T, file string, args ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(header+file), 0o600); err != nil {
		t.Fatal(err)
	}

	set := flag.NewFlagSet("x", flag.ContinueOnError)
	flags := Register(set)
	if err := set.Parse(append(args, "--config="+path)); err != nil {
		t.Fatal(err)
	}

	return Read(flags)
}

func TestDefaultsAreKubelets(t *testing.T) {
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}

	if !c.Node.Register || c.Node.MaxPods != 110 || c.Node.LeaseDuration != 40*time.Second {
		t.Errorf("node %+v", c.Node)
	}

	if !c.API.Enabled || c.API.Address != "0.0.0.0:10250" || c.API.Anonymous || !c.API.TokenReview ||
		c.API.TokenTTL != 2*time.Minute {
		t.Errorf("API %+v", c.API)
	}

	if c.HealthAddress != "127.0.0.1:10248" || c.Images.ParallelPulls != 0 ||
		c.Containers.MaxBackoff != 5*time.Minute {
		t.Errorf("health %s, images %+v, containers %+v", c.HealthAddress, c.Images, c.Containers)
	}

	if c.Logs.MaxSize != 10<<20 || c.Logs.MaxFiles != 5 {
		t.Errorf("logs %+v", c.Logs)
	}
}

func TestSettingsAreResolvedToPlainValues(t *testing.T) {
	c, err := read(t, `
evictionHard: {memory.available: 10%, nodefs.available: 1Gi}
systemReserved: {memory: 1Gi}
kubeReserved: {memory: 500Mi, cpu: 100m}
containerLogMaxSize: 1Mi
containerLogMaxWorkers: 3
imageGCHighThresholdPercent: 70
imageGCLowThresholdPercent: 60
imageMaximumGCAge: 48h
healthzPort: 0
singleProcessOOMKill: false
memorySwap: {swapBehavior: LimitedSwap}
serializeImagePulls: true
clusterDNS: [192.0.2.10]
`, "--node-ip=192.0.2.7,2001:db8::7", "--cloud-provider=external", "--minimum-image-ttl-duration=1h",
		"--minimum-container-ttl-duration=1m", "--maximum-dead-containers-per-container=2",
		"--maximum-dead-containers=100")
	if err != nil {
		t.Fatal(err)
	}

	reserved := c.Resources.Reserved.Memory()
	if reserved.Value() != 1524<<20 {
		t.Errorf("reserved %v", c.Resources.Reserved)
	}

	hard := c.Resources.EvictionHard
	if hard[threshold.Memory].Of(1000) != 100 || hard[threshold.NodeFS].Of(1000) != 1<<30 {
		t.Errorf("evictionHard %v", hard)
	}
	if c.Logs.MaxSize != 1<<20 || c.HealthAddress != "" || c.Images.ParallelPulls != 1 {
		t.Errorf("logs %+v, health %q, images %+v", c.Logs, c.HealthAddress, c.Images)
	}
	if c.Containers.SingleOOMKill || !c.Containers.LimitedSwap || !c.Machine.NeedsGroupKills ||
		!c.Node.ExternalCloud {
		t.Errorf("containers %+v, machine %+v", c.Containers, c.Machine)
	}

	kept := Ended{MinAge: time.Minute, PerContainer: 2, Total: 100}
	if c.Logs.Workers != 3 || c.Containers.Ended != kept {
		t.Errorf("logs %+v, containers that have ended %+v", c.Logs, c.Containers.Ended)
	}
	if i := c.Images; i.HighPercent != 70 || i.LowPercent != 60 || i.MinAge != time.Hour ||
		i.MaxAge != 48*time.Hour {
		t.Errorf("images %+v", i)
	}

	want := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}
	if !slices.Equal(c.Node.IPs, want) {
		t.Errorf("addresses %v", c.Node.IPs)
	}
}

func TestAnUnspecifiedAddressOnlyNamesAFamily(t *testing.T) {
	c, err := read(t, "", "--node-ip=::")
	if err != nil || len(c.Node.IPs) != 0 {
		t.Errorf("addresses %v, %v", c.Node.IPs, err)
	}
}

func TestABadValueIsAnErrorBeforeAnythingStarts(t *testing.T) {
	for text, want := range map[string]string{
		"containerLogMaxSize: big":          "containerLogMaxSize",
		"evictionHard: {nodefs.inodes: 5%}": "evictionHard",
		"systemReserved: {cpu: lots}":       "systemReserved",
		"tlsMinVersion: VersionTLS10":       "tlsMinVersion",
		"maxPods: many":                     "maxPods",
	} {
		if _, err := read(t, text+"\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error that names %s", text, err, want)
		}
	}
}

func TestDaemonsAreHeldInKubeletsOrder(t *testing.T) {
	c, err := read(t, `
enforceNodeAllocatable: [kube-reserved-compressible, system-reserved]
systemReserved: {memory: 1Gi}
systemReservedCgroup: /system.slice
kubeReserved: {cpu: 100m}
kubeReservedCgroup: /kube.slice
`)
	if err != nil {
		t.Fatal(err)
	}

	want := []Daemons{
		{
			Name:      "System Reserved",
			Group:     "/system.slice",
			Reserved:  v1.ResourceList{v1.ResourceMemory: resource.MustParse("1Gi")},
			Protected: true,
		},
		{
			Name:         "Kube Reserved",
			Group:        "/kube.slice",
			Reserved:     v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m")},
			Compressible: true,
			Protected:    true,
		},
	}
	if diff := cmp.Diff(want, c.Cgroups.Daemons); diff != "" || c.Cgroups.HoldPods {
		t.Errorf("pods are held %v, daemons %s", c.Cgroups.HoldPods, diff)
	}
}
