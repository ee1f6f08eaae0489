package match

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/tensors"
)

// TestCheckpoint turns, shuffles and rescales the checkpoint in MERGEKIT_ALIGN_CHECKPOINT, and finds the way back: scripts/check-align.
func TestCheckpoint(t *testing.T) {
	dir := os.Getenv("MERGEKIT_ALIGN_CHECKPOINT")
	if dir == "" {
		t.Skip("takes minutes and a large checkpoint: scripts/check-align runs it, with MERGEKIT_ALIGN_CHECKPOINT")
	}
	whole, err := align.SpecFor(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	c := symmetry.AllGroups()
	if c.VO = os.Getenv("MERGEKIT_ALIGN_VO"); c.VO == "" {
		c.VO = "invertible"
	}
	spec, err := whole.Restrict(symmetry.Full, c)
	if err != nil {
		t.Fatal(err)
	}
	m, err := align.Random(spec, 1, align.RandomOptions{Scales: true, Gains: true})
	if err != nil {
		t.Fatal(err)
	}
	from, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	out := filepath.Join(t.TempDir(), "copy")
	if _, err := align.Write(t.Context(), m, from, dir, out, align.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	to, err := tensors.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	a, b := align.OfCheckpoint(from), align.OfCheckpoint(to)
	start, last := time.Now(), ""
	o := Options{Progress: func(done, total int, what string) {
		if what != last && done == total {
			last = what
			t.Logf("%6.1fs %s", time.Since(start).Seconds(), what)
		}
	}}
	res, err := Pair(t.Context(), spec, a, b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1fs; %d rounds, cosine %.6f to %.9f, distance %.4g to %.4g, %s; %s", time.Since(start).Seconds(), res.Rounds, res.Before, res.After, res.L2Before, res.L2After, res.Ancestry.Relation, peak())
	slices.SortFunc(res.Ancestry.Tensors, func(x, y Tensor) int { return cmp.Compare(y.Distance, x.Distance) })
	for _, x := range res.Ancestry.Tensors[:12] {
		t.Logf("%.3g %s", x.Distance, x.Name)
	}
	own, err := align.ReadGains(spec, a)
	if err != nil {
		t.Fatal(err)
	}
	exact, err := m.WithGains(own, nil).Inverse()
	if err != nil {
		t.Fatal(err)
	}
	// Where a gain is tiny, dividing by it makes the copy's own rounding large: then nothing can be better than the map that the copy was
	// made by, undone.
	best, where := worst(t, a, align.Aligned(b, exact))
	t.Logf("the map that the copy was made by, undone: off by %.2g, in %s", best, where)
	off, where := worst(t, a, align.Aligned(b, res.Map))
	t.Logf("off by %.2g of the largest value, in %s", off, where)
	if off > max(1e-5, 1.5*best) || res.Ancestry.Relation != SameWeights {
		t.Errorf("off by %g in %s", off, where)
	}
}

// peak is the most memory that the process has taken from the system, beside mapped files.
func peak() string {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return fmt.Sprintf("%.1f GiB of memory", float64(m.Sys)/(1<<30))
}
