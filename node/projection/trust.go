package projection

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// trust returns the file with the trust anchors of the ClusterTrustBundles that the source names or selects.
func (p *Projector) trust(
	ctx context.Context,
	pod *v1.Pod,
	src *v1.ClusterTrustBundleProjection,
	mode fs.FileMode,
) (Files, error) {
	bundles, err := p.trustBundles(ctx, src)
	if err != nil {
		return nil, err
	}
	anchors, err := trustAnchors(bundles)
	if err != nil {
		return nil, err
	}
	return Files{src.Path: credential(pod, anchors, mode)}, nil
}

// trustBundles returns the bundles that the source names or selects. Finding none is an error unless the
// source is optional.
func (p *Projector) trustBundles(
	ctx context.Context,
	src *v1.ClusterTrustBundleProjection,
) ([]*certificatesv1.ClusterTrustBundle, error) {
	optional := ptr.Deref(src.Optional, false)
	switch {
	case src.Name != nil:
		bundle, err := p.Objects.ClusterTrustBundle(ctx, *src.Name)
		if apierrors.IsNotFound(err) && optional {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("clustertrustbundle %q: %w", *src.Name, err)
		}

		return []*certificatesv1.ClusterTrustBundle{bundle}, nil

	case src.SignerName != nil:
		var bundles []*certificatesv1.ClusterTrustBundle
		selector, err := metav1.LabelSelectorAsSelector(src.LabelSelector)

		// No selector selects nothing, an empty one everything.
		if err == nil && src.LabelSelector != nil {
			bundles, err = p.Objects.ClusterTrustBundles(ctx, *src.SignerName, selector)
		}
		if err != nil {
			return nil, fmt.Errorf("clustertrustbundles of signer %q: %w", *src.SignerName, err)
		}
		if len(bundles) == 0 && !optional {
			return nil, fmt.Errorf("no clustertrustbundle of signer %q matches %q", *src.SignerName, selector)
		}

		return bundles, nil
	}

	return nil, errors.New("a clusterTrustBundle source needs a name or a signerName")
}

// trustAnchors joins the certificates of all bundles: each one once, without headers and text between them,
// in an order that does not depend on that of the bundles.
func trustAnchors(bundles []*certificatesv1.ClusterTrustBundle) ([]byte, error) {
	var all [][]byte
	for _, b := range bundles {
		rest := []byte(b.Spec.TrustBundle)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}

			if block.Type != "CERTIFICATE" {
				return nil, fmt.Errorf("clustertrustbundle %q holds a PEM block of type %q",
					b.Name, block.Type)
			}

			all = append(all, block.Bytes)
		}
	}

	slices.SortFunc(all, bytes.Compare)
	all = slices.CompactFunc(all, bytes.Equal)
	var out bytes.Buffer
	for _, der := range all {
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return nil, err
		}
	}

	return out.Bytes(), nil
}
