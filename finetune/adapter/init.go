package adapter

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/internal/linalg"
)

// The ways to initialise factors, values of Config.Init beside "true", "false" and "pissa_niter_N".
const (
	initDefault    = "true"       // A uniform, B zero
	initRandom     = "false"      // both random: for tests only
	initGaussian   = "gaussian"   // A normal, B zero
	initOrthogonal = "orthogonal" // both non-zero, B·A zero
	initPiSSA      = "pissa"      // the principal singular vectors of the weight
	initOLoRA      = "olora"      // an orthonormal basis of the weight's columns
)

// checkInit refuses what this package does not initialise.
func (c *Config) checkInit() error {
	switch c.Init {
	case initDefault, initRandom, initGaussian, initOrthogonal, initPiSSA, initOLoRA:
		return nil
	case "loftq":
		return &Error{Where: "init_lora_weights", Msg: "loftq needs a quantised base, which this program does not train on", Hint: "use true or pissa"}
	case "eva", "corda", "lora_ga":
		return &Error{Where: "init_lora_weights", Msg: c.Init + " needs passes over the data before training, which this program does not make", Hint: "use true, pissa or olora"}
	case "mica":
		return &Error{Where: "init_lora_weights", Msg: "mica trains A alone, which this program does not do", Hint: "use true, pissa or olora"}
	}
	if _, ok := c.pissaIterations(); ok {
		return nil
	}
	return &Error{Where: "init_lora_weights", Msg: fmt.Sprintf("%q is unknown", c.Init), Hint: "use true, gaussian, orthogonal, pissa, pissa_niter_4, olora or false"}
}

// pissaIterations reads pissa_niter_N.
func (c *Config) pissaIterations() (int, bool) {
	text, ok := strings.CutPrefix(c.Init, "pissa_niter_")
	n, err := strconv.Atoi(text)
	return n, ok && err == nil && n > 0 && n <= 1000
}

// ChangesBase says whether training starts from a changed base (PiSSA, OLoRA): see Residual and Converted.
func (c *Config) ChangesBase() bool {
	_, fast := c.pissaIterations()
	return fast || c.Init == initPiSSA || c.Init == initOLoRA
}

// checkBase refuses an adapter whose factors belong to a base that its initialisation changed: on the base as it is they would
// be silently wrong.
func (a *Adapter) checkBase() error {
	if !a.Config.ChangesBase() {
		return nil
	}
	return &Error{File: a.Dir, Where: "init_lora_weights", Msg: a.Config.Init + " took a part out of the base before training, and these factors still hold it",
		Hint: "save the adapter again in peft with path_initial_model_for_weight_conversion; if it is for a base that was saved without that part, set the key to true"}
}

// Init makes the tensors that training starts from, keyed as on disk: A and B of every target, B's bias, DoRA's magnitudes.
// weight returns the values of a module's weight as stored; it is asked for DoRA, PiSSA and OLoRA only.
//
// Random numbers depend on seed and key, and on nothing else. Defaults are those of Hu et al., 2021; pissa: Meng et al.,
// 2024, "PiSSA: principal singular values and singular vectors adaptation"; olora: Büyükakyüz, 2024, "OLoRA: orthonormal
// low-rank adaptation".
func Init(c *Config, targets []Target, seed uint64, weight func(Module) ([]float32, error)) (map[string]Tensor, error) {
	if err := c.checkInit(); err != nil {
		return nil, err
	}
	out := map[string]Tensor{}
	for i := range targets {
		t := &targets[i]
		var w []float32
		if t.DoRA || c.ChangesBase() {
			var err error
			if w, err = weight(t.Module); err != nil {
				return nil, err
			}
			if len(w) != t.In*t.Out {
				return nil, fmt.Errorf("%s: %d values of a weight of %d by %d", t.Path, len(w), t.Out, t.In)
			}
		}
		a, b, err := c.factors(t, seed, w)
		if err != nil {
			return nil, err
		}
		out[t.A], out[t.B] = Tensor{t.ShapeA(), a}, Tensor{t.ShapeB(), b}
		if t.BiasB != "" {
			x := make([]float32, t.Out)
			if c.Init == initRandom {
				linalg.Uniform(x, seed, t.BiasB)
				spread(x, 1/math.Sqrt(float64(t.Rank)))
			}
			out[t.BiasB] = Tensor{[]int{t.Out}, x}
		}
		if t.Magnitude != "" {
			out[t.Magnitude] = Tensor{[]int{t.Out}, rowNorms(t.Module, w)}
		}
	}
	return out, nil
}

