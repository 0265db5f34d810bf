package nodestatus_test

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/node/nodestatus"
)

func TestARestoredServerHasTheStatusAgainAtOnce(t *testing.T) {
	server := kubetest.Start(t)
	n := newNode(t, server, func(cfg *nodestatus.Config) { cfg.CheckFrequency = time.Hour })
	n.runtime.set(true)
	n.start()
	n.await("not ready", func() bool { return readyOf(n.stored()) == v1.ConditionFalse })
	restore := kubetest.Backup(server)

	n.runtime.set(false)
	n.await("ready", func() bool { return readyOf(n.stored()) == v1.ConditionTrue })
	marked := n.stored()
	marked.Labels["seen"] = "by the watch"
	server.Put(marked)
	n.await("the watch has seen it", func() bool { return n.Known().Labels["seen"] != "" })
	restore()
	n.await("ready again", func() bool { return readyOf(n.stored()) == v1.ConditionTrue })
}
