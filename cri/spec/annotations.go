package spec

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// ours begins the names that the runtimes of the field give to what they say of a container themselves.
const ours = "io.kubernetes.cri."

// annotations say whose the container is, in the words that tools of the field look for. An OCI runtime
// takes orders from others: crun's run.oci.* replace the seccomp filter, org.systemd.property.* are set on
// the container's unit by runc. Whoever may create a pod writes its annotations, so none of them goes on
// but those that the administrator allowed for this handler.
func annotations(cfg Config) map[string]string {
	given := maps.Clone(cfg.Sandbox.GetAnnotations())
	if given == nil {
		given = map[string]string{}
	}

	maps.Copy(given, cfg.Container.GetAnnotations())
	maps.DeleteFunc(given, func(name, _ string) bool { return !allowed(name, cfg.AllowedAnnotations) })

	maps.Copy(given, cfg.CgroupAnnotations)
	given[ours+"container-type"] = "container"
	given[ours+"container-name"] = cfg.Container.GetMetadata().GetName()
	given[ours+"sandbox-name"] = cfg.Sandbox.GetMetadata().GetName()
	given[ours+"sandbox-namespace"] = cfg.Sandbox.GetMetadata().GetNamespace()
	given[ours+"sandbox-uid"] = cfg.Sandbox.GetMetadata().GetUid()
	return given
}

// allowed reports whether a pattern (path.Match, where * does not match a slash) is that of name.
func allowed(name string, patterns []string) bool {
	return !strings.HasPrefix(name, ours) && slices.ContainsFunc(patterns, func(pattern string) bool {
		matched, err := path.Match(pattern, name)
		return err == nil && matched
	})
}
