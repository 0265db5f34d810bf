package network

import (
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Kubernetes' own parser says what a quantity is, and the bounds are kubelet's.
func TestRatesAreQuantitiesOfKubernetes(t *testing.T) {
	for _, text := range []string{
		"1k", "1000", "999", "999.1", "999m", "1000001m", "10M", "1.5M", "1.", ".5M", "+3M", "-3M", "0",
		"1P", "1.1P", "1Pi", "900Ti", "1Ki", "1Mi", "2Gi", "1E", "1Ei", "1e3", "1E3", "1e+6", "15e14", "1e16",
		"12e-1", "1e-3", "5e9", "2500000u", "3000000000000n", "", " 1M", "1M ", "M", "10Mbit", "1ki", "1K",
		"1e", "1e3M", "0x400", "1_000", "1/2", "1,5M", "--1M", "NaN", "Inf", "9223372036854775807",
		"99999999999999999999",
	} {
		got, err := parseRate(text)
		want, wantErr := resource.ParseQuantity(text)
		isRate := wantErr == nil && want.Value() >= 1e3 && want.Value() <= 1e15
		if isRate != (err == nil) || isRate && got != uint64(want.Value()) {
			t.Errorf("%q is %d, %v; Kubernetes says %v, %v", text, got, err, &want, wantErr)
		}
	}
}

func TestAnnotationsBoundAPodsBandwidth(t *testing.T) {
	f := open(t)
	f.write("net.d/10.conflist", strings.Replace(conflist, `"dns"`, `"bandwidth":true,"dns"`, 1), 0o644)
	f.Reload(t.Context())
	pod := Attachment{
		ID:        "pod",
		Netns:     f.write("netns", "", 0o600),
		Name:      "web",
		Namespace: "shop",
		Annotations: map[string]string{
			"kubernetes.io/ingress-bandwidth": "10M",
			"kubernetes.io/egress-bandwidth":  "1.5M",
		},
	}
	if _, err := f.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}

	input, err := os.ReadFile(f.path("joined/pod"))
	const want = `"bandwidth":{"ingressRate":10000000,"ingressBurst":4294967295,` +
		`"egressRate":1500000,"egressBurst":4294967295}`
	if err != nil || !strings.Contains(string(input), want) {
		t.Errorf("the plugin gets %s, %v", input, err)
	}
	if err := f.Teardown(t.Context(), pod); err != nil {
		t.Error(err)
	}

	pod.Annotations["kubernetes.io/egress-bandwidth"] = "fast"
	_, err = f.Setup(t.Context(), pod)
	if err == nil || !strings.Contains(err.Error(), "shop/web") ||
		!strings.Contains(err.Error(), `kubernetes.io/egress-bandwidth: "fast"`) || f.has("joined/pod") {
		t.Errorf("a rate that is none: %v", err)
	}
	if err := f.Teardown(t.Context(), pod); err != nil {
		t.Error(err)
	}
}