// factors returns A [rank, in] and B [out, rank].
func (c *Config) factors(t *Target, seed uint64, w []float32) (a, b []float32, err error) {
	a, b = make([]float32, t.Rank*t.In), make([]float32, t.Out*t.Rank)
	if t.Kind == Embedding { // whatever the method, except that both are random
		if c.Init == initRandom {
			linalg.Normal(a, seed, t.A)
		}
		linalg.Normal(b, seed, t.B)
		return a, b, nil
	}
	switch c.Init {
	case initDefault, initRandom:
		// Kaiming's uniform with a = √5 is a bound of 1/√in.
		linalg.Uniform(a, seed, t.A)
		spread(a, 1/math.Sqrt(float64(t.In)))
		if c.Init == initRandom {
			linalg.Uniform(b, seed, t.B)
			spread(b, 1/math.Sqrt(float64(t.Rank)))
		}
		return a, b, nil
	case initGaussian:
		linalg.Normal(a, seed, t.A)
		for i := range a {
			a[i] /= float32(t.Rank)
		}
		return a, b, nil
	case initOrthogonal:
		return a, b, orthogonal(t, seed, a, b)
	case initOLoRA:
		return a, b, olora(t, w, a, b)
	}
	return a, b, c.pissa(t, seed, w, a, b)
}

// spread turns numbers of [0, 1) into numbers of [-bound, bound).
func spread(x []float32, bound float64) {
	for i := range x {
		x[i] = float32((2*float64(x[i]) - 1) * bound)
	}
}

// stored views a weight as the matrix [out, in] that it means.
func (m Module) stored(w []float32) linalg.Matrix {
	if m.Kind == Linear {
		return linalg.Of(w, m.Out, m.In)
	}
	return linalg.Of(w, m.In, m.Out).T()
}

// rowNorms are the lengths of the rows of the matrix [out, in]: where DoRA's magnitudes start.
func rowNorms(m Module, w []float32) []float32 {
	v := m.stored(w)
	out := make([]float32, m.Out)
	for i := range out {
		sum := 0.0
		for j := range m.In {
			x := float64(v.At(i, j))
			sum += x * x
		}
		out[i] = float32(math.Sqrt(sum))
	}
	return out
}

// orthogonal splits the rows of one orthonormal matrix between A and B, so that their product is zero although neither is.
func orthogonal(t *Target, seed uint64, a, b []float32) error {
	r := t.Rank
	if r%2 != 0 {
		return &Error{Where: "init_lora_weights", Msg: fmt.Sprintf("orthogonal needs an even rank; %s has %d", t.Path, r)}
	}
	x := make([]float32, r*r)
	linalg.Normal(x, seed, t.A+" basis")
	square := mat.NewDense(r, r, nil)
	for i, v := range x {
		square.Set(i/r, i%r, float64(v))
	}
	var qr mat.QR
	qr.Factorize(square)
	var q mat.Dense
	qr.QTo(&q)
	half := r / 2
	odd, even := make([]float32, half*r), make([]float32, half*r)
	for i := range half {
		for j := range r {
			odd[i*r+j], even[i*r+j] = float32(q.At(2*i, j))/10, float32(q.At(2*i+1, j))/10
		}
	}
	ra, rb := make([]float32, half*t.In), make([]float32, t.Out*half)
	linalg.Normal(ra, seed, t.A)
	linalg.Normal(rb, seed, t.B)
	linalg.Product(a, linalg.Of(odd, half, r).T(), linalg.Of(ra, half, t.In), false, 0)
	linalg.Product(b, linalg.Of(rb, t.Out, half), linalg.Of(even, half, r), false, 0)
	return nil
}

// exactSide is the smaller side up to which PiSSA decomposes a weight in full; beyond it random projection with many
// iterations comes close enough that training does not tell.
const (
	exactSide       = 512
	pissaIterations = 16
)

// pissa sets A = √Σ·Vᵀ and B = U·√Σ with the rank's largest singular values, divided by the scale.
func (c *Config) pissa(t *Target, seed uint64, w, a, b []float32) error {
	if t.Rank > min(t.In, t.Out) {
		return &Error{Where: "init_lora_weights", Msg: fmt.Sprintf("pissa: the rank %d of %s is larger than its smaller side, %d", t.Rank, t.Path, min(t.In, t.Out))}
	}
	if !(t.Scale > 0) {
		return &Error{Where: "lora_alpha", Msg: fmt.Sprintf("pissa divides by the scale, and that of %s is %v", t.Path, t.Scale), Hint: "choose a positive alpha"}
	}
	o := linalg.Options{Seed: seed, Name: t.A, Iterations: pissaIterations, ExactUpTo: exactSide}
	if n, fast := c.pissaIterations(); fast {
		o.Iterations, o.ExactUpTo = n, 1
	}
	s, err := linalg.Truncated(t.stored(w), t.Rank, o)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Path, err)
	}
	for k := range t.Rank {
		root := float32(math.Sqrt(s.S[k] / t.Scale))
		for j := range t.In {
			a[k*t.In+j] = root * s.V[j*t.Rank+k]
		}
		for i := range t.Out {
			b[i*t.Rank+k] = root * s.U[i*t.Rank+k]
		}
	}
	return nil
}

