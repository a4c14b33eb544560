package members

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// What follows is the protocol of "Kubernetes API Concepts", Efficient detection of changes: list,
// then watch from the version of the list; go on watching from the version of what came last;
// list anew when that is too old to be known, which is status 410, of the response or in the
// stream. It is spoken here in the few fields that members need, since client-go, without its
// sets of clients and with the informer alone, makes the binary larger by 24% and a cold build
// longer by about as much.
const (
	// listTimeout is how long a list may take.
	listTimeout = 30 * time.Second
	// watchFor is how long the API has a watch last, at most; half of that at least. It is short
	// so that a connection that has died without a word is found even where HTTP/2, whose pings
	// find it before, is not spoken; and so that tokens that were rotated are sent soon.
	watchFor = 90 * time.Second
	// watchGrace is how long a watch may go on after it should have ended.
	watchGrace = 15 * time.Second
	// watchLeast is how long a watch lasts if all is well.
	watchLeast = time.Second
	// settle is how long one waits for more after an event: an endpoint that moves from one
	// slice to another may be in none between two events.
	settle = 100 * time.Millisecond
	// Rests after failures, from the first to the longest; and the longest that the API may ask
	// for.
	firstRest = 250 * time.Millisecond
	longRest  = 10 * time.Second
	maxRest   = time.Minute
)

// kube has the endpoints of a service of Kubernetes.
type kube struct {
	text                     string
	namespace, service, port string
	server, folder           string // of [Cluster]
	dial                     dialer // nil for TCP
}

// String implements [Source].
func (k *kube) String() string { return k.text }

// Watch implements [Source].
func (k *kube) Watch(ctx context.Context, told func(Members)) {
	w := kubeWatch{kube: k, api: newAPI(k), keeper: keeper{source: k.text, told: told}}
	defer w.api.close()
	rest := firstRest
	for ctx.Err() == nil {
		w.lasted = false
		err := w.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if w.lasted {
			rest = firstRest
		}
		if err == nil {
			continue
		}
		w.version = "" // what follows is not known to go on from there
		if !isGone(err) {
			w.keeper.failed(fmt.Errorf("EndpointSlices of %s/%s: %w", k.namespace, k.service, err))
		}
		wait := spread(rest)
		if refused, ok := errors.AsType[*statusError](err); ok {
			wait = max(wait, refused.after)
		}
		sleep(ctx, wait)
		rest = min(2*rest, longRest)
	}
}

// kubeWatch is one call of Watch.
type kubeWatch struct {
	*kube
	api     *api
	keeper  keeper
	slices  map[string]*slice // by name
	version string            // up to which the slices are known; empty before a list
	lasted  bool              // so did the last watch
}

// round lists the slices, unless they are known, and watches until the API ends that.
func (w *kubeWatch) round(ctx context.Context) error {
	if w.version == "" {
		if err := w.list(ctx); err != nil {
			return fmt.Errorf("list: %w", err)
		}
	}
	if err := w.watch(ctx); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}

// list replaces all slices.
func (w *kubeWatch) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list, err := w.api.list(ctx)
	if err != nil {
		return err
	}
	all := map[string]*slice{}
	for i := range list.Items {
		s := &list.Items[i]
		if s.Metadata.Name == "" || all[s.Metadata.Name] != nil {
			return fmt.Errorf("the name %.100q is that of no slice, or of two", s.Metadata.Name)
		}
		all[s.Metadata.Name] = s
	}
	w.slices, w.version = all, list.Metadata.ResourceVersion
	w.tell()
	return nil
}

// tell tells of what is known.
func (w *kubeWatch) tell() {
	list, partly := merge(w.slices, w.port)
	w.keeper.heard(list, partly)
}

// watch follows changes from the version that is known. It returns nil if the API has ended it
// in an orderly way.
func (w *kubeWatch) watch(ctx context.Context) error {
	lasts := spread(watchFor)
	ctx, cancel := context.WithTimeout(ctx, lasts+watchGrace)
	defer cancel()
	err := w.api.watch(ctx, w.version, lasts, func(stream io.Reader) error {
		began, events, ended := time.Now(), make(chan event), make(chan error, 1)
		go func() { ended <- readEvents(ctx, stream, events) }() // follow waits for it
		err := w.follow(cancel, events, ended)
		if w.lasted = time.Since(began) >= watchLeast; !w.lasted && err == nil {
			return errors.New("it ended at once")
		}
		return err
	})
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("it did not end after %s, as it should have: the connection may be dead", lasts)
	}
	return err
}

// follow takes events over until the stream has ended, which it stops after one that cannot be.
// It tells of all that come within a short while at once.
func (w *kubeWatch) follow(stop func(), events <-chan event, ended <-chan error) (err error) {
	w.tell() // the API has taken the watch: what is known is what there is
	var due <-chan time.Time
	for {
		select {
		case e := <-events:
			if err != nil {
				continue
			}
			if err = w.take(e); err != nil {
				stop()
			} else if due == nil {
				due = time.After(settle)
			}
		case <-due:
			due = nil
			w.tell()
		case end := <-ended:
			if due != nil {
				w.tell()
			}
			if err == nil && !errors.Is(end, io.EOF) {
				err = end
			}
			return err
		}
	}
}

// take takes an event over.
func (w *kubeWatch) take(e event) error {
	name, version := e.object.Metadata.Name, e.object.Metadata.ResourceVersion
	if version == "" || name == "" && e.kind != bookmark {
		return fmt.Errorf("an event of type %.20q has no version, or no name", e.kind)
	}
	switch e.kind {
	case added, modified:
		if len(w.slices) >= maxSlices && w.slices[name] == nil {
			return fmt.Errorf("there are more than %d slices", maxSlices)
		}
		w.slices[name] = e.object
	case deleted:
		delete(w.slices, name)
	case bookmark:
	default:
		return fmt.Errorf("an event is of type %.20q, want %s, %s, %s or %s", e.kind, added, modified, deleted, bookmark)
	}
	w.version = version
	return nil
}
