package match

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/internal/lap"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
)

// reBasin is coordinate descent as Git Re-Basin has it, for the MLP of chain, written from the paper in float64: A = Σ ⟨a_i, b_j⟩ over all
// tensors of a layer, solved in the given order until nothing changes.
func reBasin(t *testing.T, a, b map[string]model.Tensor, widths []int, seed uint64) [][]int {
	t.Helper()
	n := len(widths) - 2
	perms := make([][]int, n+2)
	for i := range perms {
		perms[i] = identity(widths[min(i, len(widths)-1)])
	}
	at := func(w map[string]model.Tensor, layer, row, col int) float64 {
		x := w[fmt.Sprint(layer, ".weight")]
		return float64(x.Data[row*x.Shape[1]+col])
	}
	for sweep := 1; ; sweep++ {
		progress := false
		for _, k := range shuffled(n, seed, fmt.Sprint("order ", sweep)) {
			l := k + 1
			size := widths[l]
			score := make([]float32, size*size)
			value := make([]float64, size*size)
			for i := range size {
				for j := range size {
					sum := float64(a[fmt.Sprint(l, ".bias")].Data[i]) * float64(b[fmt.Sprint(l, ".bias")].Data[j])
					for c := range widths[l-1] {
						sum += at(a, l, i, c) * at(b, l, j, perms[l-1][c])
					}
					for r := range widths[l+1] {
						sum += at(a, l+1, r, i) * at(b, l+1, perms[l+1][r], j)
					}
					score[i*size+j], value[i*size+j] = float32(sum), sum
				}
			}
			s, err := lap.Maximize(size, score, lap.Options{Initial: perms[l]})
			if err != nil {
				t.Fatal(err)
			}
			now, old := 0.0, 0.0
			for i := range size {
				now += value[i*size+s.Cols[i]]
				old += value[i*size+perms[l][i]]
			}
			if now > old+1e-6*math.Abs(old) {
				perms[l], progress = s.Cols, true
			}
		}
		if !progress {
			return perms[1 : n+1]
		}
	}
}

