// Package served asks the API server which versions of a group it serves. A kind of a custom resource may be
// there in versions older than the one that a program knows, to which it is as absent as one that nobody has
// installed.
package served

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/internal/kube"
)

// Versions returns the versions of a group that are served; none where nobody has installed the group.
func Versions(ctx context.Context, c *kube.Client, group string) ([]string, error) {
	version := schema.GroupVersion{Group: group, Version: runtime.APIVersionInternal}
	text, err := c.Group(version, version).Get().
		AbsPath("/apis/"+group).
		SetHeader("Accept", runtime.ContentTypeJSON).
		Do(ctx).
		Raw()
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the versions of API group %s: %w", group, err)
	}

	var found metav1.APIGroup
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("versions of API group %s: %w", group, err)
	}
	var versions []string
	for _, v := range found.Versions {
		versions = append(versions, v.Version)
	}
	return versions, nil
}
