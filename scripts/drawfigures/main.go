// Command drawfigures measures trained networks with mergekit, draws the figures of docs/linear-connectivity.md and writes their tables
// into it, for scripts/figures. A figure is a part in a file of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/report"
)

// part is a section of the page: a figure with its tables.
type part struct {
	name string
	make func(ctx context.Context, j *job) (*section, error)
}

// parts in the order of the page.
var parts = []part{
	{"width", width},
	{"methods", methods},
	{"models", manyModels},
	{"vectors", vectors},
	{"pleas", pleas},
	{"llama", llama},
	{"gates", gates},
}

// section is what a part gives.
type section struct {
	figure *report.Figure // nil: tables alone
	alt    string         // what the figure shows, for those who do not see it
	tables []report.Table
}

// job says where things are.
type job struct {
	pairs, work, program, backend string
	figures, page                 string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var j job
	flag.StringVar(&j.pairs, "pairs", "build/pairs", "what scripts/train-pairs has made")
	flag.StringVar(&j.work, "work", "build/figures", "where measurements are kept")
	flag.StringVar(&j.program, "program", "bin/mergekit", "the program")
	flag.StringVar(&j.backend, "backend", "auto", "where networks are computed")
	flag.StringVar(&j.figures, "figures", "docs/figures", "where drawings go")
	flag.StringVar(&j.page, "page", "docs/linear-connectivity.md", "the page")
	flag.Parse()
	wanted := flag.Args()
	if slices.Equal(wanted, []string{"list"}) {
		for _, p := range parts {
			fmt.Println(p.name)
		}
		return nil
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q; 'scripts/figures list' names them", name)
		}
	}
	if err := errors.Join(os.MkdirAll(j.figures, 0o777), os.MkdirAll(j.work, 0o777)); err != nil {
		return err
	}
	for _, p := range parts {
		if len(wanted) > 0 && !slices.Contains(wanted, p.name) {
			continue
		}
		s, err := p.make(ctx, &j)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := j.publish(p.name, s); err != nil {
			return err
		}
	}
	return nil
}

// publish writes the drawings, and figure and tables into the page between the part's marks.
func (j *job) publish(name string, s *section) error {
	var b strings.Builder
	if s.figure != nil {
		// The page shows the drawing; the image is for elsewhere.
		if err := errors.Join(report.Save(filepath.Join(j.figures, name+".svg"), s.figure.SVG), report.Save(filepath.Join(j.work, name+".png"), s.figure.PNG)); err != nil {
			return err
		}
		fmt.Fprintf(&b, "![%s](figures/%s.svg)\n", s.alt, name)
		fmt.Println(filepath.Join(j.figures, name+".svg"))
	}
	for i := range s.tables {
		t := &s.tables[i]
		fmt.Fprintf(&b, "\n**%s.** %s\n\n", t.Title, t.Note)
		if err := t.Markdown(&b); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(j.page)
	if err != nil {
		return err
	}
	open, shut := "<!-- figure "+name+" -->\n", "<!-- end "+name+" -->"
	from, to := strings.Index(string(text), open), strings.Index(string(text), shut)
	if from < 0 || to < from {
		return fmt.Errorf("%s: has no lines %q and %q between which the figure goes", j.page, strings.TrimSpace(open), shut)
	}
	out := string(text[:from+len(open)]) + "\n" + strings.TrimLeft(b.String(), "\n") + "\n" + string(text[to:])
	return os.WriteFile(j.page, []byte(out), 0o666)
}
