package runtime

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/node/plan"
)

// Pod names a pod that the runtime has something of.
type Pod struct {
	UID, Namespace, Name string
}

// Pods lists the pods of which the runtime has sandboxes or containers, each with a fingerprint of their
// states: when it changes, the pod is worth a look.
func (c *Client) Pods(ctx context.Context) (map[Pod]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	sandboxes, err := c.Runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, plain(err)
	}

	containers, err := c.Runtime.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, plain(err)
	}

	sums, known := map[Pod]uint64{}, map[string]bool{}
	for _, s := range sandboxes.Items {
		if p := podOf(s.Labels); p.UID != "" {
			sums[p] += hash(s.Id, s.State.String())
			known[s.Id] = true
		}
	}

	for _, s := range containers.Containers {
		if p := podOf(s.Labels); p.UID != "" {
			sums[p] += hash(s.Id, s.State.String())
		}

		known[s.Id] = true
	}

	c.forgetUnknown(known)
	out := make(map[Pod]string, len(sums))
	for p, sum := range sums {
		out[p] = strconv.FormatUint(sum, 36)
	}

	return out, nil
}

// Annotations are those of pods, by UID.
type Annotations map[string]map[string]string

// Namesakes are the pods of a full name that the runtime has a sandbox of: by UID, with the annotations they
// had.
func (c *Client) Namesakes(ctx context.Context, namespace, name string) (Annotations, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	label := map[string]string{LabelPodNamespace: namespace, LabelPodName: name}
	filter := &cri.PodSandboxFilter{LabelSelector: label}
	r, err := c.Runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: filter})
	if err != nil {
		return nil, plain(err)
	}

	out := Annotations{}
	for _, s := range r.Items {
		if p := podOf(s.Labels); p.UID != "" {
			out[p.UID] = s.Annotations
		}
	}

	return out, nil
}

func hash(parts ...string) uint64 {
	// FNV-1a
	h := uint64(14695981039346656037)
	for _, p := range parts {
		for i := range len(p) {
			h = (h ^ uint64(p[i])) * 1099511628211
		}
	}
	return h
}

func podOf(labels map[string]string) Pod {
	return Pod{UID: labels[LabelPodUID], Namespace: labels[LabelPodNamespace], Name: labels[LabelPodName]}
}

func (c *Client) forgetUnknown(known map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()

	for id := range c.ended {
		if !known[id] {
			delete(c.ended, id)
		}
	}

	for id := range c.ready {
		if !known[id] {
			delete(c.ready, id)
		}
	}
}

// Observe looks at one pod.
func (c *Client) Observe(ctx context.Context, uid string) (plan.Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	label := map[string]string{LabelPodUID: uid}
	sandboxes, err := c.Runtime.ListPodSandbox(
		ctx,
		&cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: label}},
	)
	if err != nil {
		return plan.Observed{}, plain(err)
	}

	var out plan.Observed
	for _, s := range sandboxes.Items {
		seen, err := c.sandbox(ctx, s)
		if err != nil {
			return plan.Observed{}, err
		}

		out.Sandboxes = append(out.Sandboxes, seen)
	}

	if len(out.Sandboxes) == 0 {
		// no container lives without a sandbox
		return out, nil
	}

	containers, err := c.Runtime.ListContainers(
		ctx,
		&cri.ListContainersRequest{Filter: &cri.ContainerFilter{LabelSelector: label}},
	)
	if err != nil {
		return plan.Observed{}, plain(err)
	}

	for _, l := range containers.Containers {
		s, err := c.container(ctx, l)
		if status.Code(err) == codes.NotFound {
			// removed in between
			continue
		}

		if err != nil {
			return plan.Observed{}, err
		}

		out.Containers = append(out.Containers, translate(l, s))
	}

	return out, nil
}

func (c *Client) sandbox(ctx context.Context, s *cri.PodSandbox) (plan.Sandbox, error) {
	out := plan.Sandbox{
		ID:          s.Id,
		Attempt:     s.GetMetadata().GetAttempt(),
		Ready:       s.State == cri.PodSandboxState_SANDBOX_READY,
		Created:     time.Unix(0, s.CreatedAt),
		Annotations: s.Annotations,
	}
	if !out.Ready {
		return out, nil
	}

	c.mu.Lock()
	known := c.ready[s.Id]
	c.mu.Unlock()
	if known == nil {
		r, err := c.Runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: s.Id})
		if status.Code(err) == codes.NotFound {
			out.Ready = false
			return out, nil
		}

		if err != nil {
			return out, plain(err)
		}

		known = r.Status
		c.mu.Lock()
		c.ready[s.Id] = known
		c.mu.Unlock()
	}

	if ip := known.GetNetwork().GetIp(); ip != "" {
		out.IPs = append(out.IPs, ip)
	}

	for _, more := range known.GetNetwork().GetAdditionalIps() {
		out.IPs = append(out.IPs, more.Ip)
	}

	return out, nil
}

