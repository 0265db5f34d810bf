package hostport

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
)

// owners are those of the elements of a network, in order.
func (n Network) owners() (all []string, err error) {
	err = n.withTable(func(t *hostnat.Table) (err error) {
		all, err = t.Owners()
		return err
	})
	return all, err
}

// end withdraws the host ports of an attachment that holds addresses, and says what is left of it.
func end(n Network, o ipam.Owner, held ...netip.Addr) error {
	table, err := n.Withdraw(o, held)
	if err != nil {
		return err
	}
	err = table.Close()

	owners, listErr := n.owners()
	if slices.Contains(owners, o.Label()) {
		err = errors.Join(err, fmt.Errorf("%s has elements still", o))
	}
	if n.isRecorded(o) {
		err = errors.Join(err, fmt.Errorf("%s has a record still", o))
	}
	return errors.Join(err, listErr)
}

// kept returns an error unless an attachment has its elements, and nobody else has any.
func kept(n Network, o ipam.Owner) error {
	owners, err := n.owners()
	if err == nil && !slices.Equal(owners, []string{o.Label()}) {
		err = fmt.Errorf("elements are those of %q", owners)
	}
	return err
}

// What ADD, DEL and GC that were killed leave, DEL takes apart, and it touches nothing else.
func TestAnAttachmentIsTakenApartWhereverItsPluginWasKilled(t *testing.T) {
	pod := netip.MustParseAddr("10.1.0.2")
	ports := port(8080, pod.String())
	killed := map[string]func(n Network) error{
		"ADD, before its record": func(Network) error { return nil },
		"ADD, before its elements": func(n Network) error {
			return storeOf(n.Pool).write(record{owner("a"), ports})
		},
		"ADD, behind its elements":    func(n Network) error { return n.Publish(owner("a"), ports) },
		"DEL, before the record went": killedBeforeTheRecordWent(ports),
		"DEL, and netd has restored it": func(n Network) error {
			err := killedBeforeTheRecordWent(ports)(n)
			_, restored, restoreErr := n.Restore(func(ipam.Owner) bool { return true })
			if !restored {
				return errors.Join(err, restoreErr, errors.New("nothing is restored"))
			}
			return errors.Join(err, restoreErr)
		},
		"GC, behind the record": func(n Network) error {
			return errors.Join(n.Publish(owner("a"), ports), storeOf(n.Pool).end(owner("a")))
		},
		"GC that could not read the record": func(n Network) error {
			return errors.Join(n.Publish(owner("a"), ports), storeOf(n.Pool).remove(owner("a")))
		},
	}

	for name, begin := range killed {
		for known, held := range map[string][]netip.Addr{"held": {pod}, "not held": nil} {
			t.Run(name+", address "+known, func(t *testing.T) {
				network(t, func(n Network) error {
					if err := n.Publish(owner("other"), port(8081, "10.1.0.3")); err != nil {
						return err
					}
					err := begin(n)
					for range 2 {
						err = errors.Join(err, end(n, owner("a"), held...))
					}
					return errors.Join(err, kept(n, owner("other")))
				})
			})
		}
	}
}

// killedBeforeTheRecordWent returns what leaves a record whose elements are gone.
func killedBeforeTheRecordWent(ports []hostnat.Port) func(n Network) error {
	return func(n Network) error {
		if err := n.Publish(owner("a"), ports); err != nil {
			return err
		}
		return n.withTable(func(t *hostnat.Table) error {
			_, err := t.RemovePorts(owner("a").Label(), ports, nil)
			return err
		})
	}
}

