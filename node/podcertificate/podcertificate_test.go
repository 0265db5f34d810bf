package podcertificate

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// try is Volume. What goes on beside it has ended when it returns.
func try(t *testing.T, k *Keeper, pod *v1.Pod, volume *v1.Volume) ([]Credential, error) {
	defer synctest.Wait()
	return k.Volume(t.Context(), pod, volume)
}

// get is Volume, which is to succeed.
func get(t *testing.T, k *Keeper, pod *v1.Pod, volume *v1.Volume) []Credential {
	t.Helper()
	got, err := try(t, k, pod, volume)
	if err != nil {
		t.Fatal(err)
	}

	for i, c := range got {
		if _, err := tls.X509KeyPair(c.Chain, c.Key); err != nil {
			t.Errorf("source %d: key and certificate do not match: %v", i, err)
		}
	}
	return got
}

func TestARequestSaysWhoseKeyItIsAndProvesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k := c.run()

		wanted := source("example.com/a")
		wanted.MaxExpirationSeconds = new(int32(3600))
		wanted.UserAnnotations = map[string]string{"example.com/path": "/x"}
		pod, volume := shows("pod-1", wanted)
		got := get(t, k, pod, volume)

		if strings.Contains(string(got[0].Chain), "text") || bytes.Count(got[0].Chain, []byte("BEGIN")) != 2 {
			t.Errorf("chain %s: want two certificates and nothing else", got[0].Chain)
		}

		made := c.made[0].DeepCopy()
		if !strings.HasPrefix(made.Name, "req-") {
			t.Errorf("the request is named %s", made.Name)
		}
		owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "pod-1"}}
		if diff := cmp.Diff(owner, made.OwnerReferences); diff != "" {
			t.Error(diff)
		}

		spec := made.Spec
		spec.StubPKCS10Request = nil
		want := (&requestOf{}).Spec
		want.SignerName = "example.com/a"
		want.PodName = "p"
		want.PodUID = "pod-1"
		want.ServiceAccountName = "default"
		want.ServiceAccountUID = "account-1"
		want.NodeName = "n"
		want.NodeUID = "node-1"
		want.MaxExpirationSeconds = new(int32(3600))
		want.UnverifiedUserAnnotations = map[string]string{"example.com/path": "/x"}
		if diff := cmp.Diff(want, spec); diff != "" {
			t.Error(diff)
		}
	})
}

func TestASignersRefusalIsFinal(t *testing.T) {
	for kind, words := range map[string][2]string{
		"Denied": {
			`PodCertificateRequest was permanently denied: reason="UnsupportedKeyType" message="use RSA"`,
			`was denied, reason="UnsupportedKeyType", message="use RSA"`,
		},
		"Failed": {
			`PodCertificateRequest was permanently failed: reason="UnsupportedKeyType" message="use RSA"`,
			`failed, reason="UnsupportedKeyType", message="use RSA"`,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.sign = func(r *requestOf) { conclude(r, kind, "UnsupportedKeyType", "use RSA") }
			k := c.run()
			pod, volume := shows("pod-1", source("example.com/a"))

			for range 3 {
				_, err := try(t, k, pod, volume)
				if err == nil || err.Error() != words[0] {
					t.Errorf("%v, want %s", err, words[0])
				}
				time.Sleep(time.Hour)
			}

			name := c.made[0].Name
			want := fmt.Sprintf("p Warning %s: PodCertificateRequest ns/%s %s", kind, name, words[1])
			if diff := cmp.Diff([]string{want}, c.events); diff != "" || c.asked() != 1 {
				t.Errorf("%d requests, %s", c.asked(), diff)
			}
		})
	}
}

func TestASilentSignerIsNamedAndWaitedForWithoutPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.sign = nil
		k := c.run()
		pod, volume := shows("pod-1", source("example.com/a"))

		began := time.Now()
		_, err := try(t, k, pod, volume)
		want := `credential bundle is not issued yet: signer "example.com/a" has not answered ` +
			"PodCertificateRequest ns/" + c.made[0].Name
		if !errors.Is(err, ErrNotIssued) || err.Error() != want || time.Since(began) != patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}

		// A call after that does not wait and does not ask.
		began = time.Now()
		if _, err := try(t, k, pod, volume); !errors.Is(err, ErrNotIssued) {
			t.Error(err)
		}
		if time.Since(began) != 0 || c.asked() != 1 || c.gets != 0 {
			t.Errorf("waited for %v, %d requests, %d reads", time.Since(began), c.asked(), c.gets)
		}

		c.answer(0, func(r *requestOf) { issue(t, r, time.Hour, 40*time.Minute) })
		if !slices.Equal(c.changed, []types.UID{"pod-1"}) {
			t.Errorf("told about %v", c.changed)
		}
		get(t, k, pod, volume)
	})
}

