package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/hub"
)

func newDownloadCommand() *cobra.Command {
	var want hub.Want
	var revision, endpoint string
	var connections int
	cmd := &cobra.Command{
		Use:   "download NAME...",
		Short: "Bring models from a hub or an object store into the cache",
		Long: `download brings org/name, org/name@revision or hf://org/name/directory into the cache that Hugging Face's own tools use, and
prints the directory of the snapshot. Other verbs download by themselves what they are given; this one is for doing it before, where
there is a network, and for looking for a newer commit.

What comes is what a merge needs: configuration, tokenizer, chat template, model card, and one set of weights (safetensors before
pickles before GGUF). Large files come in segments on several connections. After a dropped connection or a kill the same command goes
on with what has been received. Nothing counts as downloaded before its size and hash are those of the hub's listing.

s3://bucket/directory, gs://bucket/directory and az://container/directory are places in object stores, with the credentials of their usual
variables (AWS_ACCESS_KEY_ID, ...).

HF_TOKEN (or the file that 'hf auth login' writes) opens private and gated repositories, HF_ENDPOINT names another hub.

EXIT STATUS
  0 done, 1 the transfer failed, 2 no such repository, no access, or bad command line, 130 interrupted (the same command goes on)`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s takes names of repositories, such as org/name", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, a := range args {
				if _, err := hub.ParseName(a, revision); err != nil && !hub.IsBucket(a) {
					return err
				}
			}
			s := hubSettings(cmd)
			if endpoint != "" {
				s.Endpoint = endpoint
			}
			if connections < 0 {
				return usageError{fmt.Errorf("--connections %d: give a positive number, or 0 for %d", connections, hub.DefaultConnections)}
			}
			s.Connections = connections
			return runDownload(cmd, args, revision, want, s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&revision, "revision", "", "branch, tag or commit of names that have none after an \"@\"")
	f.StringVar(&endpoint, "endpoint", "", "address of the hub, in place of HF_ENDPOINT")
	f.BoolVar(&want.All, "all", false, "bring every file of the repository")
	f.StringArrayVar(&want.Include, "include", nil, "bring the files that match this pattern, and no others (repeatable)")
	f.StringArrayVar(&want.Exclude, "exclude", nil, "leave files out that match this pattern (repeatable)")
	f.BoolVar(&want.Verify, "verify", false, "also read what is in the cache already and compare it with the hub's hashes")
	f.IntVar(&connections, "connections", 0, fmt.Sprintf("requests that are under way at once; 0: %d", hub.DefaultConnections))
	return cmd
}

func runDownload(cmd *cobra.Command, names []string, revision string, want hub.Want, s hub.Settings) error {
	c, err := hub.New(s)
	if err != nil {
		return err
	}
	for _, n := range names {
		snapshot, err := c.Bring(cmd.Context(), n, revision, want)
		if err != nil {
			return err
		}
		if jsonWanted(cmd) {
			writeJSON(os.Stdout, struct {
				Event string `json:"event"`
				*hub.Snapshot
				Files int `json:"files"`
			}{"done", snapshot, len(snapshot.Files)})
			continue
		}
		if !quietWanted(cmd) {
			what := fmt.Sprintf("%d files, %s", len(snapshot.Files), bytesText(snapshot.Bytes))
			if len(snapshot.Files) == 0 {
				what = "as it is in the cache"
			}
			fmt.Fprintf(os.Stderr, "%s: %s, %s received\n", n, what, bytesText(snapshot.Fetched))
		}
		fmt.Println(snapshot.Dir)
	}
	return nil
}
