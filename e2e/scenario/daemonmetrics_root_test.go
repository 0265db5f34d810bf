package scenario

import (
	"fmt"
	"regexp"
	"testing"
	"time"
)

// shown are figures that are not zero after a pod has started, by the page of the node's endpoint.
var shown = map[string][]string{
	"metrics": {
		`kubelet_started_pods_total`,
		`kubelet_running_pods`,
		`kubelet_pod_start_sli_duration_seconds_count`,
		`kubelet_runtime_operations_total{operation_type="start_container"}`,
		`rest_client_requests_total{code="200",host="[^"]+",method="PATCH"}`,
	},
	"metrics/trivet-cri": {
		`trivet_cri_calls_total{code="OK",method="RunPodSandbox"}`,
		`trivet_cri_step_duration_seconds_count{result="ok",step="network_setup"}`,
		`trivet_cri_step_duration_seconds_count{result="ok",step="runtime_start"}`,
		`trivet_cri_containers{state="running"}`,
		`trivet_cri_monitor_connected`,
	},
	"metrics/trivet-netd": {
		`trivet_netd_passes_total{result="ok"}`,
		`trivet_netd_pool_addresses_taken{subnet="[^"]+"}`,
		`trivet_cni_calls_total{code="0",command="ADD"}`,
	},
	"metrics/trivet-csi": {
		`trivet_csi_calls_total{code="OK",method="NodeGetInfo"}`,
		`trivet_csi_pool_free_bytes{backend="[^"]+"}`,
	},
}

// TestDaemonsShowWhatTheyDoForAPod reads all pages through the API server, as a Prometheus with the
// permission nodes/metrics could.
func TestDaemonsShowWhatTheyDoForAPod(t *testing.T) {
	c := open(t)
	if c.agent == "kubelet" {
		t.Skip("kubelet does not pass on what the other daemons show")
	}

	c.pod("shown", "sleep 1000")
	c.awaitReady(time.Minute, "shown")
	for page, metrics := range shown {
		c.eventually(time.Minute, page, func() error {
			out, err := c.try("get", fmt.Sprintf("--raw=/api/v1/nodes/%s/proxy/%s", c.node, page))
			if err != nil {
				return err
			}
			for _, metric := range metrics {
				if !regexp.MustCompile(`(?m)^` + metric + ` [1-9]`).MatchString(out) {
					return fmt.Errorf("no %s in\n%s", metric, out)
				}
			}
			return nil
		})
	}
}
