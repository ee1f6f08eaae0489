package pattern

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// FuzzPattern feeds hostile patterns and texts: an error or matches in order, no panic, no endless search. Where another engine
// with the same meaning of a plain subset reads the pattern, it must find the same matches.
func FuzzPattern(f *testing.F) {
	for _, c := range []string{
		`'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, `(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}`, `[^(\s|[.,!?])]+`, `(?>a+)b|(?<=x|yz)\w`,
		`(a|b)*?c{2,3}`, `[\p{Lu}&&[^A-C]]+`, `(?x: a b # c` + "\n)", `\x{41}|\u0042|\h`, `^a$|\bb\B`, `((((a?)?)?)?)`, `(?:a+)+$`, `a{0,3}{2}`, `[]`, `(?:`, `\p{`, `[a-`, `x{1001}`,
	} {
		f.Add(c, "aab 12 'S xyzAB\n ccc\r\n")
	}
	plain := "abcdxyz|()*+?.[]^-,:! 0123456789"
	f.Fuzz(func(t *testing.T, expr, text string) {
		if len(expr) > 200 || len(text) > 200 || !utf8.ValidString(text) || !utf8.ValidString(expr) {
			return
		}
		p, err := Parse(expr)
		if err != nil {
			return
		}
		var got [][2]int
		last := 0
		err = p.Each(text, func(start, end int) bool {
			if start < last || end < start || end > len(text) {
				t.Fatalf("%q on %q: match %d to %d after %d", expr, text, start, end, last)
			}
			last = end
			got = append(got, [2]int{start, end})
			return true
		})
		if err != nil {
			if !errors.Is(err, ErrSteps) {
				t.Fatal(err)
			}
			return
		}
		// Only what both dialects read alike: no line ends, no possessive quantifiers, no sets within sets.
		for _, r := range expr {
			if !strings.ContainsRune(plain, r) {
				return
			}
		}
		for _, other := range []string{"*+", "++", "?+", "^", "[[", "(?", "[]", "[-", "--", "-]"} {
			if strings.Contains(expr, other) {
				return
			}
		}
		if strings.Count(expr, "[") > 1 && strings.Contains(strings.SplitN(expr, "]", 2)[0][strings.Index(expr, "[")+1:], "[") {
			return
		}
		re, err := regexp2.Compile(expr, regexp2.None)
		if err != nil {
			return
		}
		var want [][2]int
		m, err := re.FindStringMatch(text)
		for ; err == nil && m != nil; m, err = re.FindNextMatch(m) {
			runes := []rune(text)
			start, end := len(string(runes[:m.Index])), len(string(runes[:m.Index+m.Length]))
			if n := len(want); start == end && n > 0 && want[n-1][1] == start {
				continue // Oniguruma's loop leaves out an empty match right after a match
			}
			want = append(want, [2]int{start, end})
		}
		if len(got) != len(want) {
			t.Fatalf("%q on %q: %v, another engine finds %v", expr, text, got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%q on %q: %v, another engine finds %v", expr, text, got, want)
			}
		}
	})
}

// TestSteps: an exponential search ends with an error, by a count and not by a clock.
func TestSteps(t *testing.T) {
	for _, expr := range []string{`(?:a+)+b`, `(?:a|aa)+$(?<!a)`, `(?:(?:a*)b?c?a)+d`, `(?=(?:a+)+b)`, `(?<=(?:a|aa){1,40})b`} {
		p, err := Parse(expr)
		if err != nil {
			t.Error(err)
			continue
		}
		err = p.Each(strings.Repeat("a", 60), func(int, int) bool { return true })
		if err != nil && !errors.Is(err, ErrSteps) {
			t.Error(err)
		}
	}
	p, err := Parse(`(?:a+)+b`)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Each(strings.Repeat("a", 60), func(int, int) bool { return true }); !errors.Is(err, ErrSteps) {
		t.Errorf("no error: %v", err)
	}
}

func TestRefused(t *testing.T) {
	for expr, want := range map[string]string{
		`(a`: "group without an end", `a)`: `unexpected ')'`, `[a`: "set without an end", `[]`: "empty set", `*a`: "nothing to repeat", `\1`: `\1 is not supported`, `\k<a>`: `\k is not supported`,
		`\G`: `\G is not supported`, `\X`: `\X is not supported`, `[[:alpha:]]`: "POSIX", `\p{Klingon}`: "not known", `\pL`: "without braces", `a{2,1}`: "repetition of 2 to 1", `a{2000}`: "at most 1000", `a{2}+`: "different things",
		`(?:a?)*`: "without end of what can be empty", `(?<=a+)b`: "longest match", `(?u:a)`: "option", `\`: "nothing after", `[z-a]`: "bad range", `[\d-z]`: "begin with a class", `\x{110000}`: "hexadecimal", `^*`: "repeated anchor",
		strings.Repeat("(", 200): "nested", strings.Repeat("(?:", 50) + "a" + strings.Repeat("){50}", 50): "too large", strings.Repeat("a", 1<<17): "at most",
	} {
		if _, err := Parse(expr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", expr, err, want)
		}
	}
}

func BenchmarkEach(b *testing.B) {
	p, err := Parse(`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`)
	if err != nil {
		b.Fatal(err)
	}
	text := strings.Repeat("func main() {\n\tfmt.Println(\"hello, world\", 12345) // it's a test\n}\n\n", 1000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := p.Each(text, func(int, int) bool { return true }); err != nil {
			b.Fatal(err)
		}
	}
}
