package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/ui"
)

// uiOptions are the flags of the ui command.
type uiOptions struct {
	planOptions
	port                          int
	noBrowser                     bool
	backend, maxMemory, shardSize string
	threads                       int
	hash                          bool
}

func newUICommand() *cobra.Command {
	var o uiOptions
	cmd := &cobra.Command{
		Use:   "ui [DIR]",
		Short: "Serve a page to work in: open checkpoints, write recipes, run them, see reports",
		Long: `ui serves a web page for the directory DIR (default: the working directory) and opens it in a browser. The page shows checkpoints,
their tensors and differences, checks recipes as they are written, runs them, and shows reports.

The server listens on the loopback address alone, and answers only to who has opened the address that it prints: other sites in the same
browser, and other users of the machine, are refused. The page asks no network for anything. What is below DIR may be opened, and the models
that recipes name; nothing else is.

Ctrl-C ends it. A merge that is under way is interrupted as by Ctrl-C, and can be resumed.

EXIT STATUS
  0 ended by Ctrl-C, 1 failed, 2 bad command line, 130 a merge was interrupted`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%s takes one directory at most; got %d arguments", cmd.CommandPath(), len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return runUI(cmd, dir, &o)
		},
	}
	o.register(cmd)
	f := cmd.Flags()
	f.IntVar(&o.port, "port", 0, "port of the loopback address; 0: any that is free")
	f.BoolVar(&o.noBrowser, "no-browser", false, "print the address and open no browser")
	f.StringVar(&o.backend, "backend", "auto", "where graphs run: auto, go, gomlx, xla:cpu, xla:cuda or the path of a PJRT plugin")
	f.IntVar(&o.threads, "threads", 0, "worker threads; 0: all cores")
	f.StringVar(&o.maxMemory, "max-memory", "", "bound on anonymous memory of a merge, for example 512MiB (default: 2GiB or a quarter of the machine's, whichever is less)")
	f.StringVar(&o.shardSize, "shard-size", "5GB", "largest shard, for example 500MB or 2GiB; 0: one file")
	f.BoolVar(&o.hash, "hash", false, "put the SHA-256 of all inputs and of the weights into mergekit_provenance.json (reads them once more)")
	return cmd
}

func runUI(cmd *cobra.Command, dir string, o *uiOptions) error {
	if o.port < 0 || o.port > 65535 {
		return usageError{fmt.Errorf("--port %d: give a number up to 65535, or 0 for any port that is free", o.port)}
	}
	mo := mergeOptions{planOptions: o.planOptions, backend: o.backend, threads: o.threads, maxMemory: o.maxMemory, shardSize: o.shardSize, hash: o.hash}
	m, err := mo.options(cmd)
	if err != nil {
		return err
	}
	b, status, err := backend.Open(o.backend)
	if err != nil {
		return usageError{err}
	}
	defer b.Finalize()
	m.Backend, m.ModelBackend = b, modelBackend(o.backend)
	s, err := ui.Listen(o.port, ui.Options{Dir: dir, Merge: m, Say: sayOnPage(cmd), Fetch: fetchForPage(cmd), Cached: cachedOnly(cmd)})
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, map[string]any{"event": "listening", "url": s.URL(), "dir": s.Dir(), "backend": status.Kind})
	} else {
		fmt.Println(s.URL())
		if !quietWanted(cmd) {
			fmt.Fprintf(os.Stderr, "backend %s: %s\nserving %s; Ctrl-C ends\n", status.Kind, status.Detail, s.Dir())
		}
	}
	if !o.noBrowser {
		if err := openBrowser(s.Launch()); err != nil && !quietWanted(cmd) {
			warn(cmd, "no browser could be opened ("+err.Error()+"); open the address")
		}
	}
	interrupted, err := s.Serve(cmd.Context())
	if interrupted {
		return fmt.Errorf("the merge of the page was interrupted: %w", context.Canceled)
	}
	return err
}

// sayOnPage tells in the terminal how runs of the page ended.
func sayOnPage(cmd *cobra.Command) func(string) {
	return func(m string) {
		switch {
		case jsonWanted(cmd):
			writeJSON(os.Stdout, map[string]any{"event": "run", "message": m})
		case !quietWanted(cmd):
			fmt.Fprintln(os.Stderr, m)
		}
	}
}

// fetchForPage brings models for a run of the page, which shows how far it is.
func fetchForPage(cmd *cobra.Command) func(context.Context, ui.Fetching) plan.Fetch {
	return func(ctx context.Context, tell ui.Fetching) plan.Fetch {
		s := hubSettings(cmd)
		s.Started, s.Moved, s.Finished = tell.Started, tell.Moved, func() {}
		return func(path, revision string, weights bool) (string, error) {
			c, err := hub.New(s)
			if err != nil {
				return "", err
			}
			return c.Find(ctx, path, revision, weights)
		}
	}
}

// cachedOnly finds models that were brought before.
func cachedOnly(cmd *cobra.Command) plan.Fetch {
	s := hubSettings(cmd)
	s.Offline, s.Warn = true, func(string) {}
	s.Started, s.Moved, s.Finished = func(string, int64) {}, func(int64) {}, func() {}
	return func(path, revision string, weights bool) (string, error) {
		c, err := hub.New(s)
		if err != nil {
			return "", err
		}
		return c.Find(cmd.Context(), path, revision, weights)
	}
}

// openBrowser opens an address as the system does.
func openBrowser(address string) error {
	name, args := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	default:
		if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
			return errors.New("there is no display")
		}
	}
	c := exec.Command(name, args...)
	if err := c.Start(); err != nil {
		return err
	}
	go func() { _ = c.Wait() }() // what becomes of the browser is not this program's business
	return nil
}
