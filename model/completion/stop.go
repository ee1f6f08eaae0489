package completion

import "strings"

// stopper lets text through until one of the stop strings has been written. It holds back what may be the beginning of one.
type stopper struct {
	stops []string
	held  string
}

// push takes new text and returns what is certain to stay, and whether a stop string ended the text; that string is left out.
func (s *stopper) push(text string) (out string, stopped bool) {
	s.held += text
	first := -1
	for _, stop := range s.stops {
		if i := strings.Index(s.held, stop); stop != "" && i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	if first >= 0 {
		out, s.held = s.held[:first], ""
		return out, true
	}
	keep := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(s.held)); n > keep; n-- {
			if strings.HasSuffix(s.held, stop[:n]) {
				keep = n
			}
		}
	}
	out, s.held = s.held[:len(s.held)-keep], s.held[len(s.held)-keep:]
	return out, false
}

// rest returns what was held back, at the end of a text.
func (s *stopper) rest() string {
	out := s.held
	s.held = ""
	return out
}
