package podcertificate

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestKeysAreOfTheWantedTypeAndProven(t *testing.T) {
	for kind, want := range map[string]x509.PublicKeyAlgorithm{
		"RSA3072":   x509.RSA,
		"RSA4096":   x509.RSA,
		"ECDSAP256": x509.ECDSA,
		"ECDSAP384": x509.ECDSA,
		"ECDSAP521": x509.ECDSA,
		"ED25519":   x509.Ed25519,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			key, encoded, err := newKey(kind)
			if err != nil {
				t.Fatal(err)
			}
			proof, err := prove(key)
			if err != nil {
				t.Fatal(err)
			}

			stub, err := x509.ParseCertificateRequest(proof)
			if err != nil || stub.CheckSignature() != nil || stub.PublicKeyAlgorithm != want {
				t.Errorf("%v, algorithm %v", err, stub.PublicKeyAlgorithm)
			}
			if stub.Subject.String() != "" || len(stub.Extensions) > 0 || len(proof) > 10<<10 {
				t.Errorf("the request is not empty: %v, %d bytes", stub.Subject, len(proof))
			}

			again, same, rest, err := readKey(append(encoded, "rest"...))
			if err != nil || !bytes.Equal(same, encoded) || string(rest) != "rest" {
				t.Fatalf("%v", err)
			}
			if !again.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
				t.Error("another key is read")
			}
		})
	}

	if _, _, err := newKey("RSA512"); err == nil || !strings.Contains(err.Error(), "RSA512") {
		t.Errorf("an unknown type: %v", err)
	}
}

func TestAnAnswerThatCannotBeUsedIsAFailureOfTheSigner(t *testing.T) {
	mine := func(t *testing.T, r *requestOf) []byte {
		issue(t, r, time.Hour, 40*time.Minute)
		return []byte(r.Status.CertificateChain)
	}
	block := func(kind, text string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(text)})
	}

	for want, chain := range map[string]func(*testing.T, *requestOf) []byte{
		"empty":    func(*testing.T, *requestOf) []byte { return nil },
		"is empty": func(*testing.T, *requestOf) []byte { return []byte("no PEM at all") },
		"another key": func(t *testing.T, _ *requestOf) []byte {
			return certificateFor(t, authority.Public(), time.Hour)
		},
		"another type": func(t *testing.T, r *requestOf) []byte {
			return append(mine(t, r), block("X509 CRL", "c")...)
		},
		"not a certificate": func(t *testing.T, r *requestOf) []byte {
			return append(mine(t, r), block("CERTIFICATE", "c")...)
		},
		"102400 bytes": func(t *testing.T, r *requestOf) []byte {
			return append(mine(t, r), make([]byte, maxChain)...)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.sign = func(r *requestOf) {
				r.Status.CertificateChain = string(chain(t, r))
				conclude(r, "Issued", "Signed", "")
			}

			k := c.run()
			pod, volume := shows("pod-1", source("example.com/a"))
			_, err := try(t, k, pod, volume)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want that it is %s", err, want)
			}
			synctest.Wait()
			if c.asked() != 1 || len(c.events) != 1 || !strings.Contains(c.events[0], want) {
				t.Errorf("%d requests, events %q", c.asked(), c.events)
			}
		})
	}
}

func TestAConditionThatIsNotTrueIsNoAnswer(t *testing.T) {
	key, encoded, err := newKey("ED25519")
	if err != nil {
		t.Fatal(err)
	}

	c := &certificate{request: &request{key: key, pemKey: encoded}}
	for _, condition := range []metav1.Condition{
		{Type: "Denied", Status: metav1.ConditionFalse},
		{Type: "Approved", Status: metav1.ConditionTrue},
	} {
		shown := &requestOf{Status: certificatesv1.PodCertificateRequestStatus{
			Conditions: []metav1.Condition{condition},
		}}
		if c.answer(shown, time.Now()) || c.ended != nil || c.request == nil {
			t.Errorf("%v is taken as an answer", condition)
		}
	}
}

func FuzzReadChain(f *testing.F) {
	key, _, err := newKey("ECDSAP256")
	if err != nil {
		f.Fatal(err)
	}

	own := certificateFor(&testing.T{}, key.Public(), time.Hour)
	f.Add(own)
	f.Add(append([]byte("a: b\n"), own...))
	f.Add(append(own, own...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		read, err := readChain(data, key.Public())
		if err != nil {
			return
		}

		// What is taken is read again as it is.
		again, err := readChain(read.pem, key.Public())
		if err != nil || !bytes.Equal(again.pem, read.pem) || !again.notAfter.Equal(read.notAfter) {
			t.Errorf("%q is read as %q, and that as %q, %v", data, read.pem, again.pem, err)
		}
	})
}

func FuzzReadKey(f *testing.F) {
	for _, kind := range []string{"ECDSAP256", "ED25519"} {
		_, encoded, err := newKey(kind)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
		f.Add(append(encoded, "-----BEGIN CERTIFICATE-----"...))
	}

	f.Fuzz(func(t *testing.T, data []byte) {
		key, encoded, _, err := readKey(data)
		if err != nil {
			return
		}
		again, same, rest, err := readKey(encoded)
		if err != nil || !bytes.Equal(same, encoded) || len(rest) > 0 || again.Public() == nil || key == nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}
