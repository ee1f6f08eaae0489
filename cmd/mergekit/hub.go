package main

import (
	"os"
	"runtime"
	"sync"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/internal/progress"
	"github.com/mergekit/mergekit/merge/plan"
)

// registerHub adds the flags about models that are not on this machine; every verb that takes a model has them.
func registerHub(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.Bool("offline", false, "ask no hub: models come from directories and from the cache (also HF_HUB_OFFLINE=1)")
	f.String("transformers-cache", "", "directory of downloaded models, in the layout of Hugging Face's tools (default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub)")
}

// hubSettings are the environment's, with a command's flags and its display.
func hubSettings(cmd *cobra.Command) hub.Settings {
	s := hub.FromEnvironment()
	if off, err := cmd.Flags().GetBool("offline"); err == nil && off {
		s.Offline = true
	}
	if dir, err := cmd.Flags().GetString("transformers-cache"); err == nil && dir != "" {
		if s.Cache != "" {
			s.More = append([]string{s.Cache}, s.More...)
		}
		s.Cache = dir
	}
	s.Agent = "mergekit/" + version + " (" + runtime.GOOS + "; " + runtime.GOARCH + ")"
	s.Warn = func(m string) { warn(cmd, m) }
	var mu sync.Mutex
	var bar *progress.Progress
	s.Started = func(what string, total int64) {
		mu.Lock()
		defer mu.Unlock()
		bar = newProgress(cmd, total, what)
	}
	s.Moved = func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		bar.Add(n)
	}
	s.Finished = func() {
		mu.Lock()
		defer mu.Unlock()
		bar.Done()
	}
	return s
}

// fetcher brings models that references name from a hub, for a command, with its progress.
func fetcher(cmd *cobra.Command) plan.Fetch {
	return func(path, revision string, weights bool) (string, error) {
		c, err := hub.New(hubSettings(cmd))
		if err != nil {
			return "", err
		}
		return c.Find(cmd.Context(), path, revision, weights)
	}
}

// bring replaces names of models on a hub by their directories on this machine. A path stays as it is if something is there, or if it
// has not the form of a name; what opens it then says what is wrong with it.
func bring(cmd *cobra.Command, paths ...*string) error { return bringBy(fetcher(cmd), true, paths...) }

// bringText is bring for verbs that need the tokenizer and no weights.
func bringText(cmd *cobra.Command, paths ...*string) error {
	return bringBy(fetcher(cmd), false, paths...)
}

func bringBy(fetch plan.Fetch, weights bool, paths ...*string) error {
	for _, p := range paths {
		if _, err := os.Stat(*p); err == nil {
			if *p, err = checkpoint.Directory(*p); err != nil {
				return err
			}
			continue
		}
		path, revision := *p, ""
		if !hub.IsBucket(path) {
			n, err := hub.ParseName(path, "")
			if err != nil {
				continue
			}
			path, revision = n.Path(), n.Revision
		}
		dir, err := fetch(path, revision, weights)
		if err == nil {
			*p, err = checkpoint.Directory(dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// loadFinetuning reads a fine-tuning file and brings the models that it names.
func loadFinetuning(cmd *cobra.Command, path string, sets []string) (*config.Config, error) {
	cfg, err := config.Load(path, sets)
	if err != nil {
		return nil, err
	}
	return cfg, bring(cmd, &cfg.Model.Base, &cfg.Model.AdapterIn)
}
