package preview

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Colours of a terminal: what is learnt is green, the rest dim.
const (
	green = "\x1b[32m"
	dim   = "\x1b[2m"
	reset = "\x1b[0m"
)

// Write prints the preview for people. With colour, what is learnt is green; without, it stands between ⟦ and ⟧.
func (p *Preview) Write(w io.Writer, colour bool) error {
	b := &strings.Builder{}
	for i := range p.Rows {
		p.Rows[i].write(b, colour)
	}
	p.summary(b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Row) write(b *strings.Builder, colour bool) {
	fmt.Fprintf(b, "── %s:%d  %d tokens, %d learnt", r.File, r.Line, r.Tokens, r.Learnt)
	for _, f := range []struct{ name, value string }{{"domain", r.Domain}, {"id", r.ID}, {"label", r.Label}} {
		if f.value != "" {
			fmt.Fprintf(b, ", %s %s", f.name, plain(f.value, false))
		}
	}
	if r.Weight != 1 {
		fmt.Fprintf(b, ", weight %g", r.Weight)
	}
	if r.Truncated {
		b.WriteString(", truncated")
	}
	b.WriteByte('\n')
	for _, part := range r.Parts {
		text := plain(part.Text, colour)
		if part.Text == "" && part.Tokens > 0 {
			text = strings.Trim(fmt.Sprint(part.IDs), "[]") + " " // no tokenizer: the ids themselves
		}
		switch {
		case colour && part.Learnt:
			b.WriteString(green + strings.ReplaceAll(text, "\n", reset+"\n"+green) + reset)
		case colour:
			b.WriteString(dim + strings.ReplaceAll(text, "\n", reset+"\n"+dim) + reset)
		case part.Learnt:
			b.WriteString("⟦" + text + "⟧")
		default:
			b.WriteString(text)
		}
	}
	b.WriteString("\n\n")
}

// plain makes text safe to print: control characters of rows must not reach the terminal. With marks, line ends can be seen.
func plain(s string, marks bool) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' && marks:
			b.WriteString("↵\n")
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			fmt.Fprintf(&b, "<%04X>", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (p *Preview) summary(b *strings.Builder) {
	r := &p.Report
	for _, f := range r.Files {
		fmt.Fprintf(b, "%s: %d rows of %s", f.Path, f.Rows, f.Format)
		if f.Skipped > 0 {
			fmt.Fprintf(b, ", %d skipped", f.Skipped)
		}
		b.WriteByte('\n')
	}
	if p.Template != "" {
		fmt.Fprintf(b, "chat template: %s\n", p.Template)
	}
	if len(p.Labels) > 0 {
		fmt.Fprintf(b, "classes: %s\n", plain(strings.Join(p.Labels, ", "), false))
	}
	share := 0.0
	if r.Tokens > 0 {
		share = 100 * float64(r.TrainedTokens) / float64(r.Tokens)
	}
	fmt.Fprintf(b, "%d rows, %d tokens, %d learnt (%.1f %%)", r.Rows, r.Tokens, r.TrainedTokens, share)
	for _, f := range []struct {
		n    int
		what string
	}{{r.Skipped, "skipped"}, {r.Truncated, "truncated"}, {r.Dropped, "dropped as too long"}, {r.Untrained, "left out as nothing learnt is left"}} {
		if f.n > 0 {
			fmt.Fprintf(b, ", %d %s", f.n, f.what)
		}
	}
	l := p.Lengths
	fmt.Fprintf(b, "\ntokens of a row: shortest %d, median %d, 90 %% up to %d, 99 %% up to %d, longest %d", l.Shortest, l.Median, l.P90, l.P99, l.Longest)
	if r.Longest > l.Longest {
		fmt.Fprintf(b, " (before truncation %d)", r.Longest)
	}
	fmt.Fprintf(b, "\n\nBATCH          BATCHES  SEQUENCES    TOKENS  PADDING\n")
	for _, s := range p.Shapes {
		room := int64(s.Batches) * int64(s.Rows) * int64(s.Length)
		padding := 0.0
		if room > 0 {
			padding = 100 * (1 - float64(s.Tokens)/float64(room))
		}
		fmt.Fprintf(b, "%-13s %8d %10d %9d %6.1f %%\n", fmt.Sprintf("%d x %d", s.Rows, s.Length), s.Batches, s.Sequences, s.Tokens, padding)
	}
	fmt.Fprintf(b, "packing %s, %d steps an epoch, %.1f %% padding\n", p.Packing, p.Steps, 100*p.Padding)
	for _, w := range r.Warnings {
		fmt.Fprintf(b, "warning: %s\n", w)
	}
}
