package deb

import (
	"fmt"
	"regexp"
	"strings"
)

// Control is what dpkg knows of a package (deb-control(5)).
type Control struct {
	Name string

	// Version is [EPOCH:]UPSTREAM[-REVISION].
	Version string

	// Architecture is amd64 or arm64, named as Go does.
	Architecture string

	Maintainer string
	Homepage   string
	Section    string

	// Relations to other packages, as the fields of these names have them.
	Depends    []string
	Recommends []string
	Suggests   []string

	// Summary is one line, Description are paragraphs below it.
	Summary     string
	Description []string
}

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	versionForm = regexp.MustCompile(`^([0-9]+:)?[0-9][A-Za-z0-9.+~-]*$`)
)

// check finds what dpkg would refuse, or take for another field.
func (c Control) check() error {
	if !nameForm.MatchString(c.Name) {
		return fmt.Errorf("%q is not the name of a package", c.Name)
	}
	if !versionForm.MatchString(c.Version) {
		return fmt.Errorf("%q is not a version: it begins with a digit and has no spaces", c.Version)
	}

	fields := []string{c.Architecture, c.Maintainer, c.Homepage, c.Section, c.Summary}
	for _, relations := range [][]string{c.Depends, c.Recommends, c.Suggests} {
		fields = append(fields, relations...)
	}
	for _, value := range append(fields, c.Description...) {
		if strings.ContainsAny(value, "\r\n") {
			return fmt.Errorf("a field has more than one line: %q", value)
		}
	}

	return nil
}

// text is the file control.
func (c Control) text(installedSize int) (string, error) {
	if err := c.check(); err != nil {
		return "", err
	}

	var out strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&out, "%s: %s\n", name, value)
		}
	}
	field("Package", c.Name)
	field("Version", c.Version)
	field("Architecture", c.Architecture)
	field("Maintainer", c.Maintainer)
	field("Installed-Size", fmt.Sprint(installedSize))
	field("Depends", strings.Join(c.Depends, ", "))
	field("Recommends", strings.Join(c.Recommends, ", "))
	field("Suggests", strings.Join(c.Suggests, ", "))
	field("Section", c.Section)
	field("Priority", "optional")
	field("Homepage", c.Homepage)
	field("Description", c.Summary)
	for i, paragraph := range c.Description {
		if i > 0 {
			out.WriteString(" .\n")
		}
		for _, line := range wrap(paragraph, descriptionWidth) {
			fmt.Fprintf(&out, " %s\n", line)
		}
	}

	return out.String(), nil
}

// descriptionWidth is that of a line of a description, its first space left out.
const descriptionWidth = 78

// wrap breaks a paragraph into lines.
func wrap(paragraph string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(paragraph) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