func (c *Client) container(ctx context.Context, l *cri.Container) (*cri.ContainerStatus, error) {
	c.mu.Lock()
	known := c.ended[l.Id]
	c.mu.Unlock()
	if known != nil && known.State == l.State {
		return known, nil
	}

	r, err := c.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: l.Id})
	if err != nil {
		return nil, plain(err)
	}

	if r.Status.State == cri.ContainerState_CONTAINER_EXITED ||
		r.Status.State == cri.ContainerState_CONTAINER_RUNNING {
		if r.Status.State == cri.ContainerState_CONTAINER_EXITED {
			r.Status.Message = terminationMessage(r.Status)
		}

		c.mu.Lock()
		c.ended[l.Id] = r.Status
		c.mu.Unlock()
	}

	return r.Status, nil
}

func translate(l *cri.Container, s *cri.ContainerStatus) plan.Container {
	out := plan.Container{
		ID:        s.Id,
		Name:      l.Labels[LabelContainerName],
		SandboxID: l.PodSandboxId,
		Attempt:   l.GetMetadata().GetAttempt(),
		Hash:      s.Annotations[AnnotationHash],
		State:     stateOf(s.State),
		Created:   stamp(s.CreatedAt),
		Started:   stamp(s.StartedAt),
		Finished:  stamp(s.FinishedAt),
		ExitCode:  s.ExitCode,
		Reason:    s.Reason,
		Message:   s.Message,
		Image:     s.GetImage().GetUserSpecifiedImage(),
		ImageID:   s.ImageRef,
		PreStop:   s.Annotations[AnnotationPreStop],
		Ports:     s.Annotations[AnnotationPorts],
	}
	if s.ImageId != "" && out.ImageID == "" {
		out.ImageID = s.ImageId
	}
	if out.Image == "" {
		out.Image = s.GetImage().GetImage()
	}

	out.Grace, _ = strconv.ParseInt(s.Annotations[AnnotationTermGrace], 10, 64)
	if u := s.GetUser().GetLinux(); u != nil {
		out.HasUser, out.UID, out.GID, out.Groups = true, u.Uid, u.Gid, u.SupplementalGroups
	}

	for _, m := range s.Mounts {
		if m.RecursiveReadOnly {
			out.RecursiveReadOnly = append(out.RecursiveReadOnly, m.ContainerPath)
		}
	}

	return out
}

func stamp(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}

func stateOf(s cri.ContainerState) plan.State {
	switch s {
	case cri.ContainerState_CONTAINER_CREATED:
		return plan.Created
	case cri.ContainerState_CONTAINER_RUNNING:
		return plan.Running
	case cri.ContainerState_CONTAINER_EXITED:
		return plan.Exited
	}
	return plan.Unknown
}

// terminationMessage is what the container left in its termination message file or, by policy, at the end of
// its log.
func terminationMessage(s *cri.ContainerStatus) string {
	path := s.Annotations[AnnotationMessagePath]
	if path == "" {
		return s.Message
	}

	for _, m := range s.Mounts {
		if m.ContainerPath != path {
			continue
		}

		text := tail(m.HostPath, maxMessage)
		if text == "" &&
			s.Annotations[AnnotationMessagePolicy] == string(v1.TerminationMessageFallbackToLogsOnError) &&
			s.ExitCode != 0 {
			text = logTail(s.LogPath)
		}

		if s.Message != "" && text != "" {
			return s.Message + ": " + text
		}

		return s.Message + text
	}

	if s.Annotations[AnnotationMessagePolicy] == string(v1.TerminationMessageFallbackToLogsOnError) &&
		s.ExitCode != 0 {
		return s.Message + logTail(s.LogPath)
	}

	return s.Message
}

// Limits of termination messages, as the API documents them.
const (
	maxMessage  = 4096
	maxLogBytes = 2048
	maxLogLines = 80
)

// tail reads the end of a regular file. The path is one that the agent chose; what the container made of the
// file is not trusted.
func tail(path string, limit int64) string {
	f, err := boundedfile.Open(path, os.O_RDONLY)
	if err != nil {
		return ""
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return ""
	}

	buf := make([]byte, min(info.Size(), limit))
	n, _ := f.ReadAt(buf, info.Size()-int64(len(buf)))
	return strings.ToValidUTF8(string(buf[:n]), "?")
}

// logTail is the text of the last lines of a CRI log: "TIME STREAM TAGS TEXT" in each.
func logTail(path string) string {
	raw := tail(path, 4*maxLogBytes)
	lines := strings.SplitAfter(raw, "\n")
	if len(lines) > maxLogLines {
		lines = lines[len(lines)-maxLogLines:]
	}

	var b strings.Builder
	for _, line := range lines {
		parts := strings.SplitN(line, " ", 4)
		if len(parts) < 4 {
			// cut off at the front, or empty
			continue
		}

		text := parts[3]
		if parts[2] == "P" {
			text = strings.TrimSuffix(text, "\n")
		}

		b.WriteString(text)
	}

	out := b.String()
	if len(out) > maxLogBytes {
		out = strings.ToValidUTF8(out[len(out)-maxLogBytes:], "")
	}

	return out
}
