package foreign

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/mergekit/mergekit/finetune/config"
)

// write renders our settings in the order of our sections, below a head of what was dropped and what is to be done.
func (c *converter) write(file string, r *Result) []byte {
	var b strings.Builder
	comment := func(format string, args ...any) {
		// A line break in a foreign key must not end the comment.
		b.WriteString("# " + strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ") + "\n")
	}
	comment("Converted from %s, a configuration of %s.", printable(file), c.tool.Name)
	for _, n := range r.Notes {
		comment("Note: %s", printable(n))
	}
	if len(r.Dropped) > 0 {
		comment("Not converted:")
		for _, d := range r.Dropped {
			comment("- %s (line %d): %s", printable(d.Key), d.Line, printable(d.Why))
		}
	}
	b.WriteString("version: 1\n")
	c.section(&b, reflect.TypeFor[config.Config](), "", 0)
	return []byte(b.String())
}

// printable keeps a comment a comment: YAML refuses characters that cannot be seen, there too.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0xfffe && r <= 0xffff || r == 0xfeff {
			return ' '
		}
		return r
	}, s)
}

// section writes what is set below a path.
func (c *converter) section(b *strings.Builder, t reflect.Type, path string, depth int) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		at := name
		if path != "" {
			at = path + "." + name
		}
		indent := strings.Repeat("  ", depth)
		if s, ok := c.ours[at]; ok {
			b.WriteString(indent + name + ": " + s.text)
			if s.comment != "" {
				b.WriteString(" # " + s.comment)
			}
			b.WriteByte('\n')
			continue
		}
		if f.Type.Kind() != reflect.Struct {
			continue
		}
		below := false
		for key := range c.ours {
			below = below || strings.HasPrefix(key, at+".")
		}
		if below {
			b.WriteString(indent + name + ":\n")
			c.section(b, f.Type, at, depth+1)
		}
	}
}
