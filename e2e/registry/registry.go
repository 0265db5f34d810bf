// Package registry serves OCI image layouts by the distribution protocol (OCI distribution-spec 1.1, pull
// only). One server stands for several registries, as a mirror: an image is found by the repository's path,
// and by the registry's name where the client sends it (the ns parameter that containerd's hosts.toml mirrors
// get). Files are served as they lie on disk, with ranges. A registry called localhost is the server itself.
package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const refName = "org.opencontainers.image.ref.name"

// Handler serves the layouts that are subdirectories of Dir, and Dir itself if it is one. They are looked
// for, and their indexes read, at each request: they are small, and a layout that is new or was built again
// is seen at once.
type Handler struct{ Dir string }

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

var (
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	route      = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs|tags)/([^/]+)$`)
)

// protocolError is an error as the protocol has it.
type protocolError struct {
	status        int
	code, message string
}

func (e *protocolError) Error() string { return e.message }

func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	err := h.serve(w, r)
	if err == nil {
		return
	}

	e := &protocolError{http.StatusInternalServerError, "UNKNOWN", err.Error()}
	if known, ok := errors.AsType[*protocolError](err); ok {
		e = known
	}

	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"errors": []any{map[string]string{"code": e.code, "message": e.message}},
	})
}

func (h Handler) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &protocolError{http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry can only be read"}
	}
	if r.URL.Path == "/v2/" || r.URL.Path == "/v2" {
		return nil
	}

	parts := route.FindStringSubmatch(r.URL.Path)
	if parts == nil {
		return &protocolError{http.StatusNotFound, "UNSUPPORTED", "no such resource: " + r.URL.Path}
	}

	repository, kind, reference := parts[1], parts[2], parts[3]
	switch kind {
	case "manifests":
		return h.manifest(w, r, repository, reference)
	case "tags":
		return h.tags(w, r, repository)
	default:
		return h.blob(w, r, reference, "application/octet-stream", "BLOB_UNKNOWN")
	}
}

// layouts are the directories in which layouts may be: a directory may be replaced meanwhile.
func (h Handler) layouts() []string {
	var dirs []string

	// A directory that cannot be read has no layouts; that nothing is in this registry is what a client sees.
	entries, _ := os.ReadDir(h.Dir)
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(h.Dir, e.Name()))
		}
	}

	return append(dirs, h.Dir)
}

// images lists what the indexes have: name without registry (if ns is empty) or of that registry ->
// descriptor. The first layout that has a name wins.
func (h Handler) images(ns string) (map[string]descriptor, error) {
	if host, _, _ := strings.Cut(ns, ":"); host == "localhost" {
		ns = ""
	}

	out := map[string]descriptor{}
	for _, dir := range h.layouts() {
		data, err := os.ReadFile(filepath.Join(dir, "index.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}

		var index struct{ Manifests []descriptor }
		if err := json.Unmarshal(data, &index); err != nil {
			return nil, fmt.Errorf("index of %s: %w", dir, err)
		}

		for _, d := range index.Manifests {
			registry, name, _ := strings.Cut(d.Annotations[refName], "/")
			if _, there := out[name]; !there && (ns == "" || ns == registry) {
				out[name] = d
			}
		}
	}

	return out, nil
}

func (h Handler) manifest(w http.ResponseWriter, r *http.Request, repository, reference string) error {
	if digestForm.MatchString(reference) {
		return h.blob(w, r, reference, h.mediaType(reference), "MANIFEST_UNKNOWN")
	}

	images, err := h.images(r.URL.Query().Get("ns"))
	if err != nil {
		return err
	}

	d, ok := images[repository+":"+reference]
	if !ok {
		return &protocolError{
			http.StatusNotFound,
			"MANIFEST_UNKNOWN",
			fmt.Sprintf("%s:%s is not in this registry", repository, reference),
		}
	}

	return h.blob(w, r, d.Digest, d.MediaType, "MANIFEST_UNKNOWN")
}

// mediaType of a manifest that is asked for by digest: it says so itself.
func (h Handler) mediaType(digest string) string {
	f, err := h.open(digest)
	if err != nil {
		return ""
	}
	defer f.Close()

	var m struct{ MediaType string }
	_ = json.NewDecoder(f).Decode(&m)
	return m.MediaType
}

// open opens a blob in the first layout that has it.
func (h Handler) open(digest string) (*os.File, error) {
	for _, dir := range h.layouts() {
		f, err := os.Open(filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:")))
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, fs.ErrNotExist
}

func (h Handler) blob(w http.ResponseWriter, r *http.Request, digest, mediaType, unknown string) error {
	if !digestForm.MatchString(digest) {
		return &protocolError{http.StatusBadRequest, "DIGEST_INVALID", digest + " is not a sha256 digest"}
	}

	f, err := h.open(digest)
	if errors.Is(err, fs.ErrNotExist) {
		return &protocolError{http.StatusNotFound, unknown, digest + " is not in this registry"}
	}
	if err != nil {
		return err
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return err
	}

	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Etag", `"`+digest+`"`)
	http.ServeContent(w, r, "", info.ModTime(), f)
	return nil
}

func (h Handler) tags(w http.ResponseWriter, r *http.Request, repository string) error {
	images, err := h.images(r.URL.Query().Get("ns"))
	if err != nil {
		return err
	}

	tags := []string{}
	for name := range images {
		if tag, ok := strings.CutPrefix(name, repository+":"); ok {
			tags = append(tags, tag)
		}
	}

	if len(tags) == 0 {
		return &protocolError{http.StatusNotFound, "NAME_UNKNOWN", repository + " is not in this registry"}
	}

	slices.Sort(tags)
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(map[string]any{"name": repository, "tags": tags})
}
