package sparse

import (
	"math"
	"slices"
	"strconv"
	"strings"

	files "github.com/mergekit/mergekit/tensors/sparse"
)

// Count is how much of a tensor is changed, or of a role, which is the tensors of one name in all layers.
type Count struct {
	Name    string  `json:"name"`
	Entries int64   `json:"entries"`
	Elems   int64   `json:"elements"`
	Density float64 `json:"density"`
	// Largest and Mean are magnitudes of the values of a file of differences; of another one they are not known without the base.
	Largest float64 `json:"largest,omitempty"`
	Mean    float64 `json:"mean,omitempty"`
	// NonFinite counts values that are NaN or infinite, which Largest and Mean leave out.
	NonFinite int64 `json:"non_finite,omitempty"`

	sum float64
}

func (c *Count) add(o Count) {
	c.Entries, c.Elems, c.sum = c.Entries+o.Entries, c.Elems+o.Elems, c.sum+o.sum
	c.Largest, c.NonFinite = max(c.Largest, o.Largest), c.NonFinite+o.NonFinite
}

// values counts magnitudes.
func (c *Count) values(list []float32) {
	for _, x := range list {
		if m := math.Abs(float64(x)); math.IsNaN(m) || math.IsInf(m, 0) {
			c.NonFinite++
		} else {
			c.sum, c.Largest = c.sum+m, max(c.Largest, m)
		}
	}
}

func (c *Count) finish() {
	if c.Elems > 0 {
		c.Density = float64(c.Entries) / float64(c.Elems)
	}
	if n := c.Entries - c.NonFinite; n > 0 {
		c.Mean = c.sum / float64(n)
	}
}

// Description is what a sparse file holds.
type Description struct {
	File    string            `json:"file"`
	Label   string            `json:"label"`
	Kind    string            `json:"kind"`
	Base    string            `json:"base,omitempty"`
	Values  string            `json:"values"` // absolute or delta
	Meta    map[string]string `json:"meta,omitempty"`
	Total   Count             `json:"total"` // of the tensors that are changed in places
	Tensors []Count           `json:"tensors"`
	Roles   []Count           `json:"roles"`
	Wholes  []string          `json:"replaced_tensors,omitempty"`
}

// Describe counts what a file changes.
func Describe(f *files.File) (*Description, error) {
	d := &Description{File: f.Path(), Label: label(f.Path()), Kind: f.Kind, Base: f.Base, Values: "absolute", Meta: f.Meta, Wholes: f.Wholes()}
	if f.Delta {
		d.Values = "delta"
	}
	names := f.Names()
	slices.SortFunc(names, natural)
	at := map[string]int{}
	for _, name := range names {
		e, _ := f.Entries(name)
		c := Count{Name: name, Entries: int64(e.Len()), Elems: e.Elems()}
		values := make([]float32, e.Len())
		if err := e.Read(values, 0); err != nil {
			return nil, err
		}
		if c.values(values); !f.Delta {
			c.sum, c.Largest = 0, 0
		}
		role := roleOf(name)
		k, ok := at[role]
		if !ok {
			k = len(d.Roles)
			at[role] = k
			d.Roles = append(d.Roles, Count{Name: role})
		}
		d.Roles[k].add(c)
		d.Total.add(c)
		c.finish()
		d.Tensors = append(d.Tensors, c)
	}
	for i := range d.Roles {
		d.Roles[i].finish()
	}
	d.Total.finish()
	return d, nil
}

// roleOf is a tensor's name without the numbers of layers and experts.
func roleOf(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		if _, err := strconv.Atoi(p); err == nil {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, ".")
}

// natural orders names by their parts, numbers by value.
func natural(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := 0; i < len(x) && i < len(y); i++ {
		m, err1 := strconv.Atoi(x[i])
		n, err2 := strconv.Atoi(y[i])
		switch {
		case err1 == nil && err2 == nil && m != n:
			return m - n
		case x[i] != y[i]:
			return strings.Compare(x[i], y[i])
		}
	}
	return len(x) - len(y)
}

// Pair is what two files have in common.
type Pair struct {
	A       string  `json:"a"`
	B       string  `json:"b"`
	Shared  int64   `json:"shared"`
	Jaccard float64 `json:"jaccard"`
	// OfA and OfB are the share of each file's entries that the other one has too.
	OfA float64 `json:"of_a"`
	OfB float64 `json:"of_b"`
	// Chance is the share of A's entries that B would have if its places were drawn at random, tensor by tensor.
	Chance float64 `json:"chance"`
}

// Pairs compares files with each other.
func Pairs(list []*files.File) []Pair {
	var out []Pair
	for i, a := range list {
		for _, b := range list[i+1:] {
			total, byTensor := files.Compare(a, b)
			p := Pair{A: label(a.Path()), B: label(b.Path()), Shared: total.Shared, Jaccard: total.Jaccard(), OfB: total.Of()}
			if total.A > 0 {
				p.OfA = float64(total.Shared) / float64(total.A)
				for _, name := range a.Names() { // in order, so that the sum has the same bits every time
					o := byTensor[name]
					if e, ok := b.Entries(name); ok && e.Elems() > 0 {
						p.Chance += float64(o.A) * float64(o.B) / float64(e.Elems())
					}
				}
				p.Chance /= float64(total.A)
			}
			out = append(out, p)
		}
	}
	return out
}
