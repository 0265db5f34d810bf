package bundle

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/apparmor"
	"github.com/trivet-node/trivet/cri/spec"
)

func TestContainerRunsUnderItsAppArmorProfileOrNotAtAll(t *testing.T) {
	type security = runtimeapi.LinuxContainerSecurityContext
	of := func(kind runtimeapi.SecurityProfile_ProfileType, name string) *security {
		return &security{Apparmor: &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: name}}
	}
	old := func(text string) *security {
		return &security{ApparmorProfile: text} //nolint:staticcheck // deprecated, not gone
	}
	const (
		byDefault  = runtimeapi.SecurityProfile_RuntimeDefault
		unconfined = runtimeapi.SecurityProfile_Unconfined
		local      = runtimeapi.SecurityProfile_Localhost
	)

	privileged := of(byDefault, "")
	privileged.Privileged = true
	privilegedLocal := of(local, "web")
	privilegedLocal.Privileged = true

	const refused = "refused"
	for _, c := range []struct {
		name     string
		security *security

		// The profile where the default one is loaded, where it cannot be, and without AppArmor.
		ready, broken, noLSM string
	}{
		{"nothing said", nil, apparmor.DefaultProfile, "", ""},
		{"RuntimeDefault", of(byDefault, ""), apparmor.DefaultProfile, refused, ""},
		{"Unconfined", of(unconfined, ""), "", "", ""},
		{"Localhost", of(local, "web"), "web", "web", refused},
		{"Localhost that is not loaded", of(local, "absent"), refused, refused, refused},
		{"Localhost without a name", of(local, ""), refused, refused, refused},
		{"Localhost with the prefix of the old field", of(local, "localhost/web"), "web", "web", refused},
		{"privileged", privileged, "", "", ""},
		{"privileged with Localhost", privilegedLocal, "web", "web", refused},
		{"runtime/default", old("runtime/default"), apparmor.DefaultProfile, refused, ""},
		{"unconfined", old("unconfined"), "", "", ""},
		{"localhost/web", old("localhost/web"), "web", "web", refused},
		{"localhost/absent", old("localhost/absent"), refused, refused, refused},
	} {
		for _, node := range []struct {
			name, profiles, want string
			enabled              bool
		}{
			{"loaded", "web (enforce)\n" + apparmor.DefaultProfile + " (enforce)\n", c.ready, true},
			{"no parser", "web (enforce)\n", c.broken, true},
			{"no AppArmor", "", c.noLSM, false},
		} {
			maker := makerWithProfiles(t, node.profiles, node.enabled)
			got, err := maker.appArmorProfile(t.Context(), c.security)
			if err != nil {
				got = refused
			}
			if got != node.want {
				t.Errorf("%s, %s: profile %q (%v), want %q", c.name, node.name, got, err, node.want)
			}
		}
	}
}

// makerWithProfiles returns a Maker on a node whose kernel shows these profiles, and has AppArmor or not.
func makerWithProfiles(t *testing.T, profiles string, enabled bool) *Maker {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "profiles"), []byte(profiles), 0o644); err != nil {
		t.Fatal(err)
	}
	return New(Config{
		AppArmor: apparmor.New(dir, "no-such-parser"),
		Host:     spec.Host{AppArmor: enabled},
		Log:      slog.New(slog.DiscardHandler),
	})
}
