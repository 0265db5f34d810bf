package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/patience"
)

func apply(ctx context.Context, s *stage) error {
	file := s.manifest("app.yaml")
	if s.claims && !s.brief && (s.class == "" || s.class == manifestClass) {
		_, err := s.show(ctx, "apply", "-f", file)
		return err
	}

	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}

	app := string(data)
	switch {
	case !s.claims:
		app = withoutClaims(app)
	case s.class != "":
		app = withClass(app, s.class)
	}
	if s.brief {
		app = strings.Replace(app, "\n  replicas: 1\n", "\n  replicas: 3\n", 1)
	}

	file = filepath.Join(s.work, "app.yaml")
	if err := os.WriteFile(file, []byte(app), 0o644); err != nil {
		return err
	}

	_, err = s.show(ctx, "apply", "-f", file)
	return err
}

// manifestClass is the storage class that the manifest has.
const manifestClass = "trivet"

// withClass has claims of another storage class.
func withClass(app, class string) string {
	const key = "storageClassName: "
	return strings.Replace(app, key+manifestClass+"\n", key+class+"\n", 1)
}

// withoutClaims has an emptyDir in place of the template of claims, which is the end of the application.
func withoutClaims(app string) string {
	app, _, _ = strings.Cut(app, "  volumeClaimTemplates:\n")
	return app + "      - {name: data, emptyDir: {}}\n"
}

func awaitReady(ctx context.Context, s *stage) error {
	_, err := s.run(ctx, "rollout", "status", "statefulset/kv", "--timeout=120s")
	return err
}

func list(ctx context.Context, s *stage) error {
	out, err := s.show(ctx, "get", "pods,persistentvolumeclaims,services", "-o", "wide")
	if err != nil || !s.claims {
		return err
	}
	return contains(out, "Bound")
}

func describe(ctx context.Context, s *stage) error {
	out, err := s.run(ctx, "describe", "pod", "kv-0")
	if err != nil {
		return err
	}

	for _, want := range []string{"Successfully assigned demo/kv-0", "Started", "Ready             True"} {
		if err := contains(oneSpaced(out), oneSpaced(want)); err != nil {
			return err
		}
	}

	if i := strings.Index(out, "Events:"); i >= 0 {
		s.indent(out[i:])
	}

	return nil
}

// oneSpaced has one space for each run of white space, as columns vary.
func oneSpaced(text string) string { return strings.Join(strings.Fields(text), " ") }

func runJob(ctx context.Context, s *stage) error {
	if _, err := s.run(ctx, "delete", "job", "kv-client", "--ignore-not-found"); err != nil {
		return err
	}
	if _, err := s.run(ctx, "apply", "-f", s.manifest("job.yaml")); err != nil {
		return err
	}

	_, err := s.run(ctx, "wait", "--for=condition=Complete", "job/kv-client", "--timeout=120s")
	if err != nil {
		logs, _ := s.run(ctx, "logs", "job/kv-client")
		return fmt.Errorf("%w; its log: %s", err, logs)
	}

	out, err := s.show(ctx, "logs", "job/kv-client", "--tail=1")
	return errors.Join(err, contains(out, "read back"))
}

// followLogs sees a line that is written while it follows.
func followLogs(ctx context.Context, s *stage) error {
	ctx, cancel := context.WithTimeout(ctx, patience.Of(30*time.Second))
	defer cancel()

	cmd := s.command(ctx, "logs", "-f", "kv-0", "-c", "kv")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer end(cmd, cancel)

	key := fmt.Sprintf("follow-%d", time.Now().UnixNano())
	lines := bufio.NewScanner(out)

	// The first line was written before.
	if !lines.Scan() {
		return fmt.Errorf("the log is empty: %w", errors.Join(lines.Err(), ctx.Err()))
	}
	if err := put(ctx, s, key, "x"); err != nil {
		return err
	}

	for lines.Scan() {
		if strings.Contains(lines.Text(), key) {
			return nil
		}
	}

	return fmt.Errorf("the line about %s never came: %w", key, errors.Join(lines.Err(), ctx.Err()))
}

