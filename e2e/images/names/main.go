// Command names stands in for dig and getent in images of the end-to-end suite: the queries that its specs
// make, answered by real DNS messages to the name server of /etc/resolv.conf.
//
//	dig [+tcp|+notcp] [+short] [+search] [+noall] [+answer] NAME [TYPE]
//	getent hosts NAME
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func main() {
	var err error
	if filepath.Base(os.Args[0]) == "getent" {
		err = getent(os.Args[1:])
	} else {
		err = dig(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// getent asks as programs of the image do: /etc/hosts first.
func getent(args []string) error {
	if len(args) != 2 || args[0] != "hosts" {
		return errors.New("usage: getent hosts NAME")
	}
	addresses, err := net.LookupHost(args[1])
	for _, a := range addresses {
		fmt.Printf("%-15s %s\n", a, args[1])
	}
	return err
}

var types = map[string]dnsmessage.Type{
	"A":     dnsmessage.TypeA,
	"AAAA":  dnsmessage.TypeAAAA,
	"CNAME": dnsmessage.TypeCNAME,
	"SRV":   dnsmessage.TypeSRV,
	"PTR":   dnsmessage.TypePTR,
}

// question is what dig is to look up.
type question struct {
	name    string
	kind    dnsmessage.Type
	network string // udp or tcp
	short   bool   // only the data is printed
	search  bool   // by the search list of resolv.conf
}

// parseDig reads dig's arguments. Options that change nothing here are ignored.
func parseDig(args []string) (question, error) {
	q := question{kind: dnsmessage.TypeA, network: "udp"}
	for _, a := range args {
		switch {
		case a == "+tcp":
			q.network = "tcp"
		case a == "+short":
			q.short = true
		case a == "+search":
			q.search = true
		case strings.HasPrefix(a, "+"):
		case q.name == "":
			q.name = a
		default:
			kind, ok := types[a]
			if !ok {
				return q, fmt.Errorf("no such type: %s", a)
			}

			q.kind = kind
		}
	}

	return q, nil
}

// dig prints the answers to the first of the names that has any.
func dig(args []string) error {
	q, err := parseDig(args)
	if err != nil {
		return err
	}

	config, err := resolvConf("/etc/resolv.conf")
	if err != nil {
		return err
	}

	names := []string{strings.TrimSuffix(q.name, ".") + "."}
	if q.search {
		names = config.candidates(q.name)
	}

	for _, name := range names {
		answers, err := lookUp(q.network, config.server, name, q.kind)
		if err != nil {
			return err
		}

		for _, r := range answers {
			show(r, q.short)
		}

		if len(answers) > 0 {
			return nil
		}
	}

	return nil
}

// lookUp sends one query and returns the answer section.
func lookUp(network, server, name string, kind dnsmessage.Type) ([]dnsmessage.Resource, error) {
	full, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, err
	}

	id := uint16(rand.Uint32())
	query, err := (&dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: full, Type: kind, Class: dnsmessage.ClassINET}}}).Pack()
	if err != nil {
		return nil, err
	}

	conn, err := net.DialTimeout(network, net.JoinHostPort(server, "53"), 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()

	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}

	data, err := exchange(conn, network == "tcp", query)
	if err != nil {
		return nil, err
	}

	var reply dnsmessage.Message
	if err := reply.Unpack(data); err != nil {
		return nil, err
	}
	if reply.ID != id {
		return nil, errors.New("an answer to another question")
	}

	return reply.Answers, nil
}

func exchange(conn net.Conn, framed bool, query []byte) ([]byte, error) {
	if framed {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}

	if !framed {
		data := make([]byte, 64<<10)
		n, err := conn.Read(data)
		return data[:n], err
	}

	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}

	data := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(conn, data)
	return data, err
}

// show prints a record as dig does.
func show(r dnsmessage.Resource, short bool) {
	var text string
	switch b := r.Body.(type) {
	case *dnsmessage.AResource:
		text = netip.AddrFrom4(b.A).String()
	case *dnsmessage.AAAAResource:
		text = netip.AddrFrom16(b.AAAA).String()
	case *dnsmessage.CNAMEResource:
		text = b.CNAME.String()
	case *dnsmessage.PTRResource:
		text = b.PTR.String()
	case *dnsmessage.SRVResource:
		text = fmt.Sprintf("%d %d %d %s", b.Priority, b.Weight, b.Port, b.Target)
	default:
		return
	}

	if !short {
		text = fmt.Sprintf("%s\t%d\tIN\t%s\t%s",
			r.Header.Name, r.Header.TTL, strings.TrimPrefix(r.Header.Type.String(), "Type"), text)
	}

	fmt.Println(text)
}

// config is /etc/resolv.conf.
type config struct {
	server string
	search []string
	ndots  int
}

func resolvConf(path string) (config, error) {
	c := config{ndots: 1}
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}

	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[0] == "nameserver" && c.server == "":
			c.server = f[1]
		case len(f) > 0 && f[0] == "search":
			c.search = f[1:]
		case len(f) > 0 && f[0] == "options":
			for _, o := range f[1:] {
				_, _ = fmt.Sscanf(o, "ndots:%d", &c.ndots)
			}
		}
	}

	if c.server == "" {
		return c, fmt.Errorf("%s names no name server", path)
	}

	return c, nil
}

// candidates are the names to try, as resolv.conf(5) orders them.
func (c config) candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var all []string
	for _, domain := range c.search {
		all = append(all, name+"."+strings.TrimSuffix(domain, ".")+".")
	}
	if strings.Count(name, ".") >= c.ndots {
		return append([]string{name + "."}, all...)
	}
	return append(all, name+".")
}
