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

	"golang.org/x/sys/unix"
)

func (d *Demo) apply(ctx context.Context) error {
	_, err := d.show(ctx, "apply", "-f", d.manifest("app.yaml"))
	return err
}

func (d *Demo) awaitReady(ctx context.Context) error {
	_, err := d.kubectl(ctx, "rollout", "status", "statefulset/kv", "--timeout=120s")
	return err
}

func (d *Demo) get(ctx context.Context) error {
	out, err := d.show(ctx, "get", "pods,persistentvolumeclaims,services", "-o", "wide")
	return errors.Join(err, contains(out, "Bound"))
}

func (d *Demo) describe(ctx context.Context) error {
	out, err := d.kubectl(ctx, "describe", "pod", "kv-0")
	if err != nil {
		return err
	}

	for _, want := range []string{"Successfully assigned demo/kv-0", "Started", "Ready             True"} {
		if err := contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(want), " ")); err != nil {
			return err
		}
	}

	if i := strings.Index(out, "Events:"); i >= 0 {
		for line := range strings.Lines(out[i:]) {
			fmt.Fprintf(d.Out, "           %s", line)
		}
	}

	return nil
}

func (d *Demo) job(ctx context.Context) error {
	if _, err := d.kubectl(ctx, "delete", "job", "kv-client", "--ignore-not-found"); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "apply", "-f", d.manifest("job.yaml")); err != nil {
		return err
	}

	if _, err := d.kubectl(ctx, "wait", "--for=condition=Complete", "job/kv-client", "--timeout=120s"); err != nil {
		logs, _ := d.kubectl(ctx, "logs", "job/kv-client")
		return fmt.Errorf("%w; its log: %s", err, logs)
	}

	out, err := d.show(ctx, "logs", "job/kv-client", "--tail=1")
	return errors.Join(err, contains(out, "read back"))
}

// followLogs sees a line that is written while it follows.
func (d *Demo) followLogs(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	cmd := d.command(ctx, "logs", "-f", "kv-0", "-c", "kv")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { cancel(); _ = cmd.Wait() }()

	key := fmt.Sprintf("follow-%d", time.Now().UnixNano())
	lines := bufio.NewScanner(out)

	// the first line was written before
	if !lines.Scan() {
		return fmt.Errorf("the log is empty: %w", errors.Join(lines.Err(), ctx.Err()))
	}
	if err := d.put(ctx, key, "x"); err != nil {
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
func (d *Demo) put(ctx context.Context, key, value string) error {
	script := fmt.Sprintf("printf 'PUT /kv/%s HTTP/1.1\\r\\nHost: kv\\r\\nContent-Length: "+
		"%d\\r\\nConnection: close\\r\\n\\r\\n%s' | nc 127.0.0.1 8080", key, len(value), value)
	out, err := d.kubectl(ctx, "exec", "kv-0", "-c", "kv", "--", "sh", "-c", script)
	return errors.Join(err, contains(out, "201 Created"))
}

func (d *Demo) read(ctx context.Context, pod, path string) (string, error) {
	return d.kubectl(ctx, "exec", pod, "-c", "kv", "--", "wget", "-q", "-O", "-", "http://"+path)
}

// exec runs a shell on a terminal: kubectl gets a pseudo terminal of its own, as from a person's window.
func (d *Demo) exec(ctx context.Context) error {
	terminal, err := openTerminal()
	if err != nil {
		return err
	}
	defer terminal.close()

	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	cmd := d.command(ctx, "exec", "-it", "kv-0", "-c", "kv", "--", "sh")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal.user, terminal.user, terminal.user
	if err := cmd.Start(); err != nil {
		return err
	}

	terminal.user.Close()
	// kubectl tells the size when the shell runs already.
	if _, err := io.WriteString(terminal.screen, "tty; for i in $(seq 200); do [ \"$(stty size)\" = '33 "+
		"77' ] && break; sleep 0.05; done; echo size $(stty size); hostname; exit\n"); err != nil {
		return err
	}

	// ends with EIO when the last user of the terminal closes it
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

type terminal struct{ screen, user *os.File }

func openTerminal() (terminal, error) {
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return terminal{}, err
	}

	fd := int(screen.Fd())
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77})
	}

	if err != nil {
		screen.Close()
		return terminal{}, fmt.Errorf("pseudo terminal: %w", err)
	}

	user, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		screen.Close()
		return terminal{}, err
	}

	return terminal{screen, user}, nil
}

func (t terminal) close() { t.user.Close(); t.screen.Close() }

var forwarding = regexp.MustCompile(`Forwarding from 127\.0\.0\.1:(\d+)`)

func (d *Demo) portForward(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	cmd := d.command(ctx, "port-forward", "--address=127.0.0.1", "service/kv", ":80")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { cancel(); _ = cmd.Wait() }()

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

		fmt.Fprintf(d.Out, "           %s", text)
		return errors.Join(
			contains(string(text), "hello from a ConfigMap"),
			contains(string(text), `"secret":true`),
		)
	}

	return fmt.Errorf("kubectl port-forward ended early: %w", errors.Join(lines.Err(), ctx.Err()))
}

func (d *Demo) copyFiles(ctx context.Context) error {
	there, back := filepath.Join(d.work, "there"), filepath.Join(d.work, "back")
	want := strings.Repeat("a file of some size\n", 10000)
	if err := os.WriteFile(there, []byte(want), 0o644); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "cp", "-c", "kv", there, "kv-0:/data/copied"); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "cp", "-c", "kv", "kv-0:/data/copied", back); err != nil {
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
