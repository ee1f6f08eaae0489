package recipe

import "github.com/mergekit/mergekit/internal/strictyaml"

// kind is what strictyaml has to know of recipes.
var kind = strictyaml.Kind{
	Noun:   "recipe",
	Empty:  "give at least merge_method and models",
	Second: " (`mergekit merge` and `mergekit plan` take several in one file)",
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

// ParseAll reads all recipes of a file in which they follow each other as documents, separated by lines of "---". What one document
// means to another is for package stages.
func ParseAll(file string, data []byte) ([]*Recipe, error) {
	docs, err := strictyaml.ReadDocuments(file, data, kind)
	if err != nil {
		return nil, strictyaml.Join([]*Error{err})
	}
	var list []*Recipe
	var errs []*Error
	for _, doc := range docs {
		d := &decoder{&strictyaml.Decoder{File: file, Noun: kind.Noun}}
		r := d.recipe(doc.Root)
		r.File, r.Text, r.Warnings = file, doc.Text, d.Warnings
		list = append(list, r)
		errs = append(errs, d.Errs...)
	}
	if len(errs) > 0 {
		return nil, strictyaml.Join(errs)
	}
	return list, nil
}

// ParseAllFile is ParseAll of a file, and returns its text, too.
func ParseAllFile(path string) ([]*Recipe, []byte, error) {
	data, err := strictyaml.ReadFile(path, kind)
	if err != nil {
		return nil, nil, err
	}
	list, err := ParseAll(path, data)
	return list, data, err
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
