package model

import (
	"math/bits"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// Pass is a batch that went through the blocks: its hidden states, of which heads compute what is asked for.
type Pass struct {
	m  *Model
	in Input
	h  *gt.Tensor
}

// Pass sends a batch through the blocks. The caller frees it.
func (m *Model) Pass(in Input) (*Pass, error) {
	in, err := m.D.check(in)
	if err != nil {
		return nil, err
	}
	h, err := m.Hidden(in)
	if err != nil {
		return nil, err
	}
	return &Pass{m, in, h}, nil
}

// Free gives the hidden states' memory back.
func (p *Pass) Free() {
	if p != nil {
		free(p.h)
	}
}

// RowLogits returns the logits after single positions of a batch, [len(rows), V], or [len(rows), len(ids)] for some tokens only.
// rows: row*Length + column, as Targets have them. Other positions cost nothing in the head.
func (m *Model) RowLogits(in Input, rows, ids []int32) (*Output, error) {
	p, err := m.Pass(in)
	if err != nil {
		return nil, err
	}
	defer p.Free()
	return p.RowLogits(rows, ids)
}

// RowLogits is Model.RowLogits of a pass.
func (p *Pass) RowLogits(rows, ids []int32) (*Output, error) {
	m := p.m
	probe := Targets{Rows: rows, IDs: make([]int32, len(rows)), Weights: make([]float32, len(rows))}
	if err := m.checkTargets(p.in, probe); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if id < 0 || int(id) >= m.D.Vocab {
			return nil, &VocabularyError{ID: int(id), Vocab: m.D.Vocab}
		}
	}
	width := m.D.Vocab
	if ids != nil {
		width = len(ids)
	}
	out := &Output{Shape: []int{len(rows), width}}
	if len(rows) == 0 || width == 0 {
		return out, nil
	}
	name, columns := "row logits", []any(nil)
	if ids != nil {
		t, err := putOn(m, ids, len(ids))
		if err != nil {
			return nil, err
		}
		defer free(t)
		name, columns = "row logits of some tokens", []any{t}
	}
	c := m.fewRows(len(rows))
	for _, part := range probe.chunks(c, p.in.Rows*p.in.Length) {
		at, err := putOn(m, part.Rows, c)
		if err != nil {
			return nil, err
		}
		got, err := m.run(name, m.head, m.rowLogitsGraph, append([]any{p.h, at}, columns...)...)
		free(at)
		if err != nil {
			return nil, err
		}
		data, err := gt.CopyFlatData[float32](got[0])
		free(got...)
		if err != nil {
			return nil, err
		}
		out.Data = append(out.Data, data[:min(len(data), len(rows)*width-len(out.Data))]...)
	}
	return out, nil
}

// fewRows returns how many rows the head takes at a time: one of few numbers, since each is compiled.
func (m *Model) fewRows(n int) int {
	return m.ChunkRows(max(16, 1<<bits.Len(uint(max(n, 1)-1))), 0)
}

// rowLogitsGraph builds the logits of chosen rows: h [B,S,H], rows [c], ids [k]? to [c,V] or [c,k].
func (m *Model) rowLogitsGraph(o *ops, in []*Node) []*Node {
	rows := Gather(Reshape(in[0], -1, m.D.Hidden), InsertAxes(in[1], -1))
	logits := m.D.Logits(o, m.D.FinalNorm(o, rows))
	if len(in) > 2 {
		logits = TransposeAllAxes(Gather(TransposeAllAxes(logits, 1, 0), InsertAxes(in[2], -1)), 1, 0)
	}
	return []*Node{logits}
}

// LogProbs returns the logarithm of the probability of every target, in their order, and whether it has the largest logit (ties
// count). Weights do not matter.
func (m *Model) LogProbs(in Input, t Targets) (logs []float32, first []bool, err error) {
	p, err := m.Pass(in)
	if err != nil {
		return nil, nil, err
	}
	defer p.Free()
	return p.LogProbs(t)
}

// LogProbs is Model.LogProbs of a pass.
func (p *Pass) LogProbs(t Targets) (logs []float32, first []bool, err error) {
	m := p.m
	if t.Weights == nil {
		t.Weights = make([]float32, len(t.Rows))
	}
	if err := m.checkTargets(p.in, t); err != nil {
		return nil, nil, err
	}
	c := m.fewRows(len(t.Rows))
	for _, part := range t.chunks(c, p.in.Rows*p.in.Length) {
		data, err := m.headData(part)
		if err != nil {
			return nil, nil, err
		}
		got, err := m.run("log probabilities", m.head, func(o *ops, in []*Node) []*Node {
			_, logits, _, _, picked, lse := m.lossGraph(o, in)
			value := ReduceSum(Where(picked, logits, ZerosLike(logits)), 1)
			return []*Node{Sub(value, lse), ConvertDType(GreaterOrEqual(value, ReduceMax(logits, 1)), dtypes.Float32)}
		}, append([]any{p.h}, data...)...)
		freeArgs(data)
		if err != nil {
			return nil, nil, err
		}
		var lists [2][]float32
		for i := range lists {
			if lists[i], err = gt.CopyFlatData[float32](got[i]); err != nil {
				break
			}
		}
		free(got...)
		if err != nil {
			return nil, nil, err
		}
		n := min(c, len(t.Rows)-len(logs))
		logs = append(logs, lists[0][:n]...)
		for _, v := range lists[1][:n] {
			first = append(first, v != 0)
		}
	}
	return logs, first, nil
}

// pooledGraph builds embeddings of texts: h [B,S,H], segments [B,S] to float32 [B, width].
func (m *Model) pooledGraph(p *Pooling) graphOf {
	return func(o *ops, in []*Node) []*Node {
		h := ConvertDType(m.D.FinalNorm(o, in[0]), dtypes.Float32)
		b, s, width := h.Shape().Dim(0), h.Shape().Dim(1), m.D.Hidden
		g := h.Graph()
		text := NotEqual(in[1], Scalar(g, dtypes.Int32, 0)) // [B,S]
		cube := BroadcastToDims(InsertAxes(text, -1), b, s, width)
		mask := ConvertDType(text, dtypes.Float32)
		sum := func(w *Node) *Node { return ReduceSum(Mul(h, InsertAxes(w, -1)), 1) }
		count := MaxScalar(ReduceAndKeep(mask, ReduceSum, 1), 1e-9) // [B,1]
		// pick returns the states at one position of every text.
		pick := func(at *Node) *Node {
			return Gather(h, Stack([]*Node{Iota(g, at.Shape(), 0), at}, -1))
		}
		columns := Iota(g, shapes.Make(dtypes.Int32, b, s), 1)
		var parts []*Node
		for _, mode := range p.Modes {
			switch mode {
			case PoolMean:
				parts = append(parts, Div(sum(mask), count))
			case PoolMeanSqrt:
				parts = append(parts, Div(sum(mask), Sqrt(count)))
			case PoolWeighted: // later positions weigh more, counted from the first column as the reference does
				w := Mul(mask, ConvertDType(OnePlus(columns), dtypes.Float32))
				parts = append(parts, Div(sum(w), MaxScalar(ReduceAndKeep(w, ReduceSum, 1), 1e-9)))
			case PoolMax:
				parts = append(parts, ReduceMax(Where(cube, h, FillScalar(g, h.Shape(), -1e9)), 1))
			case PoolFirst:
				first := ReduceMin(Where(text, columns, FillScalar(g, columns.Shape(), float64(s-1))), 1)
				parts = append(parts, pick(first))
			case PoolLast:
				parts = append(parts, pick(ReduceMax(Where(text, columns, ZerosLike(columns)), 1)))
			}
		}
		out := parts[0]
		if len(parts) > 1 {
			out = Concatenate(parts, 1)
		}
		if p.Normalize {
			out = Div(out, MaxScalar(Sqrt(ReduceAndKeep(Square(out), ReduceSum, 1)), 1e-12))
		}
		return []*Node{out}
	}
}

// Embed returns one vector for every text of a batch, [Rows, width].
func (m *Model) Embed(in Input, p *Pooling) (*Output, error) {
	in, err := m.D.check(in)
	if err != nil {
		return nil, err
	}
	h, err := m.Hidden(in)
	if err != nil {
		return nil, err
	}
	defer free(h)
	segments, err := putOn(m, in.Segments, in.Rows, in.Length)
	if err != nil {
		return nil, err
	}
	defer free(segments)
	got, err := m.run("embeddings of texts "+p.String(), m.head, m.pooledGraph(p), h, segments)
	if err != nil {
		return nil, err
	}
	defer free(got...)
	data, err := gt.CopyFlatData[float32](got[0])
	if err != nil {
		return nil, err
	}
	return &Output{got[0].Shape().Dimensions, data}, nil
}
