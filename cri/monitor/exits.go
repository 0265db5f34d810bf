package monitor

import "sync"

// queue passes exits on without ever blocking the one who puts them in.
type queue struct {
	out    chan Exit
	wake   chan struct{}
	closed chan struct{}
	ended  chan struct{}
	once   sync.Once // of close

	// mu guards items.
	mu    sync.Mutex
	items []Exit
}

func newQueue() *queue {
	q := &queue{
		out:    make(chan Exit),
		wake:   make(chan struct{}, 1),
		closed: make(chan struct{}),
		ended:  make(chan struct{}),
	}
	go q.run()
	return q
}

func (q *queue) put(e Exit) {
	q.mu.Lock()
	q.items = append(q.items, e)
	q.mu.Unlock()

	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns all items that are waiting.
func (q *queue) take() []Exit {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}

func (q *queue) run() {
	defer close(q.ended)
	defer close(q.out)

	for {
		for _, e := range q.take() {
			select {
			case q.out <- e:
			case <-q.closed:
				return
			}
		}

		select {
		case <-q.wake:
		case <-q.closed:
			return
		}
	}
}

// close closes out. Repeating it changes nothing.
func (q *queue) close() {
	q.once.Do(func() { close(q.closed) })
	<-q.ended
}
