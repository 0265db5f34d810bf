package keyfile_test

import (
	"os"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }
