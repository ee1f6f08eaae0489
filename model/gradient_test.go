package model

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/internal/backend"
)

// plainGradient differentiates the model in one graph without cuts: GoMLX does all of it. It returns the loss and the gradients of
// the packed vectors.
func plainGradient(t *testing.T, m *Model, in Input, targets Targets, factor float32, pass *uint64) (loss float64, grads [][]float32) {
	t.Helper()
	in, err := m.D.check(in)
	if err != nil {
		t.Fatal(err)
	}
	var args []any
	stages := m.stages()
	for _, s := range stages {
		for _, w := range m.base[s] {
			args = append(args, w)
		}
	}
	vectorAt := len(args)
	for _, v := range m.Vectors {
		if v != nil {
			args = append(args, v.Value)
		}
	}
	streamAt := len(args)
	if pass != nil {
		for i := range len(m.blocks) + 1 { // the last is the head's
			args = append(args, gt.FromScalar(stream(*pass, i)))
		}
	}
	dataAt := len(args)
	data, scales, err := m.stemInputs(in, in.span)
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, data...)
	targetAt := len(args)
	args = append(args, gt.FromFlatDataAndDimensions(in.Segments, in.Rows, in.Length), gt.FromFlatDataAndDimensions(targets.Rows, len(targets.Rows)),
		gt.FromFlatDataAndDimensions(targets.IDs, len(targets.Rows)), gt.FromFlatDataAndDimensions(targets.Weights, len(targets.Rows)))
	e, err := NewExec(m.Backend, func(nodes []*Node) []*Node {
		var vectors []*Node
		flat := map[*Vector]*Node{}
		for _, v := range m.Vectors {
			if v != nil {
				flat[v] = nodes[vectorAt+len(vectors)]
				vectors = append(vectors, flat[v])
			}
		}
		built := map[*stage]*ops{}
		at := 0
		for _, s := range stages {
			var vector *Node
			if v := m.flat[s]; v != nil {
				vector = flat[v]
			}
			built[s] = newOps(m.D, s, m.Compute, nodes[at:at+len(s.base)], vector)
			at += len(s.base)
		}
		given := nodes[dataAt:]
		x := m.stemX(built[m.stem], given)
		var tables [][2]*Node
		for i, scale := range scales {
			cos, sin := rotaryTables(given[1], given[3+i], scale)
			tables = append(tables, [2]*Node{cos, sin})
		}
		segments, rows, ids, weights := nodes[targetAt], nodes[targetAt+1], nodes[targetAt+2], nodes[targetAt+3]
		for i, s := range m.blocks {
			o := built[s]
			if pass != nil && s.drops() {
				o.dropout = nodes[streamAt+i]
			}
			more := []*Node{segments}
			if s.kind.Rope >= 0 && len(tables) > 0 {
				more = append(more, tables[s.kind.Rope][0], tables[s.kind.Rope][1])
			}
			x = m.blockGraph(s, o, x, more)
		}
		if pass != nil && m.head.drops() {
			built[m.head].dropout, built[m.head].rows = nodes[streamAt+len(m.blocks)], rows
		}
		z := m.D.rowLogits(built[m.head], Gather(Reshape(x, -1, m.D.Hidden), InsertAxes(rows, -1)))
		value := ReduceSum(Mul(z, OneHot(ids, m.D.outputs(), dtypes.Float32)), 1)
		top := StopGradient(ReduceAndKeep(z, ReduceMax, 1))
		lse := Add(Log(ReduceSum(Exp(Sub(z, top)), 1)), Squeeze(top, 1))
		loss := ReduceAllSum(Mul(weights, Sub(lse, value)))
		return append([]*Node{loss}, Gradient(MulScalar(loss, factor), vectors...)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Finalize()
	out, err := e.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		values, err := gt.CopyFlatData[float32](o)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			loss = float64(values[0])
			continue
		}
		grads = append(grads, values)
	}
	return loss, grads
}

