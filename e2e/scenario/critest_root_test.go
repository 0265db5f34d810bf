package scenario

import "testing"

// TestCritest runs the published critest on trivet-cri with each OCI runtime. trivet-cluster
// fails unless every spec has passed or was skipped for a known reason.
func TestCritest(t *testing.T) {
	c := open(t)
	for _, oci := range []string{"crun", "runc"} {
		t.Run(oci, func(t *testing.T) {
			out, err := c.cluster("critest", "--oci="+oci)
			t.Log(out)
			if err != nil {
				t.Error(err)
			}
		})
	}
}
