// Package samples reads examples for plain networks (model.PlainDescription): images or rows of features, with or without labels,
// from safetensors files and from CSV files, which may be gzipped.
//
// A CSV file has an example in every line: the values of the network's input in the order of its axes (for images: channel, row,
// column), and behind them, if there are any, the label: the number of the class, or the values of the output for the squared error.
// A first line of names is passed over.
package samples

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/model"
)

// Options say how examples are read.
type Options struct {
	// Divide is what the inputs in a CSV file are divided by, 255 for the bytes of images; 0: 1.
	Divide float64
	// LabelFirst says that the label stands before the values, not behind.
	LabelFirst bool
	// Max is how many examples are read at most; 0: all.
	Max int
	// Unlabelled leaves labels out and does not look at them: they may be those of other classes than the network tells.
	Unlabelled bool
}

// Set is examples in memory.
type Set struct {
	X        []float32 // row-major, [N, ...]
	N        int
	Labels   model.Labels
	Labelled bool
	width    int // values of one example
	given    int // values of one label, for the squared error
	columns  int // of a line of the CSV file
}

// maxValues bounds what one file may hold: 2 GiB of numbers. A small gzipped file can hold more than any memory.
const maxValues = 1 << 29

// Read reads a file of examples for a network. Errors about the file are *model.InputError or *tensors.FormatError.
func Read(path string, d *model.PlainDescription, o Options) (*Set, error) {
	s := &Set{width: product(d.Input), given: product(d.Output)}
	if o.Divide == 0 {
		o.Divide = 1
	}
	if !(o.Divide > 0) || o.Divide > 1e30 {
		return nil, &model.InputError{Msg: fmt.Sprintf("inputs cannot be divided by %v; give a positive number, such as 255", o.Divide)}
	}
	name := strings.ToLower(strings.TrimSuffix(filepath.Base(path), ".gz"))
	if strings.HasSuffix(name, ".csv") || strings.HasSuffix(name, ".txt") {
		f, err := os.Open(path)
		if err != nil {
			return nil, &model.InputError{File: path, Msg: fmt.Sprintf("cannot be read: %v", unpath(err))}
		}
		defer f.Close()
		if err := s.csv(f, path, d, o); err != nil {
			return nil, err
		}
		return s, nil
	}
	var err error
	if o.Unlabelled {
		s.X, s.N, err = model.ReadInputs(path, d)
	} else {
		s.X, s.N, s.Labels, err = model.ReadExamples(path, d)
	}
	if err != nil {
		return nil, err
	}
	for i, v := range s.X {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, &model.InputError{File: path, Msg: fmt.Sprintf("value %d of example %d is %v; all values must be finite", i%s.width+1, i/s.width+1, v)}
		}
	}
	s.Labelled = s.Labels.Classes != nil || s.Labels.Values != nil
	if s.N == 0 {
		return nil, &model.InputError{File: path, Msg: "holds no examples"}
	}
	if o.Max > 0 && s.N > o.Max {
		s = s.Range(0, o.Max)
	}
	return s, nil
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// unpath drops the path that an error of the system repeats.
func unpath(err error) error {
	if p, ok := err.(*os.PathError); ok { //nolint:errorlint // os.Open returns it as it is
		return p.Err
	}
	return err
}

// Range returns the examples from ... to-1. It shares memory with s.
func (s *Set) Range(from, to int) *Set {
	out := &Set{X: s.X[from*s.width : to*s.width], N: to - from, Labelled: s.Labelled, width: s.width, given: s.given}
	if s.Labels.Classes != nil {
		out.Labels.Classes = s.Labels.Classes[from:to]
	}
	if s.Labels.Values != nil {
		out.Labels.Values = s.Labels.Values[from*s.given : to*s.given]
	}
	return out
}

// Only returns the examples at the given indices, in that order.
func (s *Set) Only(index []int) *Set {
	out := &Set{N: len(index), Labelled: s.Labelled, width: s.width, given: s.given, X: make([]float32, 0, len(index)*s.width)}
	for _, i := range index {
		out.X = append(out.X, s.X[i*s.width:(i+1)*s.width]...)
		if s.Labels.Classes != nil {
			out.Labels.Classes = append(out.Labels.Classes, s.Labels.Classes[i])
		}
		if s.Labels.Values != nil {
			out.Labels.Values = append(out.Labels.Values, s.Labels.Values[i*s.given:(i+1)*s.given]...)
		}
	}
	return out
}

// Sample chooses n examples by a seed, or all if there are no more; they stay in the order of the file. The same seed chooses the
// same ones everywhere.
func (s *Set) Sample(n int, seed uint64) *Set {
	if n <= 0 || n >= s.N {
		return s
	}
	index := Shuffle(s.N, seed)[:n]
	slices.Sort(index)
	return s.Only(index)
}

// Shuffle returns 0 ... n-1 in an order that depends on the seed alone: sorted by a hash of seed and number.
func Shuffle(n int, seed uint64) []int {
	keys := make([]uint64, n)
	index := make([]int, n)
	for i := range index {
		keys[i], index[i] = mix(mix(seed)+uint64(i)), i
	}
	slices.SortFunc(index, func(a, b int) int {
		switch {
		case keys[a] < keys[b]:
			return -1
		case keys[a] > keys[b]:
			return 1
		}
		return a - b
	})
	return index
}

// mix is a step of SplitMix64 (Steele et al., 2014).
func mix(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
