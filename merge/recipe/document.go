package recipe

import "github.com/mergekit/mergekit/internal/strictyaml"

// kind is what strictyaml has to know of recipes.
var kind = strictyaml.Kind{
	Noun:   "recipe",
	Empty:  "give at least merge_method and models",
	Second: " (chains of recipes in one file, as mergekit-multi takes, come with a later version)",
}

// decoder reads a recipe out of a document.
type decoder struct{ *strictyaml.Decoder }

type (
	node   = strictyaml.Node
	scalar = strictyaml.Scalar
	field  = strictyaml.Field
)

// Parse reads a recipe. file names it in messages; data is kept in the result. All faults that are found come back joined, first by
// position, each an *Error.
func Parse(file string, data []byte) (*Recipe, error) {
	root, err := strictyaml.ReadDocument(file, data, kind)
	if err != nil {
		return nil, strictyaml.Join([]*Error{err})
	}
	d := &decoder{&strictyaml.Decoder{File: file, Noun: kind.Noun}}
	r := d.recipe(root)
	if len(d.Errs) > 0 {
		return nil, strictyaml.Join(d.Errs)
	}
	r.File, r.Text, r.Warnings = file, data, d.Warnings
	return r, nil
}

// ParseFile reads a recipe from a file. A file that cannot be read is an *Error too, which wraps the cause.
func ParseFile(path string) (*Recipe, error) {
	data, err := strictyaml.ReadFile(path, kind)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Nearest returns the one of the words in among that was most likely meant by word, "" when nothing is near.
func Nearest(word string, among []string) string { return strictyaml.Nearest(word, among) }
