package tokenizer

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mergekit/mergekit/text/tokenizer/internal/pattern"
)

// decoder turns tokens back into text, step by step: the strings of the last step are joined.
type decoder interface {
	decode(tokens []string) []string
}

type (
	decoders         []decoder // Sequence
	byteLevelDecoder struct{}
	byteFallback     struct{}
	fuse             struct{}
	metaspaceDecoder struct {
		replacement rune
		keepFirst   bool
	}
	wordPieceDecoder struct {
		prefix  string
		cleanup bool
	}
	bpeDecoder     struct{ suffix string }
	replaceDecoder struct {
		pattern *pattern.Pattern
		content string
	}
	stripDecoder struct {
		content     rune
		start, stop int
	}
)

func (l decoders) decode(tokens []string) []string {
	for _, d := range l {
		tokens = d.decode(tokens)
	}
	return tokens
}

func (byteLevelDecoder) decode(tokens []string) []string {
	var b []byte
	for _, t := range tokens {
		var ok bool
		if b, ok = appendBytes(b, t); !ok {
			b = append(b, t...) // an added token
		}
	}
	return []string{lossy(b)}
}

func (byteFallback) decode(tokens []string) []string {
	var out []string
	var bytes []byte
	flush := func() {
		if utf8.Valid(bytes) {
			if len(bytes) > 0 {
				out = append(out, string(bytes))
			}
		} else {
			for range bytes {
				out = append(out, string(utf8.RuneError))
			}
		}
		bytes = bytes[:0]
	}
	for _, t := range tokens {
		if len(t) == 6 && strings.HasPrefix(t, "<0x") && t[5] == '>' {
			if b, err := strconv.ParseUint(t[3:5], 16, 8); err == nil {
				bytes = append(bytes, byte(b))
				continue
			}
		}
		flush()
		out = append(out, t)
	}
	flush()
	return out
}

func (fuse) decode(tokens []string) []string { return []string{strings.Join(tokens, "")} }

func (d metaspaceDecoder) decode(tokens []string) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		space := " "
		if i == 0 && !d.keepFirst {
			space = ""
		}
		out[i] = strings.ReplaceAll(t, string(d.replacement), space)
	}
	return out
}

// cleanup undoes the spaces of BERT's splitting, as far as English goes.
func cleanup(s string) string {
	for _, r := range [][2]string{
		{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"},
		{" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
	} {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

func (d wordPieceDecoder) decode(tokens []string) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		if i > 0 {
			rest, ok := strings.CutPrefix(t, d.prefix)
			if !ok {
				rest = " " + t
			}
			t = rest
		}
		if d.cleanup {
			t = cleanup(t)
		}
		out[i] = t
	}
	return out
}

func (d bpeDecoder) decode(tokens []string) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		space := " "
		if i == len(tokens)-1 {
			space = ""
		}
		out[i] = strings.ReplaceAll(t, d.suffix, space)
	}
	return out
}

// decode leaves a token as it is if the search in it was given up.
func (d replaceDecoder) decode(tokens []string) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		out[i] = t
		if t == "" {
			continue
		}
		var b strings.Builder
		last := 0
		err := d.pattern.Each(t, func(start, end int) bool {
			b.WriteString(t[last:start])
			b.WriteString(d.content)
			last = end
			return true
		})
		if err == nil {
			out[i] = b.String() + t[last:]
		}
	}
	return out
}

func (d stripDecoder) decode(tokens []string) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		content := string(d.content)
		for n := 0; n < d.start; n++ {
			rest, ok := strings.CutPrefix(t, content)
			if !ok {
				break
			}
			t = rest
		}
		for n := 0; n < d.stop; n++ {
			rest, ok := strings.CutSuffix(t, content)
			if !ok {
				break
			}
			t = rest
		}
		out[i] = t
	}
	return out
}
