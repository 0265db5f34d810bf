// Package membership asks the members of an etcd cluster what they know, and changes who is a member. What it
// asks is bounded in time; a member that does not answer is one that does not answer.
package membership

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// patience is how long a member may take for an answer.
const patience = 2 * time.Second

// ErrNotCaughtUp says that a learner is behind the leader.
var ErrNotCaughtUp = errors.New("the learner has not caught up with the leader")

// Answer is what a member says of itself.
type Answer struct {
	ID      uint64
	Version string

	// Leads says that it is the leader, and Serves that it knows one and votes: a learner serves no client.
	Leads  bool
	Serves bool
}

// Member is what a majority of the members has agreed on.
type Member struct {
	ID      uint64
	Host    string // the first label of its peer URL's host
	Started bool
	Learner bool
}

// List is the list of members.
type List struct {
	ClusterID uint64
	Members   []Member
}

// Ask asks each member, by its name and client URL, for its state. Those that do not answer are left out.
func Ask(ctx context.Context, endpoints map[string]string) map[string]Answer {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	var mu sync.Mutex
	var all sync.WaitGroup
	answers := map[string]Answer{}
	for name, endpoint := range endpoints {
		all.Go(func() {
			answer, err := ask(ctx, endpoint)
			if err != nil {
				return
			}

			mu.Lock()
			defer mu.Unlock()
			answers[name] = answer
		})
	}

	all.Wait()
	return answers
}

func ask(ctx context.Context, endpoint string) (Answer, error) {
	c, err := dial(ctx, endpoint)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()

	status, err := c.Status(ctx, endpoint)
	if err != nil {
		return Answer{}, err
	}

	return Answer{
		ID:      status.Header.MemberId,
		Version: status.Version,
		Leads:   status.Leader == status.Header.MemberId,
		Serves:  status.Leader != 0 && !status.IsLearner,
	}, nil
}

func dial(ctx context.Context, endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Context:     ctx,
		Endpoints:   endpoints,
		DialTimeout: patience,
		Logger:      zap.NewNop(),
	})
}

// Cluster is reached at the client URLs of voting members.
type Cluster struct{ Endpoints []string }

// List returns the members that a majority has agreed on; without a majority it fails.
func (c Cluster) List(ctx context.Context) (list List, err error) {
	err = c.with(ctx, func(ctx context.Context, client *clientv3.Client) error {
		answer, err := client.MemberList(ctx)
		if err != nil {
			return err
		}

		list.ClusterID = answer.Header.ClusterId
		for _, m := range answer.Members {
			list.Members = append(list.Members, Member{
				ID:      m.ID,
				Host:    host(m.PeerURLs),
				Started: m.Name != "",
				Learner: m.IsLearner,
			})
		}

		return nil
	})
	return list, err
}

// AddLearner adds a member that does not vote. One that has been added already is no error.
func (c Cluster) AddLearner(ctx context.Context, peerURL string) error {
	return c.with(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberAddAsLearner(ctx, []string{peerURL})
		if errors.Is(err, rpctypes.ErrPeerURLExist) {
			return nil
		}
		return err
	})
}

// Promote lets a learner vote. It fails with ErrNotCaughtUp when it is too early.
func (c Cluster) Promote(ctx context.Context, id uint64) error {
	return c.with(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberPromote(ctx, id)
		switch {
		case errors.Is(err, rpctypes.ErrMemberNotLearner):
			return nil
		case errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
			return ErrNotCaughtUp
		default:
			return err
		}
	})
}

// Remove removes a member. One that is not there is no error.
func (c Cluster) Remove(ctx context.Context, id uint64) error {
	return c.with(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberRemove(ctx, id)
		if errors.Is(err, rpctypes.ErrMemberNotFound) {
			return nil
		}
		return err
	})
}

func (c Cluster) with(ctx context.Context, do func(context.Context, *clientv3.Client) error) error {
	if len(c.Endpoints) == 0 {
		return errors.New("no member answers")
	}

	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()

	client, err := dial(ctx, c.Endpoints...)
	if err != nil {
		return err
	}
	defer client.Close()

	return do(ctx, client)
}

// host is what a member is called before it has said its name.
func host(urls []string) string {
	if len(urls) == 0 {
		return ""
	}

	u, err := url.Parse(urls[0])
	if err != nil {
		return ""
	}

	name, _, _ := strings.Cut(u.Hostname(), ".")
	return name
}
