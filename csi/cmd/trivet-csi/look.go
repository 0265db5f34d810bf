package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/doctor"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/listing"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/survey"
	"github.com/trivet-node/trivet/internal/kube"
	kubestorage "github.com/trivet-node/trivet/internal/kube/storage"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
)

const aboutDoctor = `
trivet-csi doctor says what is wrong with the volumes of this node, one finding a line, and what to do about
it. It changes nothing, and works with and without a driver that runs. With access to the Kubernetes API it
looks at the objects of the node's volumes, too; that it does not answer is a finding beside the others. Exit
code 0: nothing is wrong; 1: something is.`

const aboutLists = `
trivet-csi volumes, snapshots and pool show what is on this node, as a table, or with -o json. They change
nothing, and work with and without a driver that runs. With access to the Kubernetes API they show whose the
volumes are. If that does not answer, the rows are there without, and the exit code is 1. So it is with a data
directory that is not the one of this node; one that no driver has ever served is an error.`

const (
	// askTimeout bounds what is asked of the Kubernetes API.
	askTimeout = 30 * time.Second

	// secondLook is after how long what seems to be wrong beside a driver that runs is looked at again.
	secondLook = 3 * time.Second
)

var errWrong = errors.New("something is wrong")

// looking is a verb that changes nothing.
type looking struct {
	options
	json bool
	lack error // why the Kubernetes API could not be asked; nil if it could, or was not
}

func (l *looking) parse(env *program.Env, about string) error {
	fs := env.Flags(about)
	l.defineWhere(fs)
	output := fs.String("o", "", `"json": in JSON, sizes in bytes`)
	reserve := fs.String("reserve", "", "what volumes never get, if the driver has the flag")
	poolSize := fs.String("pool-size", "", "what is promised at most, if the driver has the flag")
	if err := l.parseVerb(env, fs); err != nil {
		return err
	}
	if fs.NArg() > 0 || *output != "" && *output != "json" {
		err := fmt.Errorf("unexpected argument %q, or -o %q that is not json", fs.Arg(0), *output)
		return &program.UsageError{Err: err}
	}

	var errs [2]error
	l.json = *output == "json"
	l.reserve, errs[0] = parseSize("--reserve", *reserve)
	l.poolSize, errs[1] = parseSize("--pool-size", *poolSize)
	if err := errors.Join(errs[:]...); err != nil {
		return &program.UsageError{Err: err}
	}
	return nil
}

func (l *looking) survey(ctx context.Context) (survey.Survey, error) {
	s, err := survey.Take(ctx, survey.Config{
		DataDir:    l.dataDir,
		StateDir:   l.stateDir,
		KubeletDir: l.kubeletDir,
		Witness:    placeOf(l.options).Witness,
	})
	if err != nil {
		return s, fmt.Errorf("look at the volumes in %s: %w", l.dataDir, err)
	}
	return s, nil
}

// served is survey of a directory that a driver has served: of any other it would seem that there are no
// volumes.
func (l *looking) served(ctx context.Context) (survey.Survey, error) {
	s, err := l.survey(ctx)
	if err != nil || s.Name != "" {
		return s, err
	}
	if s.Place != nil {
		return s, s.Place
	}
	return s, fmt.Errorf("no driver has ever served the data directory %s (--data-dir)", l.dataDir)
}

// diagnose prints what is wrong.
func diagnose(ctx context.Context, env *program.Env) error {
	var l looking
	if err := l.parse(env, aboutDoctor); err != nil {
		return err
	}

	findings, runs, err := l.findings(ctx)
	if err != nil {
		return err
	}
	if runs && doctor.IsWrong(findings) {
		if err := retry.Sleep(ctx, secondLook); err != nil {
			return err
		}
		again, _, err := l.findings(ctx)
		if err != nil {
			return err
		}
		findings = doctor.Lasting(findings, again)
	}

	if l.json {
		err = listing.JSON(env.Stdout, findings)
	} else {
		for _, f := range findings {
			fmt.Fprintln(env.Stdout, f)
		}
	}
	if err == nil && doctor.IsWrong(findings) {
		err = errWrong
	}
	return err
}

func (l *looking) findings(ctx context.Context) (findings []doctor.Finding, driverRuns bool, err error) {
	facts := doctor.Facts{Driver: l.driver(ctx), PoolSize: l.poolSize}
	if facts.Survey, err = l.survey(ctx); err != nil {
		return nil, false, err
	}
	if facts.Reserve, err = reserveOf(l.options); err != nil {
		return nil, false, err
	}
	if facts.API, facts.APIErr, err = l.api(ctx); err != nil {
		return nil, false, err
	}
	return doctor.Findings(facts), facts.Driver.Runs, nil
}

// driver asks one that runs whether it is well.
func (l *looking) driver(ctx context.Context) doctor.Driver {
	d := doctor.Driver{Socket: l.endpoint, Runs: socket.Alive(l.endpoint)}
	if d.Runs {
		d.Err = probe(ctx, l.endpoint)
		d.CalledByOthers = calledByOthers(ctx, l.endpoint)
	}
	return d
}

