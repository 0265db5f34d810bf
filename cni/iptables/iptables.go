// Package iptables changes tables of iptables(8) for those who ask for them: upstream's plugins have rules
// there, and so may an administrator. It runs two programs for a table, however many rules there are:
// iptables -S reads it, and iptables-restore --noflush makes all changes in one transaction.
package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Family is an IP version: each has its own tables, and its own program.
type Family string

// The families, by the names of their programs.
const (
	IPv4 Family = "iptables"
	IPv6 Family = "ip6tables"
)

// Families are both.
var Families = []Family{IPv4, IPv6}

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// lockPath is locked between reading and writing. The lock of iptables itself covers one program.
const lockPath = "/run/trivet-iptables.lock"

// timeout bounds a program, which may wait for another one that has the lock of iptables.
const timeout = 30 * time.Second

// wait makes the programs wait for that lock, in seconds.
const wait = "10"

// ErrAbsent means that the program of a family is not installed.
var ErrAbsent = errors.New("not installed")

// Table is a table as it was read, with changes to it that were not made yet.
type Table struct {
	chains  map[string]bool
	rules   []string
	changes []string
	// err is of a change that cannot be written; then none is made.
	err error
}

// Edit reads a table, calls change and makes the changes that it asks for. Others of this program wait
// meanwhile.
func Edit(family Family, table string, change func(*Table) error) error {
	defer lock()()

	t, err := Read(family, table)
	if err != nil {
		return err
	}
	if err := errors.Join(change(t), t.err); err != nil || len(t.changes) == 0 {
		return err
	}

	script := "*" + table + "\n" + strings.Join(t.changes, "\n") + "\nCOMMIT\n"
	_, err = run(string(family)+"-restore", script, "-w", wait, "--noflush")
	return err
}

// lock keeps others of this program from changing tables until unlock is called. Where /run cannot be
// written, as for a user without privileges, there is no lock: two at once may then add one jump twice,
// which does no harm.
func lock() (unlock func()) {
	fd, err := unix.Open(lockPath, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return func() {}
	}
	for errors.Is(unix.Flock(fd, unix.LOCK_EX), unix.EINTR) {
		continue
	}
	return func() { _ = unix.Close(fd) }
}

// Read reads a table. Changes to it are not made.
func Read(family Family, table string) (*Table, error) {
	out, err := run(string(family), "", "-w", wait, "-t", table, "-S")
	if err != nil {
		return nil, err
	}

	t := &Table{chains: map[string]bool{}}
	t.parse(out)
	return t, nil
}

// parse reads what iptables -S prints.
func (t *Table) parse(out string) {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch kind, rest, _ := strings.Cut(line, " "); kind {
		case "-P", "-N":
			name, _, _ := strings.Cut(rest, " ")
			t.chains[name] = true
		case "-A":
			t.rules = append(t.rules, line)
		}
	}
}

// Rule is a rule of a chain in the words of Append.
type Rule struct {
	Chain string
	Words []string
}

// Check returns an error that names the first of some rules that a table does not have as it was written. One
// run of a program looks for all of them.
func Check(family Family, table string, rules []Rule) error {
	script := []string{"*" + table}
	for _, r := range rules {
		script = append(script, line("-C "+r.Chain, r.Words))
	}

	text := strings.Join(script, "\n") + "\nCOMMIT\n"
	_, err := run(string(family)+"-restore", text, "-w", wait, "--noflush")
	if err == nil {
		return nil
	}

	if at := failedLine(err.Error()); at > 1 && at <= len(script) {
		const format = "table %s of %s does not have the rule %q"
		return fmt.Errorf(format, table, family, strings.TrimPrefix(script[at-1], "-C "))
	}

	return err
}

// failedLine returns the number of the line that a program says is wrong, 0 for none. The two kinds of
// iptables-restore say so in different words.
func failedLine(text string) (number int) {
	words := strings.Fields(text)
	for i := range len(words) - 1 {
		if words[i] != "line" && words[i] != "line:" {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSuffix(words[i+1], ":")); err == nil {
			number = n
		}
	}
	return number
}

// Usable reports whether the program of a family is there and has a table.
func Usable(family Family, table string) error {
	_, err := run(string(family), "", "-w", wait, "-t", table, "-S", "OUTPUT")
	return err
}

