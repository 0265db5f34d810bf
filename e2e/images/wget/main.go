// Command wget stands in for the applet of that name in images of the end-to-end suite: Debian's busybox
// crashes when it is asked for a timeout.
//
//	wget [-q] [-O FILE] [-T SECONDS] [--post-data=STRING] URL
//
// FILE is "-" for the standard output, and the last part of the URL's path if it is not given. A letter may
// have its value attached, and letters may be put together: -qO-. The exit status is 1 when the server cannot
// be reached, does not answer in time, or answers with another status than 2xx.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	r, err := parse(os.Args[1:])
	if err == nil {
		err = r.run(os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "wget: %v\n", err)
		os.Exit(1)
	}
}

// request is what the command line asks for.
type request struct {
	url string
	// output is a path, or "-".
	output string
	quiet  bool
	// timeout is that of the connection, and of each wait for bytes. It is never 0: the applet's is 15
	// minutes.
	timeout time.Duration
	// post is sent by POST if it is there.
	post *string
}

func parse(args []string) (request, error) {
	r := request{timeout: 15 * time.Minute}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var err error
		switch {
		case strings.HasPrefix(arg, "--"):
			err = r.option(arg)
		case strings.HasPrefix(arg, "-"):
			args, err = r.letters(arg[1:], args)
		case r.url != "":
			err = fmt.Errorf("%q and %q are two URLs", r.url, arg)
		default:
			r.url = arg
		}

		if err != nil {
			return r, err
		}
	}

	if !strings.Contains(r.url, "://") {
		r.url = "http://" + r.url
	}

	u, err := url.Parse(r.url)
	if err != nil || u.Host == "" {
		return r, fmt.Errorf("bad address %q", r.url)
	}

	if r.output == "" {
		r.output = path.Base(u.Path)
	}
	if r.output == "/" || r.output == "." {
		r.output = "index.html"
	}

	return r, nil
}

func (r *request) option(arg string) error {
	name, value, _ := strings.Cut(arg, "=")
	switch name {
	case "--post-data":
		r.post = &value
	case "--quiet":
		r.quiet = true
	default:
		return fmt.Errorf("unrecognized option '%s'", arg)
	}
	return nil
}

// letters reads the letters of an argument and returns the arguments that are left.
func (r *request) letters(letters string, args []string) ([]string, error) {
	for letters != "" {
		letter := letters[0]
		letters = letters[1:]
		if letter == 'q' {
			r.quiet = true
			continue
		}

		// The value is what is left of the argument, or the next one.
		value := letters
		letters = ""
		if value == "" {
			if len(args) == 0 {
				return nil, fmt.Errorf("option requires an argument -- '%c'", letter)
			}

			value = args[0]
			args = args[1:]
		}

		if err := r.set(letter, value); err != nil {
			return nil, err
		}
	}

	return args, nil
}

func (r *request) set(letter byte, value string) error {
	switch letter {
	case 'O':
		r.output = value
		return nil
	case 'T':
		seconds, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return fmt.Errorf("invalid number '%s'", value)
		}

		if seconds > 0 {
			r.timeout = time.Duration(seconds) * time.Second
		}

		return nil
	}

	return fmt.Errorf("invalid option -- '%c'", letter)
}

// run makes the request and writes the body of its answer.
func (r request) run(stdout, stderr io.Writer) error {
	answer, err := r.do()
	if err != nil {
		return r.explain(err)
	}
	defer answer.Body.Close()

	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("server returned error: %s %s", answer.Proto, answer.Status)
	}

	if !r.quiet {
		fmt.Fprintf(stderr, "writing to %s\n", r.output)
	}

	if r.output == "-" {
		_, err = io.Copy(stdout, answer.Body)
		return r.explain(err)
	}

	file, err := os.Create(r.output)
	if err != nil {
		return err
	}

	_, err = io.Copy(file, answer.Body)
	return errors.Join(r.explain(err), file.Close())
}

func (r request) do() (*http.Response, error) {
	dialer := net.Dialer{Timeout: r.timeout}
	client := http.Client{Transport: &http.Transport{
		DialContext:           dialer.DialContext,
		ResponseHeaderTimeout: r.timeout,
		DisableKeepAlives:     true,
		DisableCompression:    true,
	}}

	method := http.MethodGet
	var body io.Reader
	if r.post != nil {
		method = http.MethodPost
		body = strings.NewReader(*r.post)
	}

	q, err := http.NewRequest(method, r.url, body)
	if err != nil {
		return nil, err
	}

	q.Header.Set("User-Agent", "Wget")
	if r.post != nil {
		q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}

	return client.Do(q)
}

// explain returns the applet's words for an error.
func (r request) explain(err error) error {
	if waited, ok := errors.AsType[net.Error](err); ok && waited.Timeout() {
		return errors.New("download timed out")
	}

	if unknown, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("bad address '%s'", unknown.Name)
	}

	dial, ok := errors.AsType[*net.OpError](err)
	if !ok || dial.Op != "dial" {
		return err
	}

	number, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return err
	}

	host, _, _ := net.SplitHostPort(dial.Addr.String())
	return fmt.Errorf("can't connect to remote host (%s): %s", host, sentence(number))
}

// sentence begins with a capital letter, as strerror(3) does: "Connection refused".
func sentence(number syscall.Errno) string {
	text := number.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}
