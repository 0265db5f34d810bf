package swap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// seat is one in memory, which outlives the machine that works on it. It ends the machine at a call if it is
// told to, as kill -9 would.
type seat struct {
	state   State
	settled State
	broken  map[State]error
	messy   error

	// restarts is how often its process ends, one in ten seconds. unseen is why it cannot be seen.
	restarts int
	unseen   error

	calls []string

	// killAt is the call at which the machine ends, from 1, and kill ends it.
	killAt int
	kill   context.CancelFunc
}

func (s *seat) call(name string) {
	s.calls = append(s.calls, name)
	if len(s.calls) == s.killAt {
		s.kill()
	}
}

func (s *seat) Arrange(ctx context.Context, to State, _ []string) (Outage, error) {
	s.call("stop")
	if ctx.Err() != nil {
		return Outage{}, context.Cause(ctx)
	}
	if err := s.broken[to]; err != nil {
		return Outage{}, err
	}

	s.state = to
	s.call("arrange " + to.String())
	return Outage{Stopped: time.Now(), Started: time.Now()}, nil
}

func (s *seat) Settle(_ context.Context, in State) error {
	s.call("settle " + in.String())
	s.settled = in
	return s.messy
}

func (s *seat) Check(context.Context, State) (int, error) {
	if s.unseen != nil {
		return 0, s.unseen
	}
	first := time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	return 1 + min(s.restarts, int(time.Since(first)/(10*time.Second))), nil
}

func machine(t *testing.T, folder Folder, s *seat) Machine {
	return Machine{Folder: folder, Seat: s, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// run runs a machine until it has nothing to do, starting it again when it was killed.
func run(t *testing.T, folder Folder, s *seat) Record {
	t.Helper()
	for range 10 {
		ctx, kill := context.WithCancel(t.Context())
		s.kill = kill
		err := machine(t, folder, s).Run(ctx)
		kill()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err == nil {
			record, err := folder.Record()
			if err != nil {
				t.Fatal(err)
			}
			return record
		}
	}

	t.Fatal("the machine does not end")
	return Record{}
}

// pod says that the node works, lives and is drained, once the machine waits for that.
func pod(ctx context.Context, t *testing.T, folder Folder) {
	for ctx.Err() == nil {
		r, err := folder.Record()
		if err != nil {
			t.Error(err)
			return
		}

		said := folder.Word(r.Order.ID)
		word := said
		switch r.Phase {
		case Trying:
			word = Word{ID: r.Order.ID, Works: true}
		case Proving:
			if time.Since(said.Alive) > aliveLimit/4 {
				word.ID, word.Alive = r.Order.ID, time.Now()
			}
		case Retreating:
			word = Word{ID: r.Order.ID, Drained: true}
		}
		if word != said {
			if err := folder.Say(word); err != nil {
				t.Error(err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(confirmPoll):
		}
	}
}

const next State = "v1"

// order gives an order in a bubble of time, and returns how it ended.
func order(t *testing.T, s *seat, folder Folder, o Order, confirmed bool) (record Record) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if err := folder.Give(o); err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if confirmed {
				pod(ctx, t, folder)
			}
		}()

		record = run(t, folder, s)
		end()
		<-done
	})
	return record
}

func TestOrderThatIsConfirmedStays(t *testing.T) {
	s, folder := &seat{}, Folder(t.TempDir())
	record := order(t, s, folder, Order{ID: "a", To: next, Trial: time.Minute}, true)
	if record.Phase != Done || record.State() != next || s.state != next || s.settled != next {
		t.Errorf("record %+v, seat %+v", record, s)
	}
}

func TestOrderThatNobodyConfirmsIsTakenBack(t *testing.T) {
	s, folder := &seat{}, Folder(t.TempDir())
	record := order(t, s, folder, Order{ID: "a", To: next, Trial: time.Minute}, false)
	isBack := record.State() == Out && s.state == Out && s.settled == Out
	if !isBack || !strings.Contains(record.Failure, "1m0s") {
		t.Errorf("record %+v, seat %+v", record, s)
	}
}

func TestOrderThatCannotBeArrangedIsTakenBack(t *testing.T) {
	s, folder := &seat{broken: map[State]error{next: errors.New("no such program")}}, Folder(t.TempDir())
	record := order(t, s, folder, Order{ID: "a", To: next, Trial: time.Minute}, true)
	if record.State() != Out || s.state != Out || record.Failure != "no such program" {
		t.Errorf("record %+v, seat %+v", record, s)
	}
}

// TestRemovalThatFailsLeavesWhatWasThere is the way out, which is taken back like the way in.
func TestRemovalThatFailsLeavesWhatWasThere(t *testing.T) {
	s, folder := &seat{}, Folder(t.TempDir())
	order(t, s, folder, Order{ID: "a", To: next, Trial: time.Minute}, true)
	record := order(t, s, folder, Order{ID: "b", To: Out, Trial: time.Minute}, false)
	if record.State() != next || s.state != next || s.settled != next {
		t.Errorf("record %+v, seat %+v", record, s)
	}
}

