package surgeon

import (
	"fmt"
	"math"
	"testing"
)

// TestFit: what is left after many landmarks is orthogonal to all of them, also where they lie close to each other; a landmark that depends on
// the others is refused.
func TestFit(t *testing.T) {
	const d, n = 48, 40
	common := normalRow(d, "common")
	var list []entry
	for i := range n {
		row := normalRow(d, fmt.Sprint("landmark ", i))
		for j := range row {
			row[j] = row[j]/4 + 3*common[j] // nearly parallel
		}
		list = append(list, entry{text: fmt.Sprintf("Ġtoken%d", i), row: row})
	}
	double := make([]float32, d)
	for j := range double {
		double[j] = list[3].row[j] + list[5].row[j]
	}
	list = append(list, entry{text: "Ġsum", row: double})
	c := open(t, made(t, list, nil, nil))
	r, err := openRows(c, "model.embed_tokens.weight")
	if err != nil {
		t.Fatal(err)
	}
	l := &landmarks{donor: r, model: r}
	for i := range list {
		l.inDonor, l.inOwn = append(l.inDonor, int32(i)), append(l.inOwn, int32(i))
	}
	if err := l.measure(); err != nil {
		t.Fatal(err)
	}
	x := normalRow(d, "target")
	f := newFit(l, x)
	for i := range n {
		if more, err := f.add(i); err != nil || !more {
			t.Fatalf("landmark %d: %v, %v", i, more, err)
		}
	}
	for i := range n {
		dot := 0.0
		for j, v := range list[i].row {
			dot += float64(v) * f.r[j]
		}
		if e := math.Abs(dot) / math.Sqrt(l.norms[i]*squares(x)); e > 1e-9 {
			t.Errorf("what is left has %v of landmark %d", e, i)
		}
	}
	if more, err := f.add(n); err != nil || more || len(f.chosen) != n {
		t.Errorf("a dependent landmark was taken: %v, %v", more, err)
	}
}