// TestReBasin: with permutations alone the search is that algorithm.
func TestReBasin(t *testing.T) {
	widths := []int{12, 20, 16, 18, 6}
	for seed := range uint64(4) {
		a, b := mlp(seed, widths...), mlp(seed+100, widths...)
		want := reBasin(t, a, b, widths, seed)
		res, err := Pair(t.Context(), chain(symmetry.Perm, false, widths...), align.OfTensors(a), align.OfTensors(b), Options{Init: Identity, Seed: seed, NoReport: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range want {
			if got := res.Map.Elements[fmt.Sprint("hidden.", i+1)].Index; !slices.Equal(got, p) {
				t.Errorf("seed %d, layer %d: %v, want %v", seed, i+1, got, p)
			}
		}
	}
}

// TestRestarts: the best of several runs is no worse than the first.
func TestRestarts(t *testing.T) {
	widths := []int{12, 30, 30, 30, 6}
	spec := chain(symmetry.ScaledPerm, true, widths...)
	a, b := align.OfTensors(mlp(1, widths...)), align.OfTensors(mlp(2, widths...))
	better := false
	var last float64
	for _, restarts := range []int{0, 4} {
		res, err := Pair(t.Context(), spec, a, b, Options{Restarts: restarts, NoReport: true})
		if err != nil {
			t.Fatal(err)
		}
		now := res.Trace[len(res.Trace)-1]
		if now < last {
			t.Errorf("the best of five is %v, the first alone %v", now, last)
		}
		better = last > 0 && now > last
		last = now
	}
	if !better {
		t.Error("none of four restarts found anything better, which they do on these models")
	}
}

// TestWorkers: maps have the same bits however many bundles are solved at once.
func TestWorkers(t *testing.T) {
	for _, f := range families(t) {
		if f.name != "llama" && f.name != "gpt2" {
			continue
		}
		one, two := f.weights(1), f.weights(2)
		whole, err := align.SpecOf(f.config, source(one), "")
		if err != nil {
			t.Fatal(err)
		}
		spec, err := whole.Restrict(symmetry.Full, symmetry.AllGroups())
		if err != nil {
			t.Fatal(err)
		}
		var first *Result
		for _, o := range []Options{{Threads: 1}, {Threads: 4}, {Threads: 4, Memory: 1}} {
			res, err := Pair(t.Context(), spec, align.OfTensors(one), align.OfTensors(two), o)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = res
				continue
			}
			if fmt.Sprint(res.Map.Elements, res.Trace) != fmt.Sprint(first.Map.Elements, first.Trace) {
				t.Errorf("%s: %+v give other bits", f.name, o)
			}
		}
	}
}

// TestXLA: on another backend the products are the same but for rounding, and copies come back.
func TestXLA(t *testing.T) {
	b, _, err := backend.Open("xla:cpu")
	if err != nil {
		t.Skipf("no XLA plugin: %v", err) // .ci/run installs it; a binary without cgo cannot load one
	}
	defer b.Finalize()
	e := gram.New(b, 0)
	defer e.Close()
	for _, f := range families(t) {
		if f.name != "llama" && f.name != "mlp" {
			continue
		}
		values := f.weights(3)
		spec, err := align.SpecOf(f.config, source(values), "")
		if err != nil {
			t.Fatal(err)
		}
		if off, _ := recovered(t, spec, values, align.RandomOptions{Scales: true, Gains: true}, 1, Options{Gram: e}); off > 1e-5 {
			t.Errorf("%s: off by %g", f.name, off)
		}
	}
}

// TestScores: given scores decide alone, or beside the weights.
func TestScores(t *testing.T) {
	widths := []int{6, 8, 8, 4}
	spec := chain(symmetry.Perm, false, widths...)
	a, b := mlp(1, widths...), mlp(2, widths...)
	want := map[string][]int{"hidden.1": shuffled(8, 1, "a"), "hidden.2": shuffled(8, 1, "b")}
	scores := func(group string) ([]float32, bool) {
		s := make([]float32, 64)
		for i, j := range want[group] {
			s[i*8+j] = 1
		}
		return s, true
	}
	for _, lambda := range []float64{0, 1, 0.9} {
		res, err := Pair(t.Context(), spec, align.OfTensors(a), align.OfTensors(b), Options{Scores: scores, Lambda: lambda, NoReport: true, Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		for g, p := range want {
			if !slices.Equal(res.Map.Elements[g].Index, p) {
				t.Errorf("lambda %v: %s is %v, want %v", lambda, g, res.Map.Elements[g].Index, p)
			}
		}
	}
	res, err := Pair(t.Context(), spec, align.OfTensors(a), align.OfTensors(b), Options{Scores: scores, Lambda: 1e-6, NoReport: true})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(res.Map.Elements["hidden.1"].Index, want["hidden.1"]) {
		t.Error("scores that hardly count decide")
	}
}

// TestHubScores: given scores decide for a stream as well, alone or beside the weights.
func TestHubScores(t *testing.T) {
	for _, f := range families(t) {
		if f.name != "llama" {
			continue
		}
		one, two := f.weights(1), f.weights(2)
		whole, err := align.SpecOf(f.config, source(one), "")
		if err != nil {
			t.Fatal(err)
		}
		spec, err := whole.Restrict(symmetry.Permutation, symmetry.AllGroups())
		if err != nil {
			t.Fatal(err)
		}
		g, _ := spec.Group("res")
		want := shuffled(g.Size, 1, "res")
		scores := func(group string) ([]float32, bool) {
			if group != "res" {
				return nil, false
			}
			s := make([]float32, g.Size*g.Size)
			for i, j := range want {
				s[i*g.Size+j] = 1
			}
			return s, true
		}
		for lambda, same := range map[float64]bool{1: true, 0.9: true, 1e-6: false} {
			res, err := Pair(t.Context(), spec, align.OfTensors(one), align.OfTensors(two), Options{Scores: scores, Lambda: lambda, NoReport: true, Verify: true})
			if err != nil {
				t.Fatal(err)
			}
			if slices.Equal(res.Map.Elements["res"].Index, want) != same {
				t.Errorf("lambda %v: %v, given %v", lambda, res.Map.Elements["res"].Index, want)
			}
		}
	}
}

// TestTokens: models of other vocabularies are anchored by the tokens that they share.
func TestTokens(t *testing.T) {
	const width, vocab = 8, 30
	spec := &symmetry.Spec{Name: "tokens", Groups: []symmetry.Group{{ID: "res", Kind: symmetry.Orthogonal, Size: width, Refs: []symmetry.Ref{
		ref("embed", 1, 0, 1, 1, symmetry.Write), ref("head", 1, 0, 1, 1, symmetry.Read), ref("out", 0, 0, 1, 1, symmetry.Write)}}}}
	a := map[string]model.Tensor{"embed": normal(1, "embed", vocab, width), "head": normal(1, "head", vocab, width), "out": normal(1, "out", width, 5)}
	m, err := align.Random(spec, 1, align.RandomOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := transformed(t, a, m)
	// The other model has ten tokens of its own and the rest in another order.
	order := shuffled(vocab+10, 1, "tokens")
	var ta, tb []int32
	for _, name := range []string{"embed", "head"} {
		x := normal(2, name, vocab+10, width)
		for i, j := range order {
			if j < vocab {
				copy(x.Data[i*width:][:width], b[name].Data[j*width:][:width])
			}
		}
		b[name] = x
	}
	for i, j := range order {
		if j < vocab {
			ta, tb = append(ta, int32(j)), append(tb, int32(i))
		}
	}
	o := Options{Tokens: func() ([]int32, []int32) { return ta, tb }}
	res, err := Pair(t.Context(), spec, align.OfTensors(a), align.OfTensors(b), o)
	if err != nil {
		t.Fatal(err)
	}
	if res.After < 1-1e-9 || res.L2After > 1e-4 || res.Ancestry.Relation != SameWeights {
		t.Errorf("agreement %.9f, distance %g, %s", res.After, res.L2After, res.Ancestry.Relation)
	}
	var e *align.Error
	if _, err = Pair(t.Context(), spec, align.OfTensors(a), align.OfTensors(b), Options{}); !errors.As(err, &e) || e.Tensor != "embed" || !strings.Contains(err.Error(), "tokenizers") {
		t.Errorf("without tokens: %v", err)
	}
	tb[3] = 1000
	if _, err = Pair(t.Context(), spec, align.OfTensors(a), align.OfTensors(b), o); !errors.As(err, &e) || !strings.Contains(err.Error(), "token 1000") {
		t.Errorf("a token that is not there: %v", err)
	}
}

// TestRefuses: errors name the model, the group and the tensor.
func TestRefuses(t *testing.T) {
	widths := []int{4, 6, 5, 3}
	good := func() map[string]model.Tensor { return mlp(1, widths...) }
	spec := chain(symmetry.Perm, false, widths...)
	stream := &symmetry.Spec{Name: "s", Groups: []symmetry.Group{{ID: "res", Kind: symmetry.Orthogonal, Size: 4, Refs: []symmetry.Ref{
		ref("embed", 1, 0, 1, 1, symmetry.Write), ref("gain", 0, 0, 1, 1, symmetry.Gain), ref("read", 1, 0, 1, 1, symmetry.Read)}}},
		Norms: []symmetry.Norm{{Group: "res", Gain: "gain", Readers: []string{"read"}}}}
	streamed := func(gain float32) map[string]model.Tensor {
		return map[string]model.Tensor{"embed": normal(1, "e", 9, 4), "gain": {Shape: []int{4}, Data: []float32{1, 2, gain, 1}}, "read": normal(1, "r", 7, 4)}
	}
	with := func(w map[string]model.Tensor, name string, f func(x *model.Tensor)) map[string]model.Tensor {
		x := w[name]
		f(&x)
		w[name] = x
		return w
	}
	missing := good()
	delete(missing, "2.bias")
	orphan := chain(symmetry.Perm, false, widths...)
	orphan.Groups[1].Parent = "hidden.9"
	square := chain(symmetry.Perm, false, 6, 6, 6, 3)
	square.Groups = square.Groups[:1]
	square.Groups[0].Refs = append(square.Groups[0].Refs, ref("1.weight", 1, 0, 1, 1, symmetry.Read))
	for name, c := range map[string]struct {
		spec  *symmetry.Spec
		a, b  map[string]model.Tensor
		o     Options
		parts []string
	}{
		"NaN":           {spec, good(), with(good(), "2.weight", func(x *model.Tensor) { x.Data[7] = float32(math.NaN()) }), Options{}, []string{"the model to align", "2.weight", "entry 7 is NaN", "damaged"}},
		"infinite":      {spec, with(good(), "1.bias", func(x *model.Tensor) { x.Data[2] = float32(math.Inf(-1)) }), good(), Options{}, []string{"the reference", "1.bias", "entry 2 is -Inf"}},
		"shape":         {spec, good(), mlp(1, 4, 6, 7, 3), Options{}, []string{"group hidden.2", "2.bias", "[5] in the reference and [7]", "no map between them"}},
		"missing":       {spec, good(), missing, Options{}, []string{"the model to align", "group hidden.2", "2.bias", "not there"}},
		"spec":          {chain(symmetry.Perm, false, 4, 9, 5, 3), good(), good(), Options{}, []string{"group hidden.1", "1.", "9 entries", "another size"}},
		"parent":        {orphan, good(), good(), Options{}, []string{"group hidden.2", "hidden.9", "parents first"}},
		"both axes":     {square, mlp(1, 6, 6, 6, 3), mlp(1, 6, 6, 6, 3), Options{}, []string{"group hidden.1", "1.weight", "two axes"}},
		"zero gain":     {stream, streamed(0), streamed(1), Options{}, []string{"group res", "gain", "gain 2 is 0", "symmetry: signed"}},
		"infinite gain": {stream, streamed(1), streamed(float32(math.Inf(1))), Options{}, []string{"the model to align", "gain", "entry 2 is +Inf"}},
		"init":          {spec, good(), good(), Options{Init: "best"}, []string{`init "best"`, "anchors"}},
		"normalize":     {spec, good(), good(), Options{Normalize: "all"}, []string{`normalize "all"`}},
		"lambda":        {spec, good(), good(), Options{Lambda: 2}, []string{"lambda is 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Pair(t.Context(), c.spec, align.OfTensors(c.a), align.OfTensors(c.b), c.o)
			var e *align.Error
			if !errors.As(err, &e) {
				t.Fatalf("%v", err)
			}
			for _, p := range c.parts {
				if !strings.Contains(err.Error(), p) {
					t.Errorf("%q does not tell %q", err, p)
				}
			}
		})
	}
	// A gain of 0 in the model that is aligned is only folded.
	if _, err := Pair(t.Context(), stream, align.OfTensors(streamed(1)), align.OfTensors(streamed(0)), Options{}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Pair(ctx, spec, align.OfTensors(good()), align.OfTensors(good()), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFolded: a copy whose gains were folded into what reads them is no permutation of the original, however little its stream is turned:
// aligned it has the original's gains again.
func TestFolded(t *testing.T) {
	spec := &symmetry.Spec{Name: "s", Groups: []symmetry.Group{{ID: "res", Kind: symmetry.Orthogonal, Size: 6, Refs: []symmetry.Ref{
		ref("embed", 1, 0, 1, 1, symmetry.Write), ref("gain", 0, 0, 1, 1, symmetry.Gain), ref("read", 1, 0, 1, 1, symmetry.Read)}}},
		Norms: []symmetry.Norm{{Group: "res", Gain: "gain", Readers: []string{"read"}}}}
	a := map[string]model.Tensor{"embed": normal(1, "e", 20, 6), "read": normal(1, "r", 20, 6), "gain": {Shape: []int{6}, Data: []float32{1, 2, 0.5, 3, 0.25, 1}}}
	b := map[string]model.Tensor{"embed": normal(1, "e", 20, 6), "read": normal(1, "r", 20, 6), "gain": {Shape: []int{6}, Data: []float32{1, 1, 1, 1, 1, 1}}}
	for i := range b["read"].Data {
		b["read"].Data[i] *= a["gain"].Data[i%6]
	}
	res, err := Pair(t.Context(), spec, align.OfTensors(a), align.OfTensors(b), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if off, where := worst(t, align.OfTensors(a), align.Aligned(align.OfTensors(b), res.Map)); off > 1e-5 {
		t.Errorf("%s is off by %g", where, off)
	}
	if res.Map.Exact() {
		t.Error("the map says that it only moves values")
	}
}

// TestDead: units without any weight stay where they are.
func TestDead(t *testing.T) {
	widths := []int{5, 9, 4}
	a, b := mlp(1, widths...), mlp(1, widths...)
	noise := mlp(2, widths...)
	for n, x := range b {
		for i := range x.Data {
			x.Data[i] += noise[n].Data[i] / 10
		}
	}
	for _, w := range []map[string]model.Tensor{a, b} {
		for _, dead := range []int{2, 3, 7} {
			clear(w["1.weight"].Data[dead*5:][:5])
			w["1.bias"].Data[dead] = 0
			for r := range 4 {
				w["2.weight"].Data[r*9+dead] = 0
			}
		}
	}
	for _, kind := range []symmetry.Kind{symmetry.Perm, symmetry.ScaledPerm} {
		res, err := Pair(t.Context(), chain(kind, false, widths...), align.OfTensors(a), align.OfTensors(b), Options{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		e := res.Map.Elements["hidden.1"]
		if res.Moved != 0 || e.Scale != nil && (e.Scale[2] != 1 || e.Scale[7] != 1) {
			t.Errorf("%s: %+v", kind, e)
		}
	}
}

// TestBalance: any invertible mixing of a head's values is brought to the same canonical form up to a rotation.
func TestBalance(t *testing.T) {
	const n, rows = 5, 30
	w, r := normal(1, "w", n, rows), normal(1, "r", rows, n)
	g := &symmetry.Group{ID: "vo", Kind: symmetry.Invertible, Size: n, Refs: []symmetry.Ref{ref("w", 0, 0, 1, 1, symmetry.Write), ref("r", 1, 0, 1, 1, symmetry.Read)}}
	spec := &symmetry.Spec{Groups: []symmetry.Group{*g}}
	products := func(w, r []float32) (x, y []float64) {
		pair := &grams{write: make([]float64, n*n), read: make([]float64, n*n)}
		pair.add(place{group: g, ref: g.Refs[0]}, []int{n, rows}, w)
		pair.add(place{group: g, ref: g.Refs[1]}, []int{rows, n}, r)
		return pair.write, pair.read
	}
	m, err := align.Random(spec, 1, align.RandomOptions{Scales: true})
	if err != nil {
		t.Fatal(err)
	}
	b := transformed(t, map[string]model.Tensor{"w": w, "r": r}, m)
	var traces []float64
	for _, v := range []map[string]model.Tensor{{"w": w, "r": r}, b} {
		x, y := products(v["w"].Data, v["r"].Data)
		pair := grams{write: x, read: y}
		c, err := pair.balance(n)
		if err != nil {
			t.Fatal(err)
		}
		left, right := congruent(c.matrix, x, n), congruent(c.inverse, y, n)
		for i := range left {
			if math.Abs(left[i]-right[i]) > 1e-7 {
				t.Fatalf("what is written and what is read differ: %v and %v", left[i], right[i])
			}
		}
		trace := 0.0
		for i := range n {
			trace += left[i*n+i]
		}
		traces = append(traces, trace)
	}
	if math.Abs(traces[0]-traces[1]) > 1e-4*traces[0] {
		t.Errorf("traces %v", traces)
	}
}

// congruent is c·x·c for symmetric c.
func congruent(c, x []float64, n int) []float64 {
	cx, out := make([]float64, n*n), make([]float64, n*n)
	linalg.Product64(linalg.Of64(cx, n, n), 1, linalg.Of64(c, n, n), linalg.Of64(x, n, n), false, 1)
	linalg.Product64(linalg.Of64(out, n, n), 1, linalg.Of64(cx, n, n), linalg.Of64(c, n, n), false, 1)
	return out
}