// olora sets B = Q[:, :r] and A = R[:r] of W = Q·R.
func olora(t *Target, w, a, b []float32) error {
	if t.Rank > min(t.In, t.Out) {
		return &Error{Where: "init_lora_weights", Msg: fmt.Sprintf("olora: the rank %d of %s is larger than its smaller side, %d", t.Rank, t.Path, min(t.In, t.Out))}
	}
	// The first r columns of Q are an orthonormal basis of the first r columns of W; with them R[:r] = Q[:, :r]ᵀ·W.
	r := t.Rank
	v := t.stored(w)
	head := mat.NewDense(t.Out, r, nil)
	for i := range t.Out {
		for j := range r {
			head.Set(i, j, float64(v.At(i, j)))
		}
	}
	var qr mat.QR
	qr.Factorize(head)
	var q mat.Dense
	qr.QTo(&q)
	for i := range t.Out {
		for j := range r {
			b[i*r+j] = float32(q.At(i, j))
		}
	}
	linalg.Product(a, linalg.Of(b, t.Out, r).T(), v, false, 0)
	return nil
}

// Residual changes a module's weight to what PiSSA and OLoRA train on: w - s·B·A with the initial factors. Other methods
// leave it as it is.
func Residual(c *Config, t Target, init map[string]Tensor, w []float32) {
	if !c.ChangesBase() || t.Kind == Embedding {
		return
	}
	low := newLowRank(t.Module, init[t.A].Data, init[t.B].Data, t.Rank, -t.Scale)
	low.add(w, 0)
}

// Converted turns a trained PiSSA or OLoRA adapter, whose base was changed at the start, into an ordinary one of twice the
// rank for the original base: A' = [A; A₀], B' = [B, -B₀] and twice the alpha (√2 times with rsLoRA), so that the scale
// stays. Other adapters come back as they are.
func Converted(c *Config, targets []Target, init, trained map[string]Tensor) (*Config, map[string]Tensor, error) {
	if !c.ChangesBase() {
		return c, trained, nil
	}
	out := maps.Clone(trained)
	for i := range targets {
		t := &targets[i]
		a, b := trained[t.A], trained[t.B]
		a0, b0 := init[t.A], init[t.B]
		if t.Kind == Embedding { // its base was not changed, but the rank of all is doubled
			a0, b0 = Tensor{t.ShapeA(), make([]float32, t.Rank*t.In)}, Tensor{t.ShapeB(), make([]float32, t.Out*t.Rank)}
		}
		for key, x := range map[string]Tensor{t.A: a, t.B: b, t.A + " at the start": a0, t.B + " at the start": b0} {
			if x.Elems() != len(x.Data) || len(x.Shape) != 2 {
				return nil, nil, fmt.Errorf("%s: shape %v with %d values", key, x.Shape, len(x.Data))
			}
		}
		r := t.Rank
		wide := make([]float32, t.Out*2*r)
		for i := range t.Out {
			copy(wide[i*2*r:], b.Data[i*r:(i+1)*r])
			for k := range r {
				wide[i*2*r+r+k] = -b0.Data[i*r+k]
			}
		}
		out[t.A] = Tensor{[]int{2 * r, t.In}, slices.Concat(a.Data, a0.Data)}
		out[t.B] = Tensor{[]int{t.Out, 2 * r}, wide}
	}
	n := *c
	n.Init = initDefault
	n.R *= 2
	grow := 2.0
	if c.RSLoRA {
		grow = math.Sqrt2
	}
	n.Alpha *= grow
	n.RankPattern, n.AlphaPattern = slices.Clone(c.RankPattern), slices.Clone(c.AlphaPattern)
	for i := range n.RankPattern {
		n.RankPattern[i].Value *= 2
	}
	for i := range n.AlphaPattern {
		n.AlphaPattern[i].Value *= grow
	}
	return &n, out, nil
}
