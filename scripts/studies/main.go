// Command studies measures what merges are worth, for scripts/soup-study, scripts/multitask-study and scripts/graft-study: it merges and
// scores in one process what scripts/train-finetunes has trained, and writes its tables into the pages of docs between marks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/recipe"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// study is a run of one of the studies.
type study struct {
	ctx       context.Context
	from      string // what scripts/train-finetunes has made
	work      string // merges and what was measured
	program   string // mergekit, for what is measured by its verbs
	merger    compute.Backend
	networks  compute.Backend
	judges    map[string]*evaluation.Judge
	merges    int
	evaluated int
}

// studies by name, each with its page.
var studies = map[string]struct {
	page string
	make func(s *study) (map[string][]report.Table, error) // tables by the mark that they stand behind
}{
	"soup":      {"docs/soup-study.md", soups},
	"multitask": {"docs/multitask.md", multitask},
	"graft":     {"docs/grafts.md", grafts},
}

func run(ctx context.Context) error {
	s := &study{ctx: ctx, judges: map[string]*evaluation.Judge{}}
	which := flag.String("study", "", "soup, multitask or graft")
	page := flag.String("page", "", "the page that gets the tables (default: the study's own)")
	where := flag.String("backend", "auto", "where networks are computed")
	flag.StringVar(&s.from, "from", "build/finetunes", "what scripts/train-finetunes has made")
	flag.StringVar(&s.work, "work", "build/studies", "where merges are kept")
	flag.StringVar(&s.program, "program", "bin/mergekit", "the program")
	flag.Parse()
	what, ok := studies[*which]
	if !ok {
		return fmt.Errorf("there is no study %q", *which)
	}
	if *page == "" {
		*page = what.page
	}
	if err := os.MkdirAll(s.work, 0o777); err != nil {
		return err
	}
	var err error
	if s.merger, _, err = backend.Open("go"); err != nil {
		return err
	}
	defer s.merger.Finalize()
	var status backend.Status
	if s.networks, status, err = backend.OpenModel(*where); err != nil {
		return err
	}
	defer s.networks.Finalize()
	fmt.Fprintf(os.Stderr, "networks are computed by %s\n", status.Kind)
	tables, err := what.make(s)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d merges, %d scores\n", s.merges, s.evaluated)
	return publish(*page, tables)
}

// merged runs a recipe and returns the output's directory. What was merged before is there already.
func (s *study) merged(name, text string) (string, *merge.Summary, error) {
	dir := filepath.Join(s.work, name)
	r, err := recipe.Parse(name+".yml", []byte(text))
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w\n%s", name, err, text)
	}
	s.merges++
	sum, err := merge.RunRecipe(s.ctx, r, dir, merge.Options{Backend: s.merger, Force: true,
		ModelBackend: func() (compute.Backend, func(), error) { return s.networks, func() {}, nil }})
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w\n%s", name, err, text)
	}
	return dir, sum, nil
}

// publish writes tables into a page, each list between the marks of its name.
func publish(page string, tables map[string][]report.Table) error {
	data, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text := string(data)
	for name, list := range tables {
		open, shut := "<!-- table "+name+" -->\n", "<!-- end "+name+" -->"
		from, to := strings.Index(text, open), strings.Index(text, shut)
		if from < 0 || to < from {
			return fmt.Errorf("%s: has no lines %q and %q between which the tables go", page, strings.TrimSpace(open), shut)
		}
		var b strings.Builder
		for i := range list {
			if list[i].Title != "" {
				fmt.Fprintf(&b, "\n**%s.** %s\n", list[i].Title, list[i].Note)
			}
			b.WriteString("\n")
			if err := list[i].Markdown(&b); err != nil {
				return err
			}
		}
		text = text[:from+len(open)] + b.String() + "\n" + text[to:]
	}
	return errors.Join(os.WriteFile(page, []byte(text), 0o666))
}
