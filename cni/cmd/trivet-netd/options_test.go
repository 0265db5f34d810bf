package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/program"
)

// parseArgs parses a command line.
func parseArgs(args ...string) (options, error) {
	return parse(&program.Env{
		Name:   "trivet-netd",
		Args:   args,
		Stdout: io.Discard,
		Stderr: io.Discard,
		Log:    slog.New(slog.DiscardHandler),
	}, about)
}

func TestOptionsHaveWorkingDefaults(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	o, err := parseArgs()
	if err != nil {
		t.Fatal(err)
	}

	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}

	if o.NodeName != strings.ToLower(hostname) ||
		o.ConfDir != "/etc/cni/net.d" || o.ConfName != "10-trivet.conflist" ||
		o.Plugin != "/opt/cni/bin/trivet-cni" || o.healthz != "127.0.0.1:10261" || o.cleanup {
		t.Errorf("%+v", o)
	}

	t.Setenv("NODE_NAME", "node-7")
	if o, err := parseArgs(); err != nil || o.NodeName != "node-7" {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parseArgs("--node-name=Node-7"); err != nil || o.NodeName != "node-7" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestNetworksAreListsOfPrefixes(t *testing.T) {
	o, err := parseArgs("--cluster-cidr=10.244.0.7/16, fd00:244::/48,", "--service-cidr=10.96.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(o.ClusterCIDRs, o.ServiceCIDRs); got != "[10.244.0.0/16 fd00:244::/48] "+
		"[10.96.0.0/16]" {
		t.Errorf("%s", got)
	}
}

func TestWrongUseIsNamed(t *testing.T) {
	for _, arg := range []string{
		"--conf-dir=etc",
		"--plugin=trivet-cni",
		"--conf-name=a/b.conflist",
		"--conf-name=trivet.conf",
		"--cluster-cidr=10.244.0.0",
		"--service-cidr=nonsense",
		"--bridge=a/b",
		"--bridge=longer-than-15-bytes",
		"--network=a/b",
	} {
		_, err := parseArgs(arg)
		flag, _, _ := strings.Cut(arg, "=")
		if _, ok := errors.AsType[*program.UsageError](err); !ok || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", arg, err)
		}
	}

	if _, err := parseArgs("status"); err == nil || !strings.Contains(err.Error(), `"status"`) {
		t.Errorf("an argument: %v", err)
	}
}

func TestWithoutCredentialsThereIsAHint(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, kubeconfig := range []string{"", "/does/not/exist"} {
		_, err := apiConfig(kubeconfig)
		failure, ok := errors.AsType[*program.CantRunError](err)
		if !ok || !strings.Contains(failure.Do, "--kubeconfig") {
			t.Errorf("%q: %v", kubeconfig, err)
		}
	}
}
