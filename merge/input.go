package merge

import (
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// Source reads a tensor of an opened model as merges read it: a view of the mapped file, with what an adapter changes. Several names
// are read as one tensor, end to end. It is for verbs that make an output without a merge method.
func Source(m *plan.Model, names ...string) (stream.Source, error) {
	return newSource(plan.Input{Model: m, Pieces: names})
}

// Identify writes what tells a model's files from others into a hash: names, sizes, times and samples of their content.
func Identify(h interface{ Write([]byte) (int, error) }, m *plan.Model) {
	identifyFiles(h, m.Files())
}

// CopyTokenizer copies what a model needs to read text and to generate from its directory, or from its adapter's where that brings its
// own.
func CopyTokenizer(w *tensors.Writer, m *plan.Model) error {
	return copyBeside(w, m, tokenizerFiles)
}
