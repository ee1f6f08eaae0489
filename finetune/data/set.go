package data

// Source is a file of rows, or a folder with train.jsonl, valid.jsonl and test.jsonl.
type Source struct {
	Path   string
	Format string  // "" or auto: by the keys of the first row
	Domain string  // of rows that name none
	Weight float64 // how often an epoch takes each row: 0.5 is half of them, anew in every epoch; 0 counts as 1
	Split  string  // which file of a folder: train (the default), valid or test
	Field  string  // the key of a row that holds its text, all of which is read; "": by the format
}

// Example is a row as tokens.
type Example struct {
	IDs    []int32
	Labels []int32 // aligned with IDs: the token itself where it is learnt, -100 where it is masked
	Class  int     // of a row with a label; -1 without
	Weight float32 // of its targets in the loss
	Share  float64 // how often an epoch takes it: its source's weight

	Domain, ID string
	File       string
	Line       int
	Truncated  bool

	source int // index of its source
}

// Ignored is the label of a token that is not learnt.
const Ignored = -100

// Targets returns the number of tokens that are learnt: the first one of a row is never predicted.
func (e *Example) Targets() int {
	n := 0
	for i := 1; i < len(e.Labels); i++ {
		if e.Labels[i] != Ignored {
			n++
		}
	}
	return n
}

// Set is rows that were read.
type Set struct {
	Examples []Example
	Labels   []string // names of the classes, if rows have labels
	Report   Report
}

// Report says what became of the rows.
type Report struct {
	Rows          int      `json:"rows"`
	Skipped       int      `json:"skipped"`
	Truncated     int      `json:"truncated"`
	Dropped       int      `json:"dropped"` // too long, with truncation: drop
	Tokens        int64    `json:"tokens"`
	TrainedTokens int64    `json:"trained_tokens"`
	Untrained     int      `json:"untrained"` // left out because truncation has cut off all that is learnt
	Longest       int      `json:"longest"`   // tokens of the longest row that was read, before truncation
	Warnings      []string `json:"warnings,omitempty"`
	// Files says how each file was read.
	Files []FileReport `json:"files,omitempty"`
	// Bad are the first reasons for which rows were skipped.
	Bad []string `json:"bad,omitempty"`
}

// FileReport says how a file was read.
type FileReport struct {
	Path    string `json:"path"`
	Format  string `json:"format"`
	Rows    int    `json:"rows"`
	Skipped int    `json:"skipped"`
}

// Only returns the set of the examples at the given indices.
func (s *Set) Only(index []int) *Set {
	out := &Set{Labels: s.Labels}
	for _, i := range index {
		out.Examples = append(out.Examples, s.Examples[i])
	}
	out.count()
	return out
}

// Without returns the set without the examples at the given indices, which ascend.
func (s *Set) Without(index []int) *Set {
	out := &Set{Labels: s.Labels, Report: s.Report}
	k := 0
	for i := range s.Examples {
		if k < len(index) && index[k] == i {
			k++
			continue
		}
		out.Examples = append(out.Examples, s.Examples[i])
	}
	out.count()
	return out
}

// count sums the tokens.
func (s *Set) count() {
	s.Report.Rows, s.Report.Tokens, s.Report.TrainedTokens, s.Report.Truncated = len(s.Examples), 0, 0, 0
	for i := range s.Examples {
		e := &s.Examples[i]
		s.Report.Tokens += int64(len(e.IDs))
		s.Report.TrainedTokens += int64(e.Targets())
		if e.Truncated {
			s.Report.Truncated++
		}
	}
}