func TestARequestThatWasDeletedIsMadeAgainWithANewKey(t *testing.T) {
	for _, silent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.sign, c.silent = nil, silent
			k := c.run()
			pod, volume := shows("pod-1", source("example.com/a"))
			if _, err := try(t, k, pod, volume); !errors.Is(err, ErrNotIssued) {
				t.Fatal(err)
			}

			c.remove(0)
			for range 40 {
				time.Sleep(30 * time.Second)
				if _, err := try(t, k, pod, volume); !errors.Is(err, ErrNotIssued) {
					t.Fatal(err)
				}
			}

			if c.asked() != 2 || c.made[0].Name == c.made[1].Name ||
				bytes.Equal(c.made[0].Spec.StubPKCS10Request, c.made[1].Spec.StubPKCS10Request) {
				t.Errorf("the watch is silent: %v, %d requests", silent, c.asked())
			}
		})
	}
}

func TestAnAnswerThatTheWatchHasMissedIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.silent = true
		k := c.run()
		pod, volume := shows("pod-1", source("example.com/a"))
		if _, err := try(t, k, pod, volume); !errors.Is(err, ErrNotIssued) {
			t.Fatal(err)
		}

		time.Sleep(15 * time.Minute)
		get(t, k, pod, volume)
		if c.asked() != 1 || c.gets != 1 {
			t.Errorf("%d requests, %d reads", c.asked(), c.gets)
		}
	})
}

func TestWhatKeepsARequestFromBeingMadeIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		delete(c.accounts, "ns/default")
		k := c.run()
		pod, volume := shows("pod-1", source("example.com/a"))
		_, err := try(t, k, pod, volume)
		if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "service account ns/default") {
			t.Errorf("%v, want that there is no service account", err)
		}

		c.accounts["ns/default"] = "account-2"
		c.refused = apierrors.NewForbidden(v1.Resource("x"), "", errors.New("policy"))
		_, err = try(t, k, pod, volume)
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "example.com/a") {
			t.Errorf("%v, want that it is forbidden", err)
		}

		// Both are tried again by the next call: its caller has a back-off.
		c.refused = nil
		get(t, k, pod, volume)
	})
}

func TestAPodHasFewRequestsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.sign = nil
		k := c.run()
		var sources []*v1.PodCertificateProjection
		for range 100 {
			sources = append(sources, source("example.com/a"))
		}

		pod, volume := shows("pod-1", sources...)
		if _, err := try(t, k, pod, volume); !errors.Is(err, ErrNotIssued) {
			t.Fatal(err)
		}
		if c.asked() != maxAsked {
			t.Errorf("%d requests, want %d", c.asked(), maxAsked)
		}

		// Each answer makes room for another one.
		for i := 0; i < c.asked(); i++ {
			c.answer(i, func(r *requestOf) { issue(t, r, time.Hour, 40*time.Minute) })
			if _, err := try(t, k, pod, volume); err != nil && !errors.Is(err, ErrNotIssued) {
				t.Fatal(err)
			}
		}
		if got := get(t, k, pod, volume); len(got) != 100 || c.asked() != 100 {
			t.Errorf("%d credentials by %d requests", len(got), c.asked())
		}
	})
}

func TestThereIsAWatchOnlyWhilePodsHaveCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k := c.run()
		watches := func(want int) {
			t.Helper()
			synctest.Wait()
			if c.watches != want {
				t.Errorf("%d watches, want %d", c.watches, want)
			}
		}

		watches(0)
		for range 2 {
			for _, uid := range []types.UID{"pod-1", "pod-2"} {
				pod, volume := shows(uid, source("example.com/a"))
				get(t, k, pod, volume)
			}
			watches(1)

			k.Forget("pod-1")
			watches(1)
			k.Forget("pod-2")
			watches(0)
		}
	})
}

func TestAPodThatHasGoneIsForgottenWithItsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.sign = nil
		k := c.run()
		other, its := shows("pod-2", source("example.com/a"))
		if _, err := try(t, k, other, its); !errors.Is(err, ErrNotIssued) {
			t.Fatal(err)
		}
		pod, volume := shows("pod-1", source("example.com/a"))
		if _, err := try(t, k, pod, volume); !errors.Is(err, ErrNotIssued) {
			t.Fatal(err)
		}

		k.Forget("pod-1")
		c.answer(1, func(r *requestOf) { issue(t, r, time.Hour, 40*time.Minute) })
		if len(c.changed) > 0 || !k.NextAt("pod-1").IsZero() || len(k.asked) != 1 {
			t.Errorf("told about %v, %d requests are known", c.changed, len(k.asked))
		}
	})
}

func TestAKeyIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k := c.run()
		pod, volume := shows("pod-1", source("example.com/a"))
		got := get(t, k, pod, volume)

		shown := fmt.Sprintf("%v %+v %#v %s", got[0], got, got, got[0]) + c.log.String()
		if strings.Contains(shown, "PRIVATE KEY") || strings.Contains(shown, fmt.Sprintf("%d", got[0].Key)) {
			t.Error("a key is shown")
		}
		if !strings.Contains(c.log.String(), c.made[0].Name) {
			t.Errorf("the log does not name the request: %s", c.log.String())
		}
	})
}
