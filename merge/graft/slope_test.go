package graft

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
)

// The golden mask of the reference: γ from the first mask and S.
func TestMaskGolden(t *testing.T) {
	for i, c := range []struct{ base, s, want float64 }{{0, 0, 4.5397869e-5}, {1, 0, 0.9999546}, {0, 5, 0.0066928509}} {
		l := (1 - 2*c.base) * (c.s - 10)
		if got := sigmoid(l); math.Abs(got-c.want) > 1e-7 {
			t.Errorf("element %d: %v, want %v", i, got, c.want)
		}
	}
}

// The slope of the loss by the mask's S is what automatic differentiation of the whole composition gives: mask, weights, network, loss.
func TestSlopeIsAutodiff(t *testing.T) {
	d := digits8(t)
	b := openModels(t)
	s := d.space(t)
	ctx := context.Background()
	first, err := s.Magnitude(ctx, 3000)
	if err != nil {
		t.Fatal(err)
	}
	train := digitsJudge(t, b, d.train)
	defer train.Release()
	l, err := train.Learner(ctx, align.OfCheckpoint(s.base), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// S is spread so that masks of all kinds occur, and (1-2γb)(S-c) with it.
	g := s.newLogits(first, LearnOptions{Anchor: 10, Optimizer: Adam})
	turn, S := map[string][]float32{}, map[string][]float32{}
	for p := range s.pairs {
		name := s.pairs[p].name
		turn[name], S[name] = make([]float32, s.pairs[p].n), make([]float32, s.pairs[p].n)
		for i := range S[name] {
			turn[name][i] = 1
			if first.has(p, int64(i)) {
				turn[name][i] = -1
			}
			S[name][i] = 10 + 3*float32(math.Sin(float64(7*i+p)))
			g.l[p][i] = turn[name][i] * (S[name][i] - 10)
		}
	}
	if err := l.Set(func(name string, dst []float32) error { return g.soft(s.at[name], dst) }); err != nil {
		t.Fatal(err)
	}
	const n = 50
	var some []int
	for i := range n {
		some = append(some, i)
	}
	if _, err := l.Gradient(ctx, some, model.ObjectiveLoss); err != nil {
		t.Fatal(err)
	}
	hand := map[string][]float64{}
	base, tuned := align.OfCheckpoint(s.base), align.OfCheckpoint(s.tuned)
	err = l.Visit(func(name string, grad []float32) error {
		x, err := base.Read(name)
		if err != nil {
			return err
		}
		y, err := tuned.Read(name)
		for i, v := range grad {
			hand[name] = append(hand[name], float64(turn[name][i])*float64(slope(v, y[i]-x[i], g.l[s.at[name]][i])))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// The same by GoMLX, from S to the loss.
	names := []string{"in.weight", "in.bias", "mid.weight", "mid.bias", "out.weight", "out.bias"}
	x, classes := make([][]float32, n), make([]int32, n)
	text, err := os.ReadFile(d.train)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Fields(string(text))[:n] {
		var all []float32
		if err := json.Unmarshal([]byte("["+line+"]"), &all); err != nil {
			t.Fatal(err)
		}
		for _, v := range all[:64] {
			x[i] = append(x[i], v/16)
		}
		classes[i] = int32(all[64])
	}
	args := []any{x, classes}
	for _, name := range names {
		xs, err := base.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		ys, err := tuned.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, S[name], turn[name], xs, ys)
	}
	exec, err := NewExec(b, func(in []*Node) []*Node {
		w := map[string]*Node{}
		var s []*Node
		for k, name := range names {
			p := in[2+4*k : 6+4*k]
			s = append(s, p[0])
			first := MulScalar(SubScalar(p[1], 1), -0.5) // 1 inside the first mask
			gamma := Add(first, Mul(p[1], Sigmoid(SubScalar(p[0], 10))))
			w[name] = Reshape(Add(p[2], Mul(gamma, Sub(p[3], p[2]))), digitsShapes[name]...)
		}
		h := in[0]
		for _, layer := range []string{"in", "mid", "out"} {
			h = Add(DotGeneral(h, []int{1}, nil, w[layer+".weight"], []int{1}, nil), InsertAxes(w[layer+".bias"], 0))
			if layer != "out" {
				h = Max(h, ZerosLike(h))
			}
		}
		picked := ReduceSum(Mul(LogSoftmax(h), OneHot(in[1], 10, h.DType())), -1)
		loss := Neg(ReduceAllMean(picked))
		return Gradient(loss, s...)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	largest, worst := 0.0, 0.0
	for k, name := range names {
		for i, v := range out[k].Value().([]float32) {
			largest = max(largest, math.Abs(float64(v)))
			worst = max(worst, math.Abs(float64(v)-hand[name][i]))
		}
	}
	if !(largest > 0) || worst > 1e-5*largest {
		t.Fatalf("slopes up to %g, and the hand's is off by %g", largest, worst)
	}
}
