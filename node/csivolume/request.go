package csivolume

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// inlineHandle is the ID of an inline ephemeral volume, as kubelet makes it.
func inlineHandle(pod types.UID, volume string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(pod)+volume)))
}

// attachmentName is the name that the attach-detach controller gives to the VolumeAttachment.
func attachmentName(handle, driver, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

// capability is how the pod uses the volume, as CSI's VolumeCapability.
func (c *call) capability() *csi.VolumeCapability {
	var modes []v1.PersistentVolumeAccessMode
	if c.PV != nil {
		modes = c.PV.Spec.AccessModes
	}

	mode := accessMode(modes, c.driver.Can(csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER))
	out := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}}
	if c.Block {
		out.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		return out
	}

	fs := &csi.VolumeCapability_MountVolume{}
	switch {
	case c.PV != nil:
		fs.FsType = c.PV.Spec.CSI.FSType
		fs.MountFlags = c.PV.Spec.MountOptions
	case c.Inline.FSType != nil:
		fs.FsType = *c.Inline.FSType
	}

	if c.FSGroup != nil && c.driver.Can(csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP) {
		fs.VolumeMountGroup = strconv.FormatInt(*c.FSGroup, 10)
	}

	out.AccessType = &csi.VolumeCapability_Mount{Mount: fs}
	return out
}

// accessMode translates the first access mode of a volume, which is what it is bound with; none stands for
// ReadWriteOnce. A driver that does not know the two single-node modes apart (exact is false) gets the older
// one that stands for both.
func accessMode(modes []v1.PersistentVolumeAccessMode, exact bool) csi.VolumeCapability_AccessMode_Mode {
	mode := v1.ReadWriteOnce
	if len(modes) > 0 {
		mode = modes[0]
	}

	switch {
	case mode == v1.ReadOnlyMany:
		return csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case mode == v1.ReadWriteMany:
		return csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case mode == v1.ReadWriteOncePod && exact:
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	case mode == v1.ReadWriteOnce && exact:
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	default:
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	}
}

// publishSecret names the secret for NodePublishVolume, nil if there is none. That of an inline volume is in
// the pod's namespace.
func (c *call) publishSecret() *v1.SecretReference {
	switch {
	case c.PV != nil:
		return c.PV.Spec.CSI.NodePublishSecretRef
	case c.Inline.NodePublishSecretRef != nil:
		return &v1.SecretReference{Namespace: c.Pod.Namespace, Name: c.Inline.NodePublishSecretRef.Name}
	}
	return nil
}

// tokensKey is where a driver finds the tokens that its CSIDriver object asks for.
const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens"

// attributes returns the volume context of NodePublishVolume: the volume's own attributes, those of the pod
// if the driver wants them (podInfoOnMount), and tokens. Tokens are among the secrets instead if the driver
// wants that; secrets itself is not changed.
func (m *Mounter) attributes(
	ctx context.Context,
	c *call,
	secrets map[string]string,
) (attributes, allSecrets map[string]string, err error) {
	attributes = map[string]string{}
	if c.PV != nil {
		maps.Copy(attributes, c.PV.Spec.CSI.VolumeAttributes)
	} else {
		maps.Copy(attributes, c.Inline.VolumeAttributes)
	}

	if ptr.Deref(c.policy.PodInfoOnMount, false) {
		attributes["csi.storage.k8s.io/pod.name"] = c.Pod.Name
		attributes["csi.storage.k8s.io/pod.namespace"] = c.Pod.Namespace
		attributes["csi.storage.k8s.io/pod.uid"] = string(c.Pod.UID)
		attributes["csi.storage.k8s.io/serviceAccount.name"] = c.Pod.Spec.ServiceAccountName
		attributes["csi.storage.k8s.io/ephemeral"] = strconv.FormatBool(c.Inline != nil)
	}

	if len(c.policy.TokenRequests) == 0 {
		return attributes, secrets, nil
	}

	tokens, err := m.podTokens(ctx, c)
	if err != nil {
		return nil, nil, err
	}

	if ptr.Deref(c.policy.ServiceAccountTokenInSecrets, false) {
		secrets = maps.Clone(secrets)
		if secrets == nil {
			secrets = map[string]string{}
		}

		secrets[tokensKey] = tokens
		return attributes, secrets, nil
	}

	attributes[tokensKey] = tokens
	return attributes, secrets, nil
}

// podTokens requests the tokens and returns the JSON object that drivers read, of tokens by audience.
func (m *Mounter) podTokens(ctx context.Context, c *call) (string, error) {
	type token struct {
		Token   string      `json:"token"`
		Expires metav1.Time `json:"expirationTimestamp"`
	}

	out := map[string]token{}
	for _, want := range c.policy.TokenRequests {
		spec := authenticationv1.TokenRequestSpec{
			ExpirationSeconds: want.ExpirationSeconds,
			BoundObjectRef: &authenticationv1.BoundObjectReference{
				APIVersion: "v1",
				Kind:       "Pod",
				Name:       c.Pod.Name,
				UID:        c.Pod.UID,
			},
		}
		if want.Audience != "" {
			spec.Audiences = []string{want.Audience}
		}

		answer, err := m.cfg.Tokens.Token(ctx, c.Pod.Namespace, c.Pod.Spec.ServiceAccountName, spec)
		if err != nil {
			return "", fmt.Errorf("token for CSI driver %s: %w", c.driver.Name, err)
		}

		out[want.Audience] = token{answer.Status.Token, answer.Status.ExpirationTimestamp}
	}

	text, err := json.Marshal(out)
	return string(text), err
}