// backward returns loss and gradients as training computes them.
func backward(t *testing.T, m *Model, in Input, targets Targets, o PassOptions) (loss float64, grads [][]float32) {
	t.Helper()
	g, err := m.NewGradients()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Free()
	r, err := m.Backward(in, targets, g, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range g.Sums {
		if s == nil {
			continue
		}
		values, err := gt.CopyFlatData[float32](s)
		if err != nil {
			t.Fatal(err)
		}
		grads = append(grads, values)
	}
	return r.Loss, grads
}

// compare reports the tensors whose gradients differ by more than a share of their largest magnitude.
func compare(t *testing.T, m *Model, what string, got, want [][]float32, tolerance float64) {
	t.Helper()
	k := 0
	for _, v := range m.Vectors {
		if v == nil {
			continue
		}
		for _, s := range v.Packed.Segments {
			var worst, largest float64
			for i := s.Offset; i < s.Offset+s.Size(); i++ {
				worst = max(worst, math.Abs(float64(got[k][i]-want[k][i])))
				largest = max(largest, math.Abs(float64(want[k][i])))
			}
			// A bias on keys moves all scores of a query alike where nothing rotates: its gradient is what rounding leaves of zero,
			// by the size of what cancels: up to 2e-8 for the images' wide weights.
			if !(worst <= tolerance*largest+3e-8) {
				t.Errorf("%s: gradient of %s%s differs by %.3g, its largest magnitude is %.3g", what, v.Prefix, s.Name, worst, largest)
			}
		}
		k++
	}
	if k != len(got) || k != len(want) {
		t.Errorf("%s: %d and %d vectors, want %d", what, len(got), len(want), k)
	}
}

// TestGradients compares the gradients of cut stages with those of one whole graph that GoMLX differentiates, for every
// architecture and way of tuning, on packed rows with padding; then outputs of maps that are kept with ones that are computed
// again.
func TestGradients(t *testing.T) {
	b := goBackend(t)
	for _, c := range trainable {
		for _, tuning := range tunings {
			if c.dir == "vit" && adaptsTable(tuning.name) {
				continue
			}
			t.Run(c.name+"/"+tuning.name, func(t *testing.T) {
				m := tuned(t, b, changed(t, c.dir, c.change), tuning.make)
				in, targets := packedBatch(m.D)
				const factor = 0.25
				loss, want := plainGradient(t, m, in, targets, factor, nil)
				kept, got := backward(t, m, in, targets, PassOptions{Factor: factor, Chunk: 7})
				if math.Abs(kept-loss) > 1e-5*loss {
					t.Errorf("loss %v, in one graph %v", kept, loss)
				}
				compare(t, m, "kept", got, want, 1e-4)
				_, again := backward(t, m, in, targets, PassOptions{Factor: factor, Recompute: true})
				compare(t, m, "recomputed", again, got, 1e-5)
				m.Group = 2
				grouped, again := backward(t, m, in, targets, PassOptions{Factor: factor, Chunk: 7})
				if math.Abs(grouped-kept) > 1e-6*kept {
					t.Errorf("loss %v in groups of two blocks, %v block by block", grouped, kept)
				}
				compare(t, m, "in groups of two", again, got, 1e-5)
				m.Group = 3
				_, again = backward(t, m, in, targets, PassOptions{Factor: factor, Recompute: true})
				compare(t, m, "in groups of three, recomputed", again, got, 1e-5)
			})
		}
	}
}

// TestGradientsByDifference compares gradients with differences of losses: for every tensor along its own gradient. DoRA's factors
// are left out, since its norms count as constants (TestGradients has them).
func TestGradientsByDifference(t *testing.T) {
	b := goBackend(t)
	for _, c := range trainable {
		for _, tuning := range tunings {
			switch {
			case tuning.name == "full":
			case tuning.name == "lora" || tuning.name == "dora" || tuning.name == "lora_bias":
				if c.name != "gpt2" && c.name != "gemma2" {
					continue // maps and their adapters are the same everywhere
				}
			default:
				continue
			}
			t.Run(c.name+"/"+tuning.name, func(t *testing.T) {
				m := tuned(t, b, changed(t, c.dir, c.change), tuning.make)
				in, targets := packedBatch(m.D)
				_, grads := backward(t, m, in, targets, PassOptions{Factor: 1})
				at := func(v *Vector, data []float32) float64 {
					if err := m.SetVector(v, data); err != nil {
						t.Fatal(err)
					}
					r, err := m.Loss(in, targets, 2) // sums of few terms round little
					if err != nil {
						t.Fatal(err)
					}
					return r.Loss
				}
				k := 0
				for _, v := range m.Vectors {
					if v == nil {
						continue
					}
					g := grads[k]
					k++
					values, err := gt.CopyFlatData[float32](v.Value)
					if err != nil {
						t.Fatal(err)
					}
					for _, s := range v.Packed.Segments {
						if tuning.name == "dora" && !strings.HasSuffix(s.Name, "magnitude_vector") {
							continue
						}
						var square float64
						for _, x := range g[s.Offset : s.Offset+s.Size()] {
							square += float64(x) * float64(x)
						}
						norm := math.Sqrt(square)
						if norm == 0 {
							t.Errorf("%s%s has no gradient", v.Prefix, s.Name)
							continue
						}
						// A step that moves the loss by a twentieth, or the tensor by a hundredth of a unit in length if that is less.
						step := min(0.05/norm, 0.01)
						side := func(sign float64) float64 {
							moved := slices.Clone(values)
							for i := s.Offset; i < s.Offset+s.Size(); i++ {
								moved[i] += float32(sign * step * float64(g[i]) / norm)
							}
							return at(v, moved)
						}
						slope := (side(1) - side(-1)) / (2 * step)
						// Losses are exact to about 1e-5.
						if d := math.Abs(slope - norm); d > 2e-3*norm+1e-5/step {
							t.Errorf("%s%s: slope %.6g, gradient %.6g", v.Prefix, s.Name, slope, norm)
						}
					}
					at(v, values)
				}
			})
		}
	}
}

// TestGradientsInBF16 computes in bfloat16 on float32 masters: the gradients of each tensor point where those in float32 do.
func TestGradientsInBF16(t *testing.T) {
	b := goBackend(t)
	for _, c := range trainable {
		for _, tuning := range tunings {
			if (tuning.name != "full" && tuning.name != "lora" && tuning.name != "dora") || (c.dir == "vit" && adaptsTable(tuning.name)) {
				continue
			}
			t.Run(c.name+"/"+tuning.name, func(t *testing.T) {
				dir := changed(t, c.dir, c.change)
				m := tuned(t, b, dir, tuning.make)
				if x := m.D.Mixture; x != nil && x.PerToken < x.Experts {
					t.Skip("rounding to bfloat16 sends some tokens to other experts, and then the gradients have nothing in common")
				}
				in, targets := packedBatch(m.D)
				_, want := backward(t, m, in, targets, PassOptions{Factor: 1})
				half := tunedAs(t, b, dir, dtypes.BFloat16, tuning.make)
				for _, recompute := range []bool{false, true} {
					_, got := backward(t, half, in, targets, PassOptions{Factor: 1, Recompute: recompute})
					k := 0
					for _, v := range half.Vectors {
						if v == nil {
							continue
						}
						var dot, a, b float64
						for i, x := range want[k] {
							y := float64(got[k][i])
							dot, a, b = dot+float64(x)*y, a+float64(x)*float64(x), b+y*y
						}
						k++
						if cos := dot / math.Sqrt(a*b); !(cos > 0.99) || math.Abs(math.Sqrt(b/a)-1) > 0.05 {
							t.Errorf("recompute %v: gradient of %q has cosine %.4f and %.3f of the length", recompute, v.Prefix, cos, math.Sqrt(b/a))
						}
					}
				}
			})
		}
	}
}

// TestDropoutGradients sees that going backwards meets the masks of the way forward: the gradients are those of one graph with the
// same streams, the same whenever a stream comes again, others for another stream. A is hit by the mask linearly where B is zero,
// so that over many streams the mean of B's gradient is that without dropout.
func TestDropoutGradients(t *testing.T) {
	b := goBackend(t)
	with := func(p float64, zero bool) func(*testing.T, *Description, map[string]Tensor) *Overlay {
		return func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
			n, o := noise(6), newOverlay()
			for i := range d.Layers {
				for _, l := range d.BlockLinears() {
					n.adapt(o, d.LayerName(i, l.Name), l, Adaption{Rank: 2, Dropout: p})
				}
			}
			for name, v := range o.Tensors {
				if zero && strings.HasSuffix(name, ".lora_B.weight") {
					clear(v.Data)
				}
			}
			return o
		}
	}
	for _, name := range []string{"llama", "gpt2", "phi3", "gemma2"} {
		t.Run(name, func(t *testing.T) {
			m := tuned(t, b, filepath.Join(goldenModels, name), with(0.3, false))
			in, targets := packedBatch(m.D)
			one, two := uint64(5), uint64(6)
			loss, want := plainGradient(t, m, in, targets, 1, &one)
			first, got := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one})
			if math.Abs(first-loss) > 1e-5*loss {
				t.Errorf("loss %v, in one graph %v", first, loss)
			}
			compare(t, m, "dropout", got, want, 1e-4)
			_, again := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one})
			if fmt.Sprint(again) != fmt.Sprint(got) {
				t.Error("the same stream gives another gradient")
			}
			_, again = backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one, Recompute: true})
			compare(t, m, "recomputed", again, got, 1e-5)
			m.Group = 2
			_, again = backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one, Chunk: 7})
			compare(t, m, "in groups of two", again, got, 1e-5)
			m.Group = 0
			if other, _ := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &two}); math.Abs(other-first) < 1e-4 {
				t.Errorf("another stream has the same loss, %v", other)
			}
		})
	}
	t.Run("mean", func(t *testing.T) {
		m := tuned(t, b, filepath.Join(goldenModels, "llama"), with(0.3, true))
		in, targets := packedBatch(m.D)
		_, want := backward(t, m, in, targets, PassOptions{Factor: 1})
		const streams = 100
		mean := make([][]float64, len(want))
		for k := range mean {
			mean[k] = make([]float64, len(want[k]))
		}
		for s := range uint64(streams) {
			_, got := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &s})
			for k := range got {
				for i, x := range got[k] {
					mean[k][i] += float64(x) / streams
				}
			}
		}
		for k, v := range m.Vectors[1:] {
			for _, s := range v.Packed.Segments {
				if !strings.HasSuffix(s.Name, ".lora_B.weight") {
					continue
				}
				var off, all float64
				for i := s.Offset; i < s.Offset+s.Size(); i++ {
					d := mean[k][i] - float64(want[k][i])
					off, all = off+d*d, all+float64(want[k][i])*float64(want[k][i])
				}
				// One stream is off by about sqrt(p/(1-p)) of what the features add up to; a hundred by a tenth of that.
				if r := math.Sqrt(off / all); r > 0.2 {
					t.Errorf("%s%s: the mean gradient is off by %.3g", v.Prefix, s.Name, r)
				}
			}
		}
	})
}

// TestHeadDropout sees that an adapter on the head drops its input as PEFT has it: gradients of chunks are those of one graph with
// the same mask; the mask belongs to the position in the batch and not to
// the chunk; an evaluation drops nothing.
func TestHeadDropout(t *testing.T) {
	b := goBackend(t)
	with := func(p float64) func(*testing.T, *Description, map[string]Tensor) *Overlay {
		return func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
			n, o := noise(9), newOverlay()
			for _, l := range d.HeadLinears() {
				n.adapt(o, l.Name, l, Adaption{Rank: 3, Dropout: p})
			}
			return o
		}
	}
	for _, c := range trainable {
		if !slices.Contains([]string{"llama", "gpt2", "gemma2", "bert that tells classes", "llama that tells classes"}, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			dir := changed(t, c.dir, c.change)
			m := tuned(t, b, dir, with(0.4))
			in, targets := packedBatch(m.D)
			one, two := uint64(5), uint64(6)
			loss, want := plainGradient(t, m, in, targets, 1, &one)
			first, got := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one, Chunk: 7})
			if math.Abs(first-loss) > 1e-5*loss {
				t.Errorf("loss %v, in one graph %v", first, loss)
			}
			compare(t, m, "dropout", got, want, 1e-4)
			_, again := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one, Chunk: 7, Recompute: true})
			if fmt.Sprint(again) != fmt.Sprint(got) {
				t.Error("the same stream gives another gradient")
			}
			_, again = backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one, Chunk: 3})
			compare(t, m, "another chunk", again, got, 1e-5)
			if other, _ := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &two}); math.Abs(other-first) < 1e-5 {
				t.Errorf("another stream has the same loss, %v", other)
			}
			whole, _ := backward(t, m, in, targets, PassOptions{Factor: 1})
			if math.Abs(whole-first) < 1e-5 {
				t.Errorf("the loss is %v with and without dropout", whole)
			}
			eval, err := m.Loss(in, targets, 7)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(eval.Loss-whole) > 1e-5*whole {
				t.Errorf("evaluation has the loss %v, a pass without dropout %v", eval.Loss, whole)
			}
		})
	}
}

// TestHeadDropoutByDifference differentiates the loss with a fixed mask by differences, along the gradient of each factor.
func TestHeadDropoutByDifference(t *testing.T) {
	b := goBackend(t)
	m := tuned(t, b, filepath.Join(goldenModels, "llama"), func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
		n, o := noise(9), newOverlay()
		n.adapt(o, d.Names.LMHead, d.HeadLinears()[0], Adaption{Rank: 3, Dropout: 0.4})
		return o
	})
	in, targets := packedBatch(m.D)
	pass := uint64(5)
	_, grads := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &pass})
	v, g := m.Vectors[0], grads[0]
	values, err := gt.CopyFlatData[float32](v.Value)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range v.Packed.Segments {
		var square float64
		for _, x := range g[s.Offset : s.Offset+s.Size()] {
			square += float64(x) * float64(x)
		}
		norm := math.Sqrt(square)
		step := min(0.05/norm, 0.01)
		side := func(sign float64) float64 {
			moved := slices.Clone(values)
			for i := s.Offset; i < s.Offset+s.Size(); i++ {
				moved[i] += float32(sign * step * float64(g[i]) / norm)
			}
			if err := m.SetVector(v, moved); err != nil {
				t.Fatal(err)
			}
			loss, _ := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &pass, Chunk: 2})
			return loss
		}
		slope := (side(1) - side(-1)) / (2 * step)
		if d := math.Abs(slope - norm); norm == 0 || d > 2e-3*norm+1e-5/step { // as TestGradientsByDifference
			t.Errorf("%s: slope %.6g, gradient %.6g", s.Name, slope, norm)
		}
		if err := m.SetVector(v, values); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLossSharesTheForwardGraph sees that blocks are compiled once for an evaluation and for a pass that keeps nothing, and that