// TestKillsAtEveryCallEndTheSame kills the machine at each call, for orders that end well and that do not.
func TestKillsAtEveryCallEndTheSame(t *testing.T) {
	for _, confirmed := range []bool{true, false} {
		want := Out
		if confirmed {
			want = next
		}
		for at := 1; at <= 6; at++ {
			t.Run(fmt.Sprintf("confirmed=%t/%d", confirmed, at), func(t *testing.T) {
				s, folder := &seat{killAt: at}, Folder(t.TempDir())
				record := order(t, s, folder, Order{ID: "a", To: next, Trial: time.Minute}, confirmed)
				if record.Phase != Done || record.State() != want || s.state != want || s.settled != want {
					t.Errorf("record %+v, seat %+v", record, s)
				}
			})
		}
	}
}

// TestMachineThatAlwaysEndsGoesBack is of an exchange that kills what carries it out.
func TestMachineThatAlwaysEndsGoesBack(t *testing.T) {
	folder := Folder(t.TempDir())
	s := &seat{}
	if err := folder.Give(Order{ID: "a", To: next, Trial: time.Minute}); err != nil {
		t.Fatal(err)
	}

	for range maxAttempts {
		ctx, kill := context.WithCancel(t.Context())
		s.kill, s.killAt = kill, len(s.calls)+1
		if err := machine(t, folder, s).Run(ctx); err == nil {
			t.Fatal("it was not killed")
		}
	}

	record := run(t, folder, s)
	if record.State() != Out || !strings.Contains(record.Failure, "ended 3 times") {
		t.Errorf("record %+v", record)
	}
}

func TestFailureThatIsAcceptedCountsNoMore(t *testing.T) {
	s, folder := &seat{}, Folder(t.TempDir())
	order(t, s, folder, Order{ID: "a", To: next, Trial: time.Minute}, false)
	if err := folder.Accept(); err != nil {
		t.Fatal(err)
	}

	record, err := folder.Record()
	if err != nil || record.State() != Out || record.Failure != "" {
		t.Errorf("record %+v, %v", record, err)
	}
}

// TestVersionThatAlwaysEndsIsTakenBack is of one that serves for some seconds, and again.
func TestVersionThatAlwaysEndsIsTakenBack(t *testing.T) {
	for restarts, want := range map[int]State{2: next, 1000: Out} {
		s, folder := &seat{restarts: restarts}, Folder(t.TempDir())
		record := order(t, s, folder, Order{ID: "a", To: next, Trial: time.Minute}, true)
		if record.State() != want || s.settled != want {
			t.Errorf("%d restarts: record %+v", restarts, record)
		}
	}
}

func TestOrderForWhatIsLeftOnlySettles(t *testing.T) {
	s, folder := &seat{messy: errors.New("busy")}, Folder(t.TempDir())
	record := order(t, s, folder, Order{ID: "a", To: next, Trial: time.Minute}, true)
	if record.Left != "busy" {
		t.Fatalf("record %+v", record)
	}

	s.messy, s.calls = nil, nil
	record = order(t, s, folder, Order{ID: "b", To: next, Trial: time.Minute}, false)
	if record.Phase != Done || record.Left != "" || record.State() != next || record.Failure != "" {
		t.Errorf("record %+v", record)
	}
	if got := strings.Join(s.calls, ", "); got != "settle v1" {
		t.Errorf("calls %s", got)
	}
}

func TestImagesAreBounded(t *testing.T) {
	folder := Folder(t.TempDir())
	many := []string{"short:1", strings.Repeat("x", maxName+1), "<&>"}
	for i := range 3 * maxImages {
		many = append(many, fmt.Sprintf("%0500d", i))
	}
	for range 2 {
		if err := folder.AddImages(many); err != nil {
			t.Fatal(err)
		}
	}
	images, err := folder.Images()
	if err != nil || len(images) != maxImages || images[0] != "short:1" || len(images[1]) > maxName {
		t.Errorf("%d images, %v", len(images), err)
	}

	// An order with all of them can be read again.
	if err := folder.Give(Order{ID: "a", Images: images}); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Order(); err != nil {
		t.Error(err)
	}
	if err := folder.Give(Order{ID: "b", Version: strings.Repeat("x", maxFile)}); err == nil {
		t.Error("a file that could not be read was written")
	}
}

// TestMachineOfTheVersionBeforeHearsThatTheNodeWorks has the file that it reads, and only then.
func TestMachineOfTheVersionBeforeHearsThatTheNodeWorks(t *testing.T) {
	folder := Folder(t.TempDir())
	if err := folder.Say(Word{ID: "a", Doubt: "not yet"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder.Path("confirmed.json")); err == nil {
		t.Error("a doubt is a confirmation")
	}

	if err := folder.Say(Word{ID: "a", Works: true, Ready: time.Unix(0, 0).UTC()}); err != nil {
		t.Fatal(err)
	}
	const want = "{\n  \"id\": \"a\",\n  \"ready\": \"1970-01-01T00:00:00Z\"\n}\n"
	if got, err := os.ReadFile(folder.Path("confirmed.json")); err != nil || string(got) != want {
		t.Errorf("confirmation %q, %v", got, err)
	}
	if err := folder.Forget(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(string(folder)); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestTornFilesAreNamed(t *testing.T) {
	folder := Folder(t.TempDir())
	if err := os.WriteFile(folder.Path("record.json"), []byte(`{"phase": "try`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Record(); err == nil || !strings.Contains(err.Error(), "record.json") {
		t.Errorf("error %v", err)
	}
}
