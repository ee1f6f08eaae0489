package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// usageError marks a command line that cannot be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// flagError says of a flag what its value should have been, and where the flags are listed, in place of what the parser of numbers says.
func flagError(cmd *cobra.Command, err error) error {
	var number *strconv.NumError
	text := err.Error()
	switch {
	case errors.As(err, &number):
		what, ok := map[string]string{"ParseUint": "a whole number from 0", "ParseFloat": "a number", "ParseBool": "true or false"}[number.Func]
		if !ok {
			what = "a whole number"
		}
		text, _, _ = strings.Cut(text, ": strconv.")
		err = fmt.Errorf("%s: give %s", text, what)
	case strings.HasPrefix(text, "unknown "):
		err = fmt.Errorf("%s; '%s --help' lists those that there are", text, cmd.CommandPath())
	}
	return usageError{err}
}

// recipeInPlaceOfVerb tells who is used to Python's mergekit-yaml that a verb comes before the recipe.
func recipeInPlaceOfVerb(err error, args []string) error {
	if !strings.HasPrefix(err.Error(), "unknown command") {
		return err
	}
	for _, a := range args[1:] {
		if !strings.HasPrefix(a, "-") {
			if strings.HasSuffix(a, ".yml") || strings.HasSuffix(a, ".yaml") {
				return usageError{fmt.Errorf("%q is no verb; to merge by it: mergekit merge %s OUT", a, a)}
			}
			break
		}
	}
	return err
}

// exactly is cobra.ExactArgs with an error that maps to the status for bad command lines.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return wrongCount(cmd, what, args)
		}
		return nil
	}
}

func wrongCount(cmd *cobra.Command, what string, args []string) error {
	plural := "s"
	if len(args) == 1 {
		plural = ""
	}
	return usageError{fmt.Errorf("%s takes %s; got %d argument%s", cmd.CommandPath(), what, len(args), plural)}
}

// checkThreads refuses a number of threads that is none.
func checkThreads(n int) error {
	if n < 0 {
		return usageError{fmt.Errorf("--threads %d: give a positive number, or 0 for all cores", n)}
	}
	return nil
}

// gathers makes a command that does nothing but hold verbs show them, and refuse what is none of them.
func gathers(cmd *cobra.Command) *cobra.Command {
	verbs := func() string {
		var names []string
		for _, c := range cmd.Commands() {
			names = append(names, c.Name())
		}
		slices.Sort(names)
		last := len(names) - 1
		return strings.Join(names[:last], ", ") + " and " + names[last]
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("%s: unknown verb %q; there are %s", cmd.CommandPath(), args[0], verbs())}
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if jsonWanted(cmd) {
			return usageError{fmt.Errorf("%s: name a verb; there are %s", cmd.CommandPath(), verbs())}
		}
		return cmd.Help()
	}
	return cmd
}

// badPath reports whether an error is about a path that the command line or a file names: nothing is there, something else is, or it is
// not allowed. What the disk itself does wrong is a failure.
func badPath(err error) bool {
	for _, e := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.ENOTDIR, syscall.EISDIR, syscall.EROFS, syscall.ENAMETOOLONG, syscall.ELOOP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
