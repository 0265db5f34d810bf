package podcertificate

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

func TestACertificateIsRenewedInTimeAndTheOldOneStaysUntilThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k := c.run()
		pod, volume := shows("pod-1", source("example.com/a"))

		issued := time.Now()
		first := get(t, k, pod, volume)
		next := k.NextAt("pod-1")
		if wait := next.Sub(issued); wait < 40*time.Minute || wait > 45*time.Minute {
			t.Errorf("renewed after %v, want 40 to 45 minutes", wait)
		}

		// Before that, nothing is asked for.
		time.Sleep(time.Until(next) - time.Second)
		if again := get(t, k, pod, volume); !bytes.Equal(again[0].Key, first[0].Key) || c.asked() != 1 {
			t.Errorf("%d requests, or another key, before the time has come", c.asked())
		}

		// The signer takes a minute.
		c.sign = nil
		time.Sleep(2 * time.Second)
		if again := get(t, k, pod, volume); !bytes.Equal(again[0].Key, first[0].Key) || c.asked() != 2 {
			t.Errorf("%d requests, or another key, while the signer has not answered", c.asked())
		}

		time.Sleep(time.Minute)
		get(t, k, pod, volume)
		c.answer(1, func(r *requestOf) { issue(t, r, time.Hour, 40*time.Minute) })
		if diff := cmp.Diff([]types.UID{"pod-1"}, c.changed); diff != "" {
			t.Error(diff)
		}

		second := get(t, k, pod, volume)
		if bytes.Equal(second[0].Key, first[0].Key) || bytes.Equal(second[0].Chain, first[0].Chain) {
			t.Error("the new certificate has the old key, or is the old one")
		}
		if c.asked() != 2 || len(c.events) > 0 {
			t.Errorf("%d requests, events %q", c.asked(), c.events)
		}
	})
}

func TestARefusedRenewalLeavesTheCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k := c.run()
		pod, volume := shows("pod-1", source("example.com/a"))
		first := get(t, k, pod, volume)

		c.sign = func(r *requestOf) { conclude(r, "Denied", "Policy", "no more") }
		time.Sleep(time.Until(k.NextAt("pod-1")))
		get(t, k, pod, volume)
		synctest.Wait()
		if again := get(t, k, pod, volume); !bytes.Equal(again[0].Key, first[0].Key) {
			t.Error("the certificate has gone")
		}

		if at := k.NextAt("pod-1"); !at.IsZero() || len(c.events) != 1 {
			t.Errorf("something is to be done at %v; events %q", at, c.events)
		}
		if diff := cmp.Diff(map[Kind]int{{"example.com/a", "denied"}: 1}, k.States()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestARenewalThatIsNotPossibleIsTriedAgainAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k := c.run()
		pod, volume := shows("pod-1", source("example.com/a"))
		get(t, k, pod, volume)
		renewAt := k.NextAt("pod-1")

		// As the agent does, Volume is called when NextAt says so.
		delete(c.accounts, "ns/default")
		calls := 0
		for time.Until(renewAt) > -time.Hour {
			time.Sleep(time.Until(k.NextAt("pod-1")))
			get(t, k, pod, volume)
			calls++
		}
		if calls < 30 || calls > 65 {
			t.Errorf("tried %d times in an hour, want once in one or two minutes", calls)
		}

		want := []string{
			"p Warning CertificateOverdueForRefresh: PodCertificate refresh overdue",
			"p Warning CertificateExpired: PodCertificate expired",
		}
		if diff := cmp.Diff(want, c.events); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[Kind]int{{"example.com/a", "expired"}: 1}, k.States()); diff != "" {
			t.Error(diff)
		}

		c.accounts["ns/default"] = "account-2"
		time.Sleep(2 * time.Minute)
		get(t, k, pod, volume)
		synctest.Wait()
		if diff := cmp.Diff(map[Kind]int{{"example.com/a", "fresh"}: 1}, k.States()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRenewalIsWhileTheCertificateIsValidAndNotAtOnce(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for what, c := range map[string]struct{ wished, notAfter, want time.Duration }{
		"as wished":               {40 * time.Minute, time.Hour, 40 * time.Minute},
		"after the end":           {2 * time.Hour, time.Hour, 59 * time.Minute},
		"in the past":             {-time.Hour, time.Hour, time.Minute},
		"the certificate expired": {-time.Hour, -time.Minute, time.Minute},
	} {
		got := renewal(now.Add(c.wished), now.Add(c.notAfter), now).Sub(now)
		if got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

func TestASignerWithoutTimesIsNotAskedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.sign = func(r *requestOf) {
			issue(t, r, time.Hour, 40*time.Minute)
			r.Status.BeginRefreshAt = nil
		}

		k := c.run()
		pod, volume := shows("pod-1", source("example.com/a"))
		for begin := time.Now(); time.Since(begin) < time.Hour; {
			get(t, k, pod, volume)
			synctest.Wait()
			time.Sleep(time.Until(k.NextAt("pod-1")))
		}
		if n := c.asked(); n < 10 || n > 60 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}
