package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/internal/program"
)

// Send has the server on a socket import an archive, and returns what it has imported, also beside an error.
// The error of this and the other calls is a program.CantRunError if nobody serves the socket.
func Send(
	ctx context.Context, socket string, archive io.Reader, o image.ImportOptions,
) ([]Image, error) {
	query := url.Values{
		"pin":      {strconv.FormatBool(o.Pinned)},
		"platform": {o.Platform},
	}

	// What the archive is read from may give nothing for long, which must not hold back the end of the call.
	body, feed := io.Pipe()
	go func() {
		_, err := io.Copy(feed, archive)
		feed.CloseWithError(err)
	}()

	response, err := call(ctx, socket, http.MethodPost, imagesPath, query, &upload{body: body, feed: feed})
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()

	return decode(response)
}

// Receive writes the archive that the server makes of images. After an error, what was written is not whole.
func Receive(ctx context.Context, socket string, names []string, to io.Writer) error {
	response, err := call(ctx, socket, http.MethodGet, imagesPath, url.Values{"name": names}, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()

	if response.StatusCode != http.StatusOK {
		_, err := decode(response)
		return err
	}

	if _, err := io.Copy(to, response.Body); err != nil {
		return fmt.Errorf("the archive is not whole (trivet-cri's log says why): %w", err)
	}

	return nil
}

// Tag gives an image further names, with move also those of other images.
func Tag(ctx context.Context, socket, name string, further []string, move bool) error {
	query := url.Values{
		"image": {name},
		"name":  further,
		"move":  {strconv.FormatBool(move)},
	}
	return order(ctx, socket, http.MethodPost, query)
}

// Untag takes a name from an image, which goes with the last one. An ID takes the image with all its names.
func Untag(ctx context.Context, socket, name string) error {
	return order(ctx, socket, http.MethodDelete, url.Values{"name": {name}})
}

// order makes a call that changes names.
func order(ctx context.Context, socket, method string, query url.Values) error {
	response, err := call(ctx, socket, method, namesPath, query, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()

	_, err = decode(response)
	return err
}

// call makes a request, which sends nothing if up is nil.
func call(
	ctx context.Context, socket, method, path string, query url.Values, up *upload,
) (*http.Response, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err != nil || up == nil {
			return conn, err
		}

		return &sending{Conn: conn, up: up}, nil
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	target := "http://trivet-cri" + path + "?" + query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target, http.NoBody)
	if err != nil {
		return nil, err
	}
	if up != nil {
		request.Body = up.body
		request.ContentLength = -1
	}

	response, err := client.Do(request)
	if err != nil {
		return nil, explain(err, socket)
	}

	return response, nil
}

// upload is a body that is sent: what is written to feed.
type upload struct {
	body *io.PipeReader
	feed *io.PipeWriter
}

// errEnded is that of an upload whose connection has ended.
var errEnded = errors.New("the connection has ended")

// sending is a connection with an upload, which ends with it: net/http waits for a read of the body to end
// before it says that the connection has.
type sending struct {
	net.Conn
	up *upload
}

// Read reads from the connection, and ends the upload with it.
func (s *sending) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil {
		s.up.feed.CloseWithError(errEnded)
	}
	return n, err
}

// explain says what the error of a call means to a user.
func explain(err error, socket string) error {
	op, _ := errors.AsType[*net.OpError](err)
	if op != nil && op.Op == "dial" && errors.Is(err, fs.ErrPermission) {
		return &program.CantRunError{What: "not allowed to use " + socket, Do: "run it as root"}
	}
	if op != nil && op.Op == "dial" {
		return &program.CantRunError{
			What: "nobody serves " + socket,
			Do:   "start trivet-cri, or name its state directory",
		}
	}

	// The address in it is made up.
	if of, ok := errors.AsType[*url.Error](err); ok {
		err = of.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, errEnded) || op != nil {
		return fmt.Errorf("trivet-cri has ended in the middle of the call, which may be repeated: %w", err)
	}

	return err
}

func decode(response *http.Response) ([]Image, error) {
	// Both are answers of net/http itself.
	switch response.StatusCode {
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return nil, errors.New("the running trivet-cri is older than this program: it does not know the call")
	}

	var a answer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return nil, fmt.Errorf("answer of trivet-cri (%s): %w", response.Status, err)
	}
	if a.Error != "" {
		return a.Images, errors.New(a.Error)
	}
	return a.Images, nil
}