// put writes a value from inside the pod.
func put(ctx context.Context, s *stage, key, value string) error {
	script := fmt.Sprintf("printf 'PUT /kv/%s HTTP/1.1\\r\\nHost: kv\\r\\nContent-Length: "+
		"%d\\r\\nConnection: close\\r\\n\\r\\n%s' | nc 127.0.0.1 8080", key, len(value), value)
	out, err := s.run(ctx, "exec", "kv-0", "-c", "kv", "--", "sh", "-c", script)
	return errors.Join(err, contains(out, "201 Created"))
}

func read(ctx context.Context, s *stage, pod, path string) (string, error) {
	return s.run(ctx, "exec", pod, "-c", "kv", "--", "wget", "-q", "-O", "-", "http://"+path)
}

// execOnTerminal runs a shell on a terminal: kubectl gets a pseudo terminal of its own, as from a person's
// window.
func execOnTerminal(ctx context.Context, s *stage) error {
	terminal, err := openTerminal()
	if err != nil {
		return err
	}
	defer terminal.close()

	ctx, cancel := context.WithTimeout(ctx, patience.Of(30*time.Second))
	defer cancel()

	cmd := s.command(ctx, "exec", "-it", "kv-0", "-c", "kv", "--", "sh")
	cmd.Stdin = terminal.user
	cmd.Stdout, cmd.Stderr = terminal.user, terminal.user
	if err := cmd.Start(); err != nil {
		return err
	}

	terminal.user.Close()
	// kubectl sets the size when the shell runs already.
	if _, err := io.WriteString(terminal.screen, "tty; for i in $(seq 200); do [ \"$(stty size)\" = '33 "+
		"77' ] && break; sleep 0.05; done; echo size $(stty size); hostname; exit\n"); err != nil {
		return err
	}

	// Reading ends with EIO when the last user of the terminal closes it.
	text, _ := io.ReadAll(terminal.screen)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}

	return errors.Join(
		contains(string(text), "/dev/pts/"),
		contains(string(text), "size 33 77"),
		contains(string(text), "kv-0"),
	)
}

var forwarding = regexp.MustCompile(`Forwarding from 127\.0\.0\.1:(\d+)`)

func forwardPort(ctx context.Context, s *stage) error {
	ctx, cancel := context.WithTimeout(ctx, patience.Of(30*time.Second))
	defer cancel()

	cmd := s.command(ctx, "port-forward", "--address=127.0.0.1", "service/kv", ":80")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer end(cmd, cancel)

	lines := bufio.NewScanner(out)
	for lines.Scan() {
		port := forwarding.FindStringSubmatch(lines.Text())
		if port == nil {
			continue
		}

		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port[1]+"/info", nil)
		if err != nil {
			return err
		}

		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()

		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}

		s.indent(string(text))
		return errors.Join(
			contains(string(text), "hello from a ConfigMap"),
			contains(string(text), `"secret":true`),
		)
	}

	return fmt.Errorf("kubectl port-forward ended early: %w", errors.Join(lines.Err(), ctx.Err()))
}

func copyFiles(ctx context.Context, s *stage) error {
	there, back := filepath.Join(s.work, "there"), filepath.Join(s.work, "back")
	want := strings.Repeat("a file of some size\n", 10000)
	if err := os.WriteFile(there, []byte(want), 0o644); err != nil {
		return err
	}
	if _, err := s.run(ctx, "cp", "-c", "kv", there, "kv-0:/data/copied"); err != nil {
		return err
	}
	if _, err := s.run(ctx, "cp", "-c", "kv", "kv-0:/data/copied", back); err != nil {
		return err
	}

	got, err := os.ReadFile(back)
	if err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("%d bytes came back, %d were sent", len(got), len(want))
	}

	return nil
}