func TestHostPortsGoWithoutTheirDataDirectory(t *testing.T) {
	pod := netip.MustParseAddr("10.1.0.2")
	network(t, func(n Network) error {
		if err := n.Publish(owner("a"), port(8080, pod.String())); err != nil {
			return err
		}
		if err := n.Publish(owner("b"), port(8081, "10.1.0.3")); err != nil {
			return err
		}
		if err := os.RemoveAll(n.Pool.PortsDir()); err != nil {
			return err
		}
		if err := end(n, owner("a")); err != nil {
			t.Error(err)
		}

		// The address is somebody else's by now, whose DEL takes what leads to it.
		if err := end(n, owner("heir"), netip.MustParseAddr("10.1.0.3")); err != nil {
			t.Error(err)
		}
		owners, err := n.owners()
		if owners != nil {
			t.Errorf("left are elements of %q", owners)
		}
		return err
	})
}

// A disk that has lost a part of a file, or somebody who may write there, must not keep a pod from going.
func TestHostPortsGoWhateverTheirRecordIs(t *testing.T) {
	for name, write := range map[string]func(path string) error{
		"torn":              text(`{"owner":{"ContainerID":"a","IfName":"eth0"},"ports":[{"HostP`),
		"empty":             text(""),
		"of another owner":  text(`{"owner":{"ContainerID":"b","IfName":"eth0"},"ports":[]}`),
		"of a port of none": text(`{"owner":{"ContainerID":"a","IfName":"eth0"},"ports":[{"HostPort":1}]}`),
		"large":             func(path string) error { return os.Truncate(path, 1<<40) },
		"a FIFO":            instead(func(path string) error { return unix.Mkfifo(path, 0o600) }),
		"a link":            instead(func(path string) error { return os.Symlink("/dev/zero", path) }),
		"a directory":       instead(func(path string) error { return os.Mkdir(path, 0o700) }),
	} {
		t.Run(name, func(t *testing.T) {
			pod := netip.MustParseAddr("10.1.0.2")
			network(t, func(n Network) error {
				if err := n.Publish(owner("a"), port(8080, pod.String())); err != nil {
					return err
				}
				if err := n.Publish(owner("other"), port(8081, "10.1.0.3")); err != nil {
					return err
				}
				if err := write(storeOf(n.Pool).file(owner("a"))); err != nil {
					return err
				}

				return errors.Join(end(n, owner("a"), pod), kept(n, owner("other")))
			})
		})
	}
}

// text returns what writes a file.
func text(content string) func(path string) error {
	return func(path string) error { return os.WriteFile(path, []byte(content), 0o600) }
}

// instead returns what makes something else of a file.
func instead(mk func(path string) error) func(path string) error {
	return func(path string) error { return errors.Join(os.Remove(path), mk(path)) }
}

// The record of an ADD that no DEL has followed names ports that the record of the next one does not.
func TestPortsOfAnAddThatNoDelFollowedGoWithTheNext(t *testing.T) {
	network(t, func(n Network) error {
		before, now := port(8080, "10.1.0.2"), port(8081, "10.1.0.2")
		if err := n.Publish(owner("a"), before); err != nil {
			return err
		}
		if err := n.Publish(owner("a"), now); err != nil {
			return err
		}
		if err := n.Check(now); err != nil {
			t.Error(err)
		}
		if n.Check(before) == nil {
			t.Error("a port of the ADD before is published")
		}
		return end(n, owner("a"), netip.MustParseAddr("10.1.0.2"))
	})
}

func TestARecordOfManyPortsIsRead(t *testing.T) {
	s := store{dir: t.TempDir()}
	r := record{Owner: owner(strings.Repeat("f", 64))}
	for i := range 20_000 {
		r.Ports = append(r.Ports, port(uint16(i), "10.1.0.2")...)
	}
	if err := s.write(r); err != nil {
		t.Fatal(err)
	}
	if got, ok := s.read(r.Owner); !ok || !slices.Equal(got.Ports, r.Ports) {
		t.Errorf("%d ports, %v", len(got.Ports), ok)
	}

	stranger := filepath.Join(s.dir, "stranger")
	if err := os.Rename(s.file(r.Owner), stranger); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.readFile(stranger); ok {
		t.Error("a record by another name is one")
	}
}