// run runs a program and returns its output; an error has what it says.
func run(program, input string, arguments ...string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%s: %w", program, ErrAbsent)
	}

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()

	var out, failure bytes.Buffer
	c := exec.CommandContext(ctx, path, arguments...)
	c.Stdin = strings.NewReader(input)
	c.Stdout = &out
	c.Stderr = &failure
	c.Env = os.Environ()
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", c.Args, err, strings.TrimSpace(failure.String()))
	}

	return out.String(), nil
}

// HasChain reports whether a chain is there, or will be.
func (t *Table) HasChain(name string) bool { return t.chains[name] }

// Chains are the names of those that begin with prefix.
func (t *Table) Chains(prefix string) (all []string) {
	for name := range t.chains {
		if strings.HasPrefix(name, prefix) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// Rules returns the rules of a chain, as iptables prints them, that contain each of some texts.
func (t *Table) Rules(chain string, texts ...string) (all []string) {
	for _, rule := range t.rules {
		rest, ok := strings.CutPrefix(rule, "-A "+chain+" ")
		if ok && containsAll(" "+rest+" ", texts) {
			all = append(all, rule)
		}
	}
	return all
}

// Has reports whether a chain has a rule, written as iptables prints it, whatever comment it has.
func (t *Table) Has(chain, rule string) bool {
	want := "-A " + chain + " " + rule
	return slices.ContainsFunc(t.rules, func(there string) bool { return withoutComment(there) == want })
}

// withoutComment returns a rule as iptables prints it, without its comment.
func withoutComment(rule string) string {
	before, text, ok := strings.Cut(rule, " -m comment --comment ")
	if !ok {
		return rule
	}

	quoted, isQuoted := strings.CutPrefix(text, `"`)
	if !isQuoted {
		_, after, more := strings.Cut(text, " ")
		if more {
			return before + " " + after
		}
		return before
	}

	for i := 0; i < len(quoted); i++ {
		switch quoted[i] {
		case '\\':
			i++
		case '"':
			return before + quoted[i+1:]
		}
	}

	return rule
}

func containsAll(rule string, texts []string) bool {
	return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(rule, text) })
}

// EnsureChain makes a chain unless it is there.
func (t *Table) EnsureChain(name string) {
	if !t.chains[name] {
		t.ReplaceChain(name)
	}
}

// maxChainName is how many bytes the name of a chain has at most, for all versions of iptables.
const maxChainName = 28

// IsChainName reports whether a text can be the name of a chain: it is a word of scripts, and not an option.
func IsChainName(text string) bool {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-"
	return text != "" && len(text) <= maxChainName && text[0] != '-' && strings.Trim(text, letters) == ""
}

// ReplaceChain makes a chain, or removes the rules of one that is there. A name that is none fails the Edit.
func (t *Table) ReplaceChain(name string) {
	if !IsChainName(name) {
		t.err = errors.Join(t.err, fmt.Errorf("%q is not the name of a chain", name))
		return
	}

	t.chains[name] = true
	t.changes = append(t.changes, ":"+name+" - [0:0]")
}

// Append adds a rule behind the others of a chain.
func (t *Table) Append(chain string, rule ...string) { t.add("-A "+chain, rule) }

// Prepend adds a rule before the others of a chain.
func (t *Table) Prepend(chain string, rule ...string) { t.add("-I "+chain+" 1", rule) }

func (t *Table) add(where string, rule []string) { t.changes = append(t.changes, line(where, rule)) }

// line returns a line of a script.
func line(where string, rule []string) string {
	words := []string{where}
	for _, word := range rule {
		words = append(words, quote(word))
	}
	return strings.Join(words, " ")
}

// Delete removes rules that Rules returned.
func (t *Table) Delete(rules ...string) {
	for _, rule := range rules {
		t.changes = append(t.changes, "-D"+strings.TrimPrefix(rule, "-A"))
	}
}

// DeleteChain removes a chain with its rules, if it is there. Nothing may jump to it any more.
func (t *Table) DeleteChain(name string) {
	if t.chains[name] {
		delete(t.chains, name)
		t.changes = append(t.changes, "-F "+name, "-X "+name)
	}
}

// quote writes a word as iptables-restore reads it. A line break would begin another command.
func quote(word string) string {
	word = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, word)
	if word != "" && !strings.ContainsAny(word, " \"'\\#;") {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
}

// Quoted returns a text as iptables -S prints it inside a rule: for Rules.
func Quoted(text string) string {
	isPlain := func(r rune) bool {
		return r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return !isPlain(r) }) < 0 {
		return text
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`).Replace(text) + `"`
}
