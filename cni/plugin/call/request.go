package call

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
)

// Request is what a runtime says when it calls a plugin: by the environment, and by the configuration on
// standard input (CNI specification, section 2).
type Request struct {
	// Verb is the operation, CNI_COMMAND.
	Verb        string
	ContainerID string
	// Netns is the path of the container's network namespace. DEL may have none.
	Netns  string
	IfName string
	// AnyNetns lets Netns be that of the plugin itself (CNI_NETNS_OVERRIDE).
	AnyNetns bool
	// Args is CNI_ARGS.
	Args string
	// Stdin is the configuration. Each plugin reads its own keys from it.
	Stdin []byte
}

// required returns the variables that an operation cannot do without.
func required(verb string) []string {
	switch verb {
	case "ADD", "CHECK":
		return []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}
	case "DEL":
		return []string{"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"}
	case "GC", "STATUS":
		return []string{"CNI_PATH"}
	}
	return nil
}

// ReadRequest reads what a runtime says. Its errors are CNI errors, in the words of CNI's own library, which
// compiles regular expressions and loads tables of Unicode for this at each start.
func ReadRequest(getenv func(string) string, stdin io.Reader) (r Request, err error) {
	r = Request{
		Verb:        getenv("CNI_COMMAND"),
		ContainerID: getenv("CNI_CONTAINERID"),
		Netns:       getenv("CNI_NETNS"),
		IfName:      getenv("CNI_IFNAME"),
		AnyNetns:    isTrue(getenv("CNI_NETNS_OVERRIDE")),
		Args:        getenv("CNI_ARGS"),
	}

	var missing []string
	for _, name := range required(r.Verb) {
		if getenv(name) == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		const format = "required env variables [%s] missing"
		return r, badEnvironment(fmt.Sprintf(format, strings.Join(missing, ",")), "")
	}

	if err := r.check(); err != nil {
		return r, err
	}
	if r.Verb == "VERSION" {
		return r, nil
	}

	if r.Stdin, err = io.ReadAll(stdin); err != nil {
		return r, types.NewError(types.ErrIOFailure, "error reading from stdin: "+err.Error(), "")
	}
	return r, nil
}

// check looks at the names, which become those of files and of interfaces, where the operation needs them.
func (r Request) check() error {
	switch r.Verb {
	case "ADD", "CHECK", "DEL":
	default:
		return nil
	}

	if !IsName(r.ContainerID) {
		return badEnvironment("invalid characters in containerID", r.ContainerID)
	}

	separates := func(c rune) bool { return c == '/' || c == ':' || unicode.IsSpace(c) }
	switch {
	case len(r.IfName) > maxInterfaceName:
		const format = "interface name should be less than %d characters"
		return badEnvironment("interface name is too long", fmt.Sprintf(format, maxInterfaceName+1))
	case r.IfName == "." || r.IfName == "..":
		return badEnvironment("interface name is . or ..", "")
	case strings.ContainsFunc(r.IfName, separates):
		return badEnvironment("interface name contains / or : or whitespace characters", "")
	}

	return nil
}

// maxInterfaceName is how long the name of an interface may be.
const maxInterfaceName = 15

func badEnvironment(message, details string) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, message, details)
}

// IsName reports whether a text can be the name of a network or the ID of a container: letters and digits of
// ASCII, and behind the first character '_', '.' and '-'.
func IsName(text string) bool {
	for i, c := range []byte(text) {
		isLetter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		isDigit := '0' <= c && c <= '9'
		isOther := c == '_' || c == '.' || c == '-'
		if !isLetter && !isDigit && (i == 0 || !isOther) {
			return false
		}
	}
	return text != ""
}

func isTrue(text string) bool { return text == "1" || strings.EqualFold(text, "true") }
