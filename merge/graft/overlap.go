package graft

import (
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// Overlaps says what grafts have in common, pair by pair.
type Overlaps struct {
	Names   []string `json:"names"`
	Entries []int64  `json:"entries"`
	// Of[i][j] is the share of j's entries that i has too: |i and j| / |j|, by which Panigrahi et al. compare tasks. It is not symmetric.
	Of [][]float64 `json:"of"`
	// Jaccard[i][j] is |i and j| / |i or j|.
	Jaccard [][]float64 `json:"jaccard"`
	// Chance[i][j] is what Of would be if i's places were drawn at random, tensor by tensor.
	Chance [][]float64 `json:"chance"`
}

// CompareFiles compares sparse differences of one model.
func CompareFiles(paths []string) (*Overlaps, error) {
	var files []*sparse.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	o := &Overlaps{Names: short(paths)}
	for _, p := range paths {
		f, err := sparse.Open(p)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		o.Entries = append(o.Entries, f.Count())
	}
	n := len(files)
	for _, a := range files {
		of, jaccard, chance := make([]float64, n), make([]float64, n), make([]float64, n)
		for j, b := range files {
			if name, same := sparse.SameShapes(a, b); !same {
				return nil, &tensors.FormatError{File: b.Path(), Tensor: name, Msg: "has another shape than in " + a.Path(), Hint: "only grafts of one model can be compared"}
			}
			total, byTensor := sparse.Compare(a, b)
			of[j], jaccard[j] = total.Of(), total.Jaccard()
			for _, name := range a.Names() { // in order, so that the sum has the same bits every time
				x := byTensor[name]
				if e, _ := a.Entries(name); e.Elems() > 0 && total.B > 0 {
					chance[j] += float64(x.A) * float64(x.B) / float64(e.Elems()) / float64(total.B)
				}
			}
		}
		o.Of, o.Jaccard, o.Chance = append(o.Of, of), append(o.Jaccard, jaccard), append(o.Chance, chance)
	}
	return o, nil
}

// short names files by what tells them apart: without endings, and with directories where names are the same.
func short(paths []string) []string {
	out := make([]string, len(paths))
	seen := map[string]int{}
	for i, p := range paths {
		out[i] = strings.TrimSuffix(filepath.Base(p), ".safetensors")
		seen[out[i]]++
	}
	for i, p := range paths {
		if seen[out[i]] > 1 {
			out[i] = strings.TrimSuffix(p, ".safetensors")
		}
	}
	return out
}
