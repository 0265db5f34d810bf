package manifest

import (
	v1 "k8s.io/api/core/v1"
)

// volumeDefaults fills in what the API server would for a volume that a static pod may have. One without a
// source is an emptyDir.
func volumeDefaults(v *v1.Volume) {
	unset(&v.VolumeSource, v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}})
	if v.HostPath != nil {
		unset(&v.HostPath.Type, new(v1.HostPathUnset))
	}
	if v.Image != nil {
		unset(&v.Image.PullPolicy, pullPolicy(v.Image.Reference))
	}
	if v.ISCSI != nil {
		unset(&v.ISCSI.ISCSIInterface, "default")
	}

	if v.DownwardAPI != nil {
		unset(&v.DownwardAPI.DefaultMode, new(v1.DownwardAPIVolumeSourceDefaultMode))
		itemDefaults(v.DownwardAPI.Items)
	}

	if v.Projected != nil {
		unset(&v.Projected.DefaultMode, new(v1.ProjectedVolumeSourceDefaultMode))
		for _, source := range v.Projected.Sources {
			if source.DownwardAPI != nil {
				itemDefaults(source.DownwardAPI.Items)
			}
		}
	}
}

func itemDefaults(items []v1.DownwardAPIVolumeFile) {
	for i := range items {
		fieldDefaults(items[i].FieldRef)
	}
}
