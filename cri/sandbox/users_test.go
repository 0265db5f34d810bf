package sandbox_test

import (
	"errors"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/sandbox/sandboxtest"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestUserNamespaceIsPinnedWithTheOthersAndGoesWithThem(t *testing.T) {
	testenv.Root(t)
	f := open(t)
	config := sandboxtest.Pod("mapped", true)
	nodetest.OwnUsers(1 << 20)(config)
	id := f.run(config)
	r, err := f.Get(id)
	if err != nil {
		t.Fatal(err)
	}

	users := f.Users(r)
	if users == nil || users.First != 1<<20 || f.Namespaces(r)[specs.UserNamespace] != users.Path {
		t.Errorf("users %+v, namespaces %v", users, f.Namespaces(r))
	}
	if left := strings.Join(f.machine.Left(), " "); !strings.Contains(left, "pin user") {
		t.Errorf("there is %s", left)
	}

	// The next server finds it.
	f.restart()
	if err := f.Remove(t.Context(), id); err != nil || len(f.machine.Left()) > 0 {
		t.Errorf("%v; left: %v", err, f.machine.Left())
	}
}

func TestHandlerWithoutUserNamespacesSaysWhy(t *testing.T) {
	f := open(t)
	config := sandboxtest.Pod("mapped", false)
	nodetest.OwnUsers(1 << 20)(config)
	_, err := f.Run(t.Context(), config, sandboxtest.NoUsers)
	if !errors.Is(err, sandbox.ErrInvalid) || !strings.Contains(err.Error(), "too old for it") {
		t.Errorf("error %v", err)
	}

	// A pod with the host's users does not mind.
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{
		Mode: runtimeapi.NamespaceMode_NODE,
	}
	if _, err := f.Run(t.Context(), config, sandboxtest.NoUsers); err != nil {
		t.Error(err)
	}
}
