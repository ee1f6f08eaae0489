package moe

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// mostTokens bounds a prompt: attention holds the square of it.
const mostTokens = 8192

// tokenize turns every prompt into ids: the token that begins a text, if the tokenizer has one, and the prompt, with no other special
// tokens.
func (p *Plan) tokenize(groups []promptGroup) (map[string][]int32, error) {
	t, err := tokenizer.Open(p.Base.TokenizerDir())
	if err != nil {
		return nil, err
	}
	rows := 0
	if info, ok := p.Base.Lookup(p.embed); ok && len(info.Shape) == 2 {
		rows = info.Shape[0]
	}
	bos, _, _ := t.BOS()
	texts := map[string][]int32{}
	for _, g := range groups {
		for _, text := range slices.Concat(g.positive, g.negative) {
			if _, done := texts[text]; done {
				continue
			}
			ids, err := t.EncodeErr(bos+text, false)
			refuse := func(format string, args ...any) error {
				return p.Config.errorf(g.expert.Pos, "%s: the prompt %q %s", g.expert.Model, short(text), fmt.Sprintf(format, args...))
			}
			switch {
			case err != nil:
				return nil, refuse("cannot be tokenised: %s", err)
			case len(ids) == 0:
				return nil, refuse("has no token; give text")
			case len(ids) > mostTokens:
				return nil, refuse("has %d tokens, at most %d are taken; shorten it", len(ids), mostTokens)
			}
			list := make([]int32, len(ids))
			for i, id := range ids {
				if id < 0 || id >= rows {
					return nil, refuse("has the token %d, and the embedding of %s has %d rows; its tokenizer belongs to another model", id, p.Base.Name(), rows)
				}
				list[i] = int32(id)
			}
			texts[text] = list
		}
	}
	return texts, nil
}

// short cuts a prompt for a message.
func short(text string) string {
	const most = 40
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "..."
	}
	return text
}

// hidden runs the base over the prompts and returns, for a list of them, the mean over prompts of the states that enter each layer: of the
// last token, or of all of a prompt's.
//
// Every prompt is computed as if it were alone, padding on the right where nothing looks at it. So the mean over positions is one of the
// prompt's own tokens. kind is that of the backend.
func (p *Plan) hidden(ctx context.Context, texts map[string][]int32, o GateOptions) (vectors func(prompts []string) ([][]float64, error), kind string, err error) {
	d, err := model.Describe(p.Base.RawConfig)
	if err != nil {
		return nil, "", p.Config.errorf(p.Config.Base.Pos, "%s: %s", p.Base.Name(), err)
	}
	backend, done, err := o.Backend()
	if err != nil {
		return nil, "", err
	}
	defer done()
	order := make([]string, 0, len(texts))
	for text := range texts {
		order = append(order, text)
	}
	slices.Sort(order)
	sequences := make([][]int32, len(order))
	states := map[string][][]float64{}
	for i, text := range order {
		sequences[i] = texts[text]
		states[text] = make([][]float64, p.Layers)
	}
	average := p.Config.Gate == GateHiddenAvg
	read := reader{m: p.Base, d: d, waiting: new(int)}
	err = d.BlockStates(ctx, sequences, model.Options{Backend: backend}, model.BlockWeights{Values: read.values, Rows: read.rows}, func(layer, text int, x []float32) error {
		if layer == p.Layers {
			return nil
		}
		states[order[text]][layer] = pool(x, p.Hidden, average)
		if o.Progress != nil && text == len(order)-1 {
			o.Progress(layer+1, p.Layers, "hidden states of the prompts")
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return func(prompts []string) ([][]float64, error) {
		mean := make([][]float64, p.Layers)
		for layer := range mean {
			mean[layer] = make([]float64, p.Hidden)
			for _, text := range prompts {
				for i, v := range states[text][layer] {
					mean[layer][i] += v / float64(len(prompts))
				}
			}
		}
		return mean, nil
	}, merge.KindOf(backend), nil
}

// pool makes one vector of a text's states, [tokens, width].
func pool(x []float32, width int, average bool) []float64 {
	v := make([]float64, width)
	n := len(x) / width
	first := n - 1
	if average {
		first = 0
	}
	for t := first; t < n; t++ {
		for i, f := range x[t*width : (t+1)*width] {
			v[i] += float64(f) / float64(n-first)
		}
	}
	return v
}

// reader gives a model's tensors to a forward pass, under the names of its class, as an adapter leaves them.
type reader struct {
	m       *plan.Model
	d       *model.Description
	waiting *int // bytes read since the last collection
}

// collectEvery is how many bytes of tensors that went to the device may wait for the collector.
const collectEvery = 256 << 20

func (r reader) values(name string, shape []int) ([]float32, error) {
	info, ok := r.d.Find(r.m, name)
	if !ok {
		return nil, &model.MissingError{Checkpoint: r.m.Name(), Tensor: name, Shape: shape}
	}
	if !slices.Equal(info.Shape, shape) {
		return nil, &model.ShapeError{Checkpoint: r.m.Name(), Tensor: info.Name, Have: info.Shape, Want: shape}
	}
	src, err := merge.Source(r.m, info.Name)
	if err != nil {
		return nil, err
	}
	if *r.waiting > collectEvery {
		runtime.GC()
		*r.waiting = 0
	}
	*r.waiting += 4 * int(info.Elems())
	x := make([]float32, info.Elems())
	return x, readFloats(src, x)
}

// rows gives rows of a matrix of the model's class.
func (r reader) rows(name string, rows []int32, width int) ([]float32, error) {
	info, ok := r.d.Find(r.m, name)
	if !ok {
		return nil, &model.MissingError{Checkpoint: r.m.Name(), Tensor: name, Shape: []int{len(rows), width}}
	}
	return r.rowsOf(info.Name, rows, width)
}

// rowsOf gives rows of a matrix of the model.
func (r reader) rowsOf(name string, rows []int32, width int) ([]float32, error) {
	src, err := merge.Source(r.m, name)
	if err != nil {
		return nil, err
	}
	if info, _ := r.m.Lookup(name); len(info.Shape) != 2 || info.Shape[1] != width {
		return nil, &model.ShapeError{Checkpoint: r.m.Name(), Tensor: name, Have: info.Shape, Want: []int{len(rows), width}}
	}
	scratch := make([]byte, width*src.DType().Size())
	x := make([]float32, len(rows)*width)
	for i, row := range rows {
		b, err := src.Bytes(int64(row)*int64(width), int64(width), scratch)
		if err != nil {
			return nil, err
		}
		if err := tensors.DecodeFloat32(x[i*width:(i+1)*width], b, src.DType()); err != nil {
			return nil, fmt.Errorf("%s: %w", src, err)
		}
	}
	return x, nil
}

// readFloats reads a whole tensor, piece by piece, and gives its pages back.
func readFloats(src stream.Source, x []float32) error {
	dtype := src.DType()
	scratch := make([]byte, min(len(x), pieceElems)*dtype.Size())
	for off := 0; off < len(x); off += pieceElems {
		n := min(pieceElems, len(x)-off)
		b, err := src.Bytes(int64(off), int64(n), scratch)
		if err != nil {
			return err
		}
		if err := tensors.DecodeFloat32(x[off:off+n], b, dtype); err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
		src.Release(int64(off), int64(n))
	}
	return nil
}
