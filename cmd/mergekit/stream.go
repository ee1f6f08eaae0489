package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/tensors"
)

// streamOptions are the flags of the verbs that can read weights where they are.
type streamOptions struct {
	on   bool
	room string

	mu       sync.Mutex
	streamer *hub.Streamer // nil until a model of a hub is named
}

func (o *streamOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.on, "stream", false, "read weights of a hub's models in ranges where they are, instead of downloading them first; they are verified before the output appears")
	f.StringVar(&o.room, "stream-cache", "4GiB", "with --stream: how much of what was read is kept on disk for the next pass over a tensor")
}

// fetch is how models come for a command. close must be called in the end.
func (o *streamOptions) fetch(cmd *cobra.Command) (plan.Fetch, error) {
	room, err := parseSize("--stream-cache", o.room)
	if err != nil || !o.on {
		return fetcher(cmd), err
	}
	return func(path, revision string, weights bool) (string, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.streamer == nil {
			c, err := hub.New(hubSettings(cmd))
			if err != nil {
				return "", err
			}
			if o.streamer, err = c.NewStreamer(func(path string, r hub.Remote) func() { return tensors.Mount(path, r) }, room); err != nil {
				return "", err
			}
		}
		return o.streamer.Find(cmd.Context(), path, revision, weights)
	}, nil
}

// settle verifies what was read. nil when nothing is read where it is.
func (o *streamOptions) settle() func(context.Context) error {
	if !o.on {
		return nil
	}
	return func(ctx context.Context) error {
		if o.streamer == nil {
			return nil
		}
		return o.streamer.Verify(ctx)
	}
}

// close lets go of what was opened, and says how much came.
func (o *streamOptions) close(cmd *cobra.Command) {
	if o.streamer == nil {
		return
	}
	if !quietWanted(cmd) && !jsonWanted(cmd) && o.streamer.Promised() > 0 {
		fmt.Fprintf(os.Stderr, "read %s of %s of weights where they are\n", bytesText(o.streamer.Received()), bytesText(o.streamer.Promised()))
	}
	_ = o.streamer.Close()
}
