package driver

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/csi/volume"
)

// Calls bring secrets and tokens of pods, which drivers have been seen to log (CVE-2023-2878, CVE-2024-3744).
func TestSecretsOfACallAreNotLogged(t *testing.T) {
	var log bytes.Buffer
	d, err := New(Config{
		NodeID: "node",
		Log:    slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}

	node := nodeService{local: local{node: d.cfg.NodeID}}
	request := &csi.NodePublishVolumeRequest{
		VolumeId:       "../v",
		TargetPath:     "/target",
		Secrets:        map[string]string{"password": "s3cret"},
		VolumeContext:  map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": "s3cret"},
		PublishContext: map[string]string{"key": "s3cret"},
	}

	info := &grpc.UnaryServerInfo{FullMethod: csi.Node_NodePublishVolume_FullMethodName}
	for _, next := range []grpc.UnaryHandler{
		func(ctx context.Context, req any) (any, error) {
			return node.NodePublishVolume(ctx, req.(*csi.NodePublishVolumeRequest))
		},
		func(context.Context, any) (any, error) { return &csi.NodePublishVolumeResponse{}, nil },
	} {
		_, err = d.observe(t.Context(), request, info, next)
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the answer says %v", err)
		}
	}

	text := log.String()
	if strings.Contains(text, "s3cret") || strings.Count(text, "NodePublishVolume") != 2 {
		t.Errorf("the log says %s", text)
	}
}

// An encrypted volume is staged with what its key follows from, and with nothing else of the Secret.
func TestVolumeIsStagedWithItsKeyAlone(t *testing.T) {
	f := serve(t)
	request := &csi.NodeStageVolumeRequest{
		VolumeId:          "plain",
		StagingTargetPath: "/stage",
		VolumeCapability:  mountCapability(),
		Secrets:           map[string]string{"encryptionKey": "s3cret", "password": "other"},
	}
	_, err := f.node.NodeStageVolume(t.Context(), request)
	checkCode(t, "stage", err, codes.OK)
	if f.publisher.use.Secret != "s3cret" {
		t.Errorf("staged as %+v", f.publisher.use)
	}

	f.publisher.err = volume.ErrKey
	_, err = f.node.NodeStageVolume(t.Context(), request)
	checkCode(t, "stage", err, codes.Unauthenticated)
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the answer says %v", err)
	}
}
