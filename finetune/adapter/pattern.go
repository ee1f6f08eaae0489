package adapter

import (
	"math"
	"regexp"
	"strings"
)

// compile translates a Python regular expression that must match a whole path. What RE2 cannot do (look-around, references
// to groups, possessive and conditional parts) is refused by name rather than matched differently.
func compile(key, pattern string) (*regexp.Regexp, error) {
	return translate(key, pattern, `^(?:`, `)$`)
}

// compileSearch is compile for a pattern that may match anywhere in a path, as Python's search does.
func compileSearch(key, pattern string) (*regexp.Regexp, error) {
	return translate(key, pattern, ``, ``)
}

func translate(key, pattern, before, after string) (*regexp.Regexp, error) {
	if what := beyondRE2(pattern); what != "" {
		return nil, &Error{Where: key, Msg: "the pattern " + quoted(pattern) + " uses " + what + ", which this program's regular expressions do not have",
			Hint: "list the modules' names or full paths instead"}
	}
	// Python's \Z is the end of the text, Go's \z.
	re, err := regexp.Compile(before + strings.ReplaceAll(pattern, `\Z`, `\z`) + after)
	if err != nil {
		return nil, &Error{Where: key, Msg: "the pattern " + quoted(pattern) + " is no regular expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "),
			Hint: "correct it, or list the modules' names"}
	}
	return re, nil
}

// beyondRE2 names the first construct of Python's that RE2 lacks or reads differently, "" if there is none.
func beyondRE2(p string) string {
	class := false
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '\\' && i+1 < len(p):
			i++
			if d := p[i]; !class && d >= '1' && d <= '9' {
				return "a reference to a group"
			}
		case class:
			class = c != ']'
		case c == '[':
			class = true
			if strings.HasPrefix(p[i+1:], "^") {
				i++
			}
			if strings.HasPrefix(p[i+1:], "]") { // a bracket that comes first is meant literally
				i++
			}
		case c == '{' && strings.HasPrefix(p[i+1:], ","):
			return "a repetition without a lower bound"
		case c == '(' && strings.HasPrefix(p[i+1:], "?"):
			switch rest := p[i+2:]; {
			case strings.HasPrefix(rest, "="), strings.HasPrefix(rest, "!"), strings.HasPrefix(rest, "<="), strings.HasPrefix(rest, "<!"):
				return "look-around"
			case strings.HasPrefix(rest, "P="):
				return "a reference to a group"
			case strings.HasPrefix(rest, "("):
				return "a conditional"
			case strings.HasPrefix(rest, ">"):
				return "an atomic group"
			case strings.HasPrefix(rest, "#"):
				return "a comment"
			}
		}
	}
	return ""
}

func quoted(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return `"` + s + `"`
}

// endPattern is a key of rank_pattern or alpha_pattern: it matches whole paths, or what follows one of their dots.
func endPattern(where, key string) (*regexp.Regexp, error) {
	if _, err := compile(where, key); err != nil { // alone first, so that the message shows what the user wrote
		return nil, err
	}
	return compile(where, `(?:.*\.)?(?:`+key+`)`)
}

// checkPatterns refuses patterns that cannot be compiled.
func (c *Config) checkPatterns() error {
	type text struct{ where, pattern string }
	var all []text
	for _, p := range c.RankPattern {
		all = append(all, text{"rank_pattern", p.Key})
	}
	for _, p := range c.AlphaPattern {
		all = append(all, text{"alpha_pattern", p.Key})
	}
	all = append(all, text{"target_modules", c.Targets.Regex}, text{"exclude_modules", c.Exclude.Regex})
	for _, p := range c.LayersPattern {
		all = append(all, text{"layers_pattern", p})
	}
	for _, p := range c.ModulesToSave {
		all = append(all, text{"modules_to_save", p})
	}
	for _, t := range all {
		if _, err := compile(t.where, t.pattern); err != nil {
			return err
		}
	}
	return nil
}

// Scale returns a module's rank, alpha and scale: those of the first pattern in the file's order that matches its path, else
// the adapter's own.
func (c *Config) Scale(path string) (rank int, alpha, scale float64) {
	rank, alpha = c.R, c.Alpha
	if v, ok := firstMatch(c.RankPattern, path); ok {
		rank = int(v)
	}
	if v, ok := firstMatch(c.AlphaPattern, path); ok {
		alpha = v
	}
	if c.RSLoRA {
		return rank, alpha, alpha / math.Sqrt(float64(rank))
	}
	return rank, alpha, alpha / float64(rank)
}

func firstMatch(list []Pattern, path string) (float64, bool) {
	for _, p := range list {
		if re, err := endPattern("", p.Key); err == nil && re.MatchString(path) { // Check has refused those that do not compile
			return p.Value, true
		}
	}
	return 0, false
}
