package spec

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// reserved is how the names begin by which CRI runtimes describe a container themselves.
const reserved = "io.kubernetes.cri."

// annotations say which pod the container belongs to, by the names that tools look for. An OCI runtime acts
// on others: crun's run.oci.* replace the seccomp filter, and runc sets org.systemd.property.* on the
// container's unit. Everybody who may create a pod writes its annotations, so only those are passed on that
// the administrator has allowed for this handler.
func annotations(cfg Config) map[string]string {
	given := maps.Clone(cfg.Sandbox.GetAnnotations())
	if given == nil {
		given = map[string]string{}
	}

	maps.Copy(given, cfg.Container.GetAnnotations())
	maps.DeleteFunc(given, func(name, _ string) bool { return !allowed(name, cfg.AllowedAnnotations) })

	maps.Copy(given, cfg.CgroupAnnotations)
	given[reserved+"container-type"] = "container"
	given[reserved+"container-name"] = cfg.Container.GetMetadata().GetName()
	given[reserved+"sandbox-name"] = cfg.Sandbox.GetMetadata().GetName()
	given[reserved+"sandbox-namespace"] = cfg.Sandbox.GetMetadata().GetNamespace()
	given[reserved+"sandbox-uid"] = cfg.Sandbox.GetMetadata().GetUid()
	return given
}

// allowed reports whether one of the patterns (path.Match, where * does not match a slash) matches name,
// which must not be reserved.
func allowed(name string, patterns []string) bool {
	return !strings.HasPrefix(name, reserved) && slices.ContainsFunc(patterns, func(pattern string) bool {
		matched, err := path.Match(pattern, name)
		return err == nil && matched
	})
}
