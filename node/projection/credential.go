package projection

import (
	"context"
	"io/fs"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/atomicdir"
	"github.com/trivet-node/trivet/node/podcertificate"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/token"
)

// defaultTokenSeconds is the API's default of expirationSeconds.
const defaultTokenSeconds = 3600

// token returns the file with a service account token that is bound to the pod.
func (p *Projector) token(
	ctx context.Context,
	pod *v1.Pod,
	source *v1.ServiceAccountTokenProjection,
	mode fs.FileMode,
) (Files, error) {
	request := token.Request{Audience: source.Audience, Seconds: defaultTokenSeconds}
	if source.ExpirationSeconds != nil {
		request.Seconds = *source.ExpirationSeconds
	}

	value, err := p.Tokens.Get(ctx, pod, request)
	if err != nil {
		return nil, err
	}
	return Files{source.Path: credential(pod, []byte(value), mode)}, nil
}

// certificate returns the files with a key and the certificate chain for it: in one, in two, or both.
func certificate(
	pod *v1.Pod,
	source *v1.PodCertificateProjection,
	issued podcertificate.Credential,
	mode fs.FileMode,
) Files {
	contents := map[string][]byte{
		source.CredentialBundlePath: slices.Concat(issued.Key, issued.Chain),
		source.KeyPath:              issued.Key,
		source.CertificateChainPath: issued.Chain,
	}

	files := Files{}
	for path, data := range contents {
		if path != "" {
			files[path] = credential(pod, data, mode)
		}
	}
	return files
}

// credential is a file for the pod alone: with a fsGroup or a user that all its containers have in common,
// nobody else can read it.
func credential(pod *v1.Pod, data []byte, mode fs.FileMode) atomicdir.File {
	file := atomicdir.File{Data: data, Mode: mode}
	user := podspec.CommonUser(pod)
	if user != nil || podspec.FSGroup(pod) != nil {
		file.Mode = 0o600
	}
	if user != nil {
		file.UID = int(*user)
	}
	return file
}
