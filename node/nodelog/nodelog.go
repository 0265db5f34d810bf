// Package nodelog serves the files and directories of the node's logs, /var/log, by HTTP. Pods may have the
// directory mounted: nothing is followed out of it, nothing but files and directories is opened, and no
// FIFO makes a call wait.
package nodelog

import (
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

// maxListed bounds the names that are listed of a directory.
const maxListed = 10_000

// Dir is the directory. It serves paths below /logs/.
type Dir string

// refusal is an answer that is an error.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if r, ok := errors.AsType[*refusal](err); ok {
		code = r.code
	}
	http.Error(w, err.Error(), code)
}

// ServeHTTP serves a file or lists a directory.
func (d Dir) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/logs"), "/")
	if name == "" {
		name = "."
	}

	f, info, err := openBelow(string(d), name)
	if err != nil {
		fail(w, err)
		return
	}

	defer f.Close()

	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch {
	case !info.IsDir():
		http.ServeContent(w, r, info.Name(), info.ModTime(), f)
	case !strings.HasSuffix(r.URL.Path, "/"):
		// So that the links of the list fit. It is relative, as the API server serves this path below
		// another one.
		w.Header().Set("Location", link(info.Name()+"/"))
		w.WriteHeader(http.StatusMovedPermanently)

	default:
		list(w, f)
	}
}

// link refers to a name in the same directory; the name may hold ? # or :
func link(name string) string { return (&url.URL{Path: "./" + name}).String() }

// openBelow opens a file or directory below dir.
func openBelow(dir, name string) (*os.File, fs.FileInfo, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("open logs of the node: %w", err)
	}
	defer root.Close()

	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) {
		f, err = boundedfile.OpenBelow(dir, name, os.O_RDONLY)
	}

	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, nil, &refusal{http.StatusNotFound, "404 page not found"}
	case errors.Is(err, boundedfile.ErrNotRegular):
		return nil, nil, &refusal{http.StatusForbidden,
			fmt.Sprintf("log %q of the node is neither a file nor a directory", name)}
	case err != nil:
		return nil, nil, &refusal{http.StatusForbidden,
			fmt.Sprintf("open log %q of the node: %v", name, err)}
	}

	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}

	return f, info, nil
}

// list writes the names in a directory as links, as kubelet's file server does.
func list(w http.ResponseWriter, dir *os.File) {
	entries, err := dir.ReadDir(maxListed)
	if err != nil && !errors.Is(err, io.EOF) {
		fail(w, fmt.Errorf("list logs of the node: %w", err))
		return
	}

	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })

	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n")
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() {
			name += "/"
		}

		fmt.Fprintf(w, "<a href=\"%s\">%s</a>\n", html.EscapeString(link(name)), html.EscapeString(name))
	}

	fmt.Fprint(w, "</pre>\n")
}
