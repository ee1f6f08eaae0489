package sparse

import "slices"

// Overlap says how many entries two files share. Tensors that are replaced as a whole do not count.
type Overlap struct {
	A, B   int64 // entries of each
	Shared int64
}

// Jaccard is the size of the intersection over that of the union; 1 for two empty files.
func (o Overlap) Jaccard() float64 {
	if union := o.A + o.B - o.Shared; union > 0 {
		return float64(o.Shared) / float64(union)
	}
	return 1
}

// Of is the share of B's entries that A has too, the measure of Panigrahi et al., 2023, section 5; 0 where B has none.
func (o Overlap) Of() float64 {
	if o.B == 0 {
		return 0
	}
	return float64(o.Shared) / float64(o.B)
}

// Compare counts what two files share, in total and by tensor. Tensors that only one of them changes are listed too.
func Compare(a, b *File) (total Overlap, byTensor map[string]Overlap) {
	byTensor = map[string]Overlap{}
	for _, name := range a.names {
		o := Overlap{A: int64(a.entries[name].n)}
		if e, ok := b.entries[name]; ok {
			o.B, o.Shared = int64(e.n), shared(a.entries[name], e)
		}
		byTensor[name] = o
	}
	for _, name := range b.names {
		if _, ok := byTensor[name]; !ok {
			byTensor[name] = Overlap{B: int64(b.entries[name].n)}
		}
	}
	for _, o := range byTensor {
		total.A, total.B, total.Shared = total.A+o.A, total.B+o.B, total.Shared+o.Shared
	}
	return total, byTensor
}

// shared walks two ascending lists.
func shared(a, b *Entries) (n int64) {
	for i, j := 0, 0; i < a.n && j < b.n; {
		switch x, y := a.At(i), b.At(j); {
		case x < y:
			i++
		case x > y:
			j++
		default:
			n, i, j = n+1, i+1, j+1
		}
	}
	return n
}

// SameShapes returns the first tensor, by name, to which two files give different shapes.
func SameShapes(a, b *File) (name string, same bool) {
	names := a.Names()
	slices.Sort(names)
	for _, name := range names {
		if e, ok := b.entries[name]; ok && !slices.Equal(e.Shape, a.entries[name].Shape) {
			return name, false
		}
	}
	return "", true
}
