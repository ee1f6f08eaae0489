package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/hub"
)

func newPushCommand() *cobra.Command {
	var o hub.PushOptions
	var endpoint string
	cmd := &cobra.Command{
		Use:   "push DIR NAME",
		Short: "Upload a merge, an adapter or any model to a hub or an object store",
		Long: `push makes the repository NAME (org/name, or org/name@branch) of a hub hold the files of DIR: the weights, the configuration, the tokenizer
and README.md as the model card. The repository comes to be if it does not exist. Large files go to the hub's store, several at a time; one
commit at the end names everything, so that nobody sees a half of it. Files that the repository has like this already are not sent, and a push
that was interrupted goes on after the large files that had arrived. At the end the hub's listing is compared with DIR.

NAME may be s3://bucket/directory, gs://bucket/directory or az://container/directory: weights come first, configuration and index last.

HF_TOKEN (or the file that 'hf auth login' writes) must be a token that may write.

EXIT STATUS
  0 done, 1 the transfer failed, 2 no access, a directory that is not whole, or bad command line, 130 interrupted (the same command goes on)`,
		Args: exactly(2, "a directory and a name such as org/name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := hubSettings(cmd)
			if endpoint != "" {
				s.Endpoint = endpoint
			}
			return runPush(cmd, args[0], args[1], o, s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&endpoint, "endpoint", "", "address of the hub, in place of HF_ENDPOINT")
	f.StringVarP(&o.Message, "message", "m", "", "message of the commit")
	f.BoolVar(&o.Private, "private", false, "a repository that comes to be is private")
	f.BoolVar(&o.Request, "pull-request", false, "open a pull request instead of changing the branch")
	f.BoolVar(&o.Replace, "replace", false, "remove files of the repository that DIR does not have")
	f.StringArrayVar(&o.Include, "include", nil, "push the files that match this pattern, and no others (repeatable)")
	f.StringArrayVar(&o.Exclude, "exclude", nil, "leave files out that match this pattern (repeatable)")
	return cmd
}

func runPush(cmd *cobra.Command, dir, to string, o hub.PushOptions, s hub.Settings) error {
	n, err := hub.ParseName(to, "")
	switch {
	case hub.IsBucket(to):
		if o.Request || o.Private || o.Replace || o.Message != "" {
			return usageError{fmt.Errorf("%s: object stores have no commits; leave out --message, --private, --pull-request and --replace", to)}
		}
	case err != nil:
		return err
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return usageError{fmt.Errorf("%s: is no directory; name the one that holds what is to be pushed", dir)}
	}
	c, err := hub.New(s)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "README.md")); err != nil && len(o.Include) == 0 {
		warn(cmd, dir+": has no README.md, so that the repository has no model card")
	}
	var p *hub.Pushed
	if hub.IsBucket(to) {
		p, err = c.PushObjects(cmd.Context(), dir, to, o)
	} else {
		p, err = c.Push(cmd.Context(), dir, n, o)
	}
	if err != nil {
		return err
	}
	switch {
	case jsonWanted(cmd):
		writeDone(p)
	case quietWanted(cmd):
	case p.Changed+p.Removed == 0:
		fmt.Printf("%s: has these %d files already\n", p.URL, p.Files)
	default:
		fmt.Printf("%s: %d of %d files changed, %s sent", p.URL, p.Changed, p.Files, bytesText(p.Uploaded))
		if p.Commit != "" {
			fmt.Printf("; commit %s", p.Commit)
		}
		fmt.Println()
		if p.Removed > 0 {
			fmt.Printf("  %d files removed\n", p.Removed)
		}
		if p.Request != "" {
			fmt.Printf("  pull request: %s\n", p.Request)
		}
	}
	return nil
}
