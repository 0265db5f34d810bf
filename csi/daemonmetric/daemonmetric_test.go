package daemonmetric

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/internal/metric/metrictest"
)

// node has a pool with two volumes, of which one is used, and another backend that is in trouble.
type node struct{ err error }

func (n node) Space() ([]space.Use, error) {
	return []space.Use{{
		Backend:   "btrfs",
		Volumes:   2,
		Promised:  2 << 30,
		Limit:     10 << 30,
		Unwritten: 1 << 30,
		Free:      8 << 30,
	}}, n.err
}

func (node) InUse() int { return 1 }

func (node) Counts() map[string]volume.Counts {
	return map[string]volume.Counts{"btrfs": {Snapshots: 3, Kept: 1 << 20, Damaged: 2, Stuck: 1}}
}

// pool has 2 GiB, half of which is used.
type pool struct{ err error }

func (p pool) Room() (size, content, headroom int64, err error) {
	return 2 << 30, 1 << 30, 1 << 29, p.err
}

func metricsOf(n node, p pool) *Set { return New(n, map[string]Pool{"btrfs": p}) }

func (node) Trouble() map[string]error {
	return map[string]error{"btrfs": nil, "image": errors.New("no loop devices")}
}

func scrape(s *Set) string {
	w := httptest.NewRecorder()
	handler := metric.Handler(s.Registry, slog.New(slog.DiscardHandler))
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func TestSpaceVolumesAndCallsAreShown(t *testing.T) {
	s := metricsOf(node{}, pool{})
	s.Calls.Observe("/csi.v1.Controller/CreateVolume", codes.ResourceExhausted, time.Second)

	got := scrape(s)
	for _, want := range []string{
		`trivet_csi_calls_total{code="ResourceExhausted",method="CreateVolume"} 1`,
		`trivet_csi_volumes{backend="btrfs"} 2`,
		`trivet_csi_volumes_in_use 1`,
		`trivet_csi_backend_healthy{backend="btrfs"} 1`,
		`trivet_csi_backend_healthy{backend="image"} 0`,
		`trivet_csi_pool_limit_bytes{backend="btrfs"} 1.073741824e+10`,
		`trivet_csi_pool_promised_bytes{backend="btrfs"} 2.147483648e+09`,
		`trivet_csi_pool_unwritten_bytes{backend="btrfs"} 1.073741824e+09`,
		`trivet_csi_pool_free_bytes{backend="btrfs"} 8.589934592e+09`,
		`trivet_csi_pool_size_bytes{backend="btrfs"} 2.147483648e+09`,
		`trivet_csi_pool_content_bytes{backend="btrfs"} 1.073741824e+09`,
		`trivet_csi_pool_headroom_bytes{backend="btrfs"} 5.36870912e+08`,
		`trivet_csi_snapshots{backend="btrfs"} 3`,
		`trivet_csi_snapshots_kept_bytes{backend="btrfs"} 1.048576e+06`,
		`trivet_csi_volumes_damaged{backend="btrfs"} 2`,
		`trivet_csi_volumes_stuck{backend="btrfs"} 1`,
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

func TestTheDocumentsHaveAllMetrics(t *testing.T) {
	s := metricsOf(node{}, pool{})
	s.Calls.Observe("/csi.v1.Identity/Probe", codes.OK, time.Millisecond)
	metrictest.Compare(t, "trivet-csi", s.Registry)
}

func TestADiskThatCannotBeMeasuredLeavesTheRest(t *testing.T) {
	got := scrape(metricsOf(node{err: errors.New("no disk")}, pool{errors.New("it is down")}))
	if !strings.Contains(got, "trivet_csi_volumes_in_use 1") || strings.Contains(got, "trivet_csi_pool") {
		t.Error(got)
	}
}