// CompileLoss leaves nothing of a block or the loss to compile.
func TestLossSharesTheForwardGraph(t *testing.T) {
	m := tuned(t, goBackend(t), filepath.Join(goldenModels, "llama"), tunings[0].make)
	in, targets := packedBatch(m.D)
	if err := m.CompileLoss(in.Rows, in.Length, 0); err != nil {
		t.Fatal(err)
	}
	compiled := len(m.execs.list)
	before, err := m.Loss(in, targets, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.execs.list) - compiled; n != 1 {
		t.Errorf("%d graphs beside those that were compiled ahead, want that of the embeddings alone", n)
	}
	loss, _ := backward(t, m, in, targets, PassOptions{Factor: 1, Recompute: true})
	if math.Float64bits(loss) != math.Float64bits(before.Loss) {
		t.Errorf("loss %v in training, %v in evaluation", loss, before.Loss)
	}
	forward := 0
	for key := range m.execs.list {
		if strings.HasPrefix(key, "forward") {
			forward++
		}
	}
	distinct := map[string]bool{}
	for _, s := range m.blocks {
		distinct[s.signature()] = true
	}
	if forward != len(distinct) {
		t.Errorf("%d forward graphs for %d kinds of block", forward, len(distinct))
	}
}

// TestGroups sees that a pass of groups needs fewer executions, that CompilePass and CompileLoss leave nothing of it to compile, and that
// sums that have begun are added to.
func TestGroups(t *testing.T) {
	for _, name := range []string{"go", "xla:cpu", "xla:cuda"} {
		b, _, err := backend.OpenModel(name)
		if err != nil && name != "go" {
			t.Logf("without %s: %v", name, err)
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Finalize)
		t.Run(name, func(t *testing.T) {
			m := tuned(t, b, filepath.Join(goldenModels, "llama"), func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
				o, n := newOverlay(), noise(3)
				for i := range d.Layers {
					for _, l := range d.BlockLinears() {
						n.adapt(o, d.LayerName(i, l.Name), l, Adaption{Rank: 2})
					}
				}
				return o
			})
			in, targets := packedBatch(m.D)
			o := PassOptions{Factor: 1, Chunk: 5, Packed: true}
			count := func(group int) (graphs, calls int, grads [][]float32) {
				m.Group, m.calls = group, 0
				if err := m.CompilePass(in.Rows, in.Length, o); err != nil {
					t.Fatal(err)
				}
				g, err := m.NewGradients()
				if err != nil {
					t.Fatal(err)
				}
				defer g.Free()
				before := len(m.execs.list)
				for range 2 {
					if _, err := m.Backward(in, targets, g, o); err != nil {
						t.Fatal(err)
					}
				}
				calls, graphs = m.calls, len(m.execs.list)-before
				for _, s := range g.Sums {
					if s != nil {
						values, err := gt.CopyFlatData[float32](s)
						if err != nil {
							t.Fatal(err)
						}
						grads = append(grads, values)
					}
				}
				return graphs, calls, grads
			}
			n, chunks := len(m.blocks), (len(targets.Rows)+4)/5
			fresh, calls, want := count(1)
			if fresh != 2 || calls != 2*(2*n+chunks+2) {
				t.Errorf("block by block: %d graphs that were not compiled ahead, %d calls; want 2 (the embeddings, and zeros) and %d", fresh, calls, 2*(2*n+chunks+2))
			}
			fresh, calls, got := count(n)
			if whole := chunks/n + chunks%n; fresh != 0 || calls != 2*(2+whole+2) {
				t.Errorf("all blocks at once: %d graphs that were not compiled ahead, %d calls; want 0 and %d", fresh, calls, 2*(2+whole+2))
			}
			compare(t, m, "in one group", got, want, 1e-5)
			if err := m.CompileLoss(in.Rows, in.Length, 0); err != nil {
				t.Fatal(err)
			}
			before := len(m.execs.list)
			grouped, err := m.Loss(in, targets, 0)
			if err != nil {
				t.Fatal(err)
			}
			if fresh := len(m.execs.list) - before; fresh != 0 {
				t.Errorf("an evaluation compiles %d graphs", fresh)
			}
			m.Group = 1
			if single, err := m.Loss(in, targets, 0); err != nil || math.Abs(single.Loss-grouped.Loss) > 1e-6*single.Loss {
				t.Errorf("loss %v in groups, %v without (%v)", grouped.Loss, single.Loss, err)
			}
		})
	}
}