// calledByOthers asks a driver which methods somebody calls beside its own controllers; "" if it does not
// answer.
func calledByOthers(ctx context.Context, endpoint string) string {
	conn, err := socket.Dial(endpoint)
	if err != nil {
		return ""
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	info, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		return ""
	}
	return info.GetManifest()[driver.CalledByOthers]
}

// api reads the objects of the driver; nil without credentials. That the API cannot be asked is lack: what is
// on the node is shown all the same. It is not asked again then.
func (l *looking) api(ctx context.Context) (api *doctor.API, lack, err error) {
	if l.lack != nil {
		return nil, l.lack, nil
	}

	api, err = l.known(ctx)
	if _, usage := errors.AsType[*program.UsageError](err); err == nil || usage {
		return api, nil, err
	}

	l.lack = err
	return nil, l.lack, nil
}

// known is api with one error for all that fails.
func (l *looking) known(ctx context.Context) (*doctor.API, error) {
	config, err := credentials(l.kubeconfig)
	if errors.Is(err, kube.ErrNotInCluster) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}

	config.UserAgent = "trivet-csi/" + program.Version
	client, err := kube.New(config)
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}

	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return l.ask(ctx, client)
}

func (l *looking) ask(ctx context.Context, client *kube.Client) (*doctor.API, error) {
	api := &doctor.API{Local: localOf(l.options)}

	var err error
	if api.Volumes, _, err = kube.Volumes(client).List(ctx, "", metav1.ListOptions{}); err != nil {
		return nil, fmt.Errorf("list PersistentVolumes: %w", err)
	}

	api.Contents, _, err = objects.SnapshotContents(client).List(ctx, "", metav1.ListOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("list VolumeSnapshotContents: %w", err)
	}

	api.Groups, _, err = objects.GroupSnapshotContents(client).List(ctx, "", metav1.ListOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("list VolumeGroupSnapshotContents: %w", err)
	}

	node, err := kubestorage.CSINodes(client).Get(ctx, "", l.nodeName)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get CSINode %s: %w", l.nodeName, err)
	}
	api.NodeThere = err == nil && api.Local.Runs(node)
	return api, nil
}

// listed prints a survey with what the Kubernetes API has, if it answers.
func listed(
	ctx context.Context,
	env *program.Env,
	show func(l *looking, s survey.Survey, api doctor.API) error,
) error {
	var l looking
	if err := l.parse(env, aboutLists); err != nil {
		return err
	}
	s, err := l.served(ctx)
	if err != nil {
		return err
	}

	known, lack, err := l.api(ctx)
	if err != nil {
		return err
	}
	if lack != nil {
		lack = fmt.Errorf("whose they are is not shown: the Kubernetes API could not be asked: %w", lack)
	}

	var api doctor.API
	if known != nil {
		api = *known
	}
	return errors.Join(show(&l, s, api), s.Place, lack)
}

func listVolumes(ctx context.Context, env *program.Env) error {
	return listed(ctx, env, func(l *looking, s survey.Survey, api doctor.API) error {
		rows := listing.Volumes(s, api.Volumes)
		if l.json {
			return listing.JSON(env.Stdout, rows)
		}
		return listing.VolumeTable(env.Stdout, rows)
	})
}

func listSnapshots(ctx context.Context, env *program.Env) error {
	return listed(ctx, env, func(l *looking, s survey.Survey, api doctor.API) error {
		rows := listing.Snapshots(s, api.Contents)
		if l.json {
			return listing.JSON(env.Stdout, rows)
		}
		return listing.SnapshotTable(env.Stdout, rows)
	})
}

func showPool(ctx context.Context, env *program.Env) error {
	var l looking
	if err := l.parse(env, aboutLists); err != nil {
		return err
	}

	s, err := l.served(ctx)
	if err != nil {
		return err
	}
	reserve, err := reserveOf(l.options)
	if err != nil {
		return err
	}

	p := listing.PoolOf(s, reserve, l.promisable(ctx))
	if l.json {
		return errors.Join(listing.JSON(env.Stdout, p), s.Place)
	}
	return errors.Join(listing.PoolTable(env.Stdout, p), s.Place)
}

// promisable asks a driver that runs how large the next volume of each backend may be.
func (l *looking) promisable(ctx context.Context) map[string]int64 {
	sizes := map[string]int64{}
	conn, err := socket.Dial(l.endpoint)
	if err != nil || !socket.Alive(l.endpoint) {
		return sizes
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	for _, backend := range []string{btrfspool.Name, loopfile.Name, quotadir.Name} {
		request := &csi.GetCapacityRequest{Parameters: map[string]string{"backend": backend}}
		resp, err := csi.NewControllerClient(conn).GetCapacity(ctx, request)
		if err == nil {
			sizes[backend] = resp.GetAvailableCapacity()
		}
	}
	return sizes
}
