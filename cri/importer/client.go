package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/trivet-node/trivet/internal/program"
)

// Send has the server on a socket import an archive, and returns what it has imported, also beside an error.
// The error is a program.CantRunError if nobody serves the socket.
func Send(ctx context.Context, socket string, archive io.Reader, pin bool) ([]Image, error) {
	query := url.Values{"pin": {fmt.Sprint(pin)}}
	response, err := call(ctx, socket, http.MethodPost, query, io.NopCloser(archive))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return decode(response)
}

// Receive writes the archive that the server makes of images. After an error, what was written is not whole.
func Receive(ctx context.Context, socket string, names []string, to io.Writer) error {
	response, err := call(ctx, socket, http.MethodGet, url.Values{"name": names}, nil)
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

func call(
	ctx context.Context, socket, method string, query url.Values, body io.Reader,
) (*http.Response, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	target := "http://trivet-cri" + path + "?" + query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}

	response, err := client.Do(request)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return nil, &program.CantRunError{
			What: "nobody serves " + socket,
			Do:   "start trivet-cri, or name its state directory",
		}
	}

	return response, err
}

func decode(response *http.Response) ([]Image, error) {
	var a answer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return nil, fmt.Errorf("answer of trivet-cri (%s): %w", response.Status, err)
	}
	if a.Error != "" {
		return a.Images, errors.New(a.Error)
	}
	return a.Images, nil
}
