package lap

import (
	"errors"
	"math"
	"slices"
	"testing"
)

func identity(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	return p
}

func TestConstantKeepsInitial(t *testing.T) {
	for _, n := range []int{1, 2, 3, 20, 300} {
		for _, value := range []float32{0, 1, -3.5} {
			score := make([]float32, n*n)
			for i := range score {
				score[i] = value
			}
			s := solved(t, n, score, Options{})
			if !s.FromInitial || !slices.Equal(s.Cols, identity(n)) {
				t.Errorf("n %d, all %v: %v", n, value, s.Cols)
			}
			initial := (&random{seed: uint64(n)}).permutation(n)
			s = solved(t, n, score, Options{Initial: initial})
			if !s.FromInitial || !slices.Equal(s.Cols, initial) {
				t.Errorf("n %d, all %v: %v, initially %v", n, value, s.Cols, initial)
			}
		}
	}
}

// Dead units of a permuted copy stay where they are when nothing living needs their place, and the living ones are found.
func TestDeadUnits(t *testing.T) {
	const n, d = 200, 40
	for seed := range uint64(20) {
		r := &random{seed: seed}
		a := r.features(n, d)
		dead := make([]bool, n)
		for k := range 60 {
			dead[(k*7+int(seed))%n] = true
		}
		// The living rows are permuted among their own places.
		var living []int
		for i := range n {
			if dead[i] {
				clear(a[i*d : (i+1)*d])
			} else {
				living = append(living, i)
			}
		}
		want := identity(n)
		for i, from := range r.permutation(len(living)) {
			want[living[i]] = living[from]
		}
		b := make([]float32, n*d)
		for i, to := range want {
			copy(b[to*d:(to+1)*d], a[i*d:])
		}
		score := gram(n, d, a, b)
		s := solved(t, n, score, Options{})
		if !slices.Equal(s.Cols, want) {
			t.Fatalf("seed %d: %v, should be %v", seed, s.Cols, want)
		}
		if s.FromInitial {
			t.Fatal("not the identity, but said to be")
		}
	}
}

// When the dead units of both sides are elsewhere, as many as can stay do.
func TestDeadUnitsElsewhere(t *testing.T) {
	const n, d = 60, 12
	for seed := range uint64(20) {
		r := &random{seed: seed}
		a := r.features(n, d)
		b := make([]float32, n*d)
		p := r.permutation(n)
		dead := func(i int) bool { return i < 20 }
		for i := range n {
			if dead(i) {
				clear(a[i*d : (i+1)*d])
			}
			copy(b[p[i]*d:(p[i]+1)*d], a[i*d:(i+1)*d])
		}
		score := gram(n, d, a, b)
		s := solved(t, n, score, Options{})
		for i := range n {
			if !dead(i) && s.Cols[i] != p[i] {
				t.Fatalf("seed %d: row %d went to %d, not %d", seed, i, s.Cols[i], p[i])
			}
			// Columns of dead units: those that a dead row of a was copied to.
			if dead(i) && dead(slices.Index(p, i)) && s.Cols[i] != i {
				t.Errorf("seed %d: dead row %d left its place for %d", seed, i, s.Cols[i])
			}
		}
	}
}

// A chain of ties must be followed: row 0 can have its column only when two others move on.
func TestTiesAlongACycle(t *testing.T) {
	score := []float32{
		1, 1, 0, 0,
		0, 1, 1, 0,
		0, 0, 1, 1,
		1, 0, 0, 1,
	}
	for _, initial := range [][]int{{0, 1, 2, 3}, {1, 2, 3, 0}} {
		s := solved(t, 4, score, Options{Initial: initial})
		if !s.FromInitial {
			t.Errorf("%v, initially %v: as good", s.Cols, initial)
		}
	}
}

// A better assignment is taken however little the gain weighs in the sum: weak units are recovered as well as strong ones.
func TestWeakUnits(t *testing.T) {
	const n, d = 128, 16
	r := &random{seed: 5}
	a := r.features(n, d)
	for i := range 8 {
		for k := range d {
			a[i*d+k] *= 1e-5
		}
	}
	want := identity(n)
	want[2], want[6] = 6, 2
	b := make([]float32, n*d)
	for i, to := range want {
		copy(b[to*d:(to+1)*d], a[i*d:(i+1)*d])
	}
	s := solved(t, n, gram(n, d, a, b), Options{})
	if !slices.Equal(s.Cols, want) {
		t.Errorf("the swap of two weak units is lost: %v", s.Cols)
	}
}

// Rounding of the last bits is no reason to move.
func TestDuplicatesStay(t *testing.T) {
	const n, d = 100, 30
	r := &random{seed: 9}
	a := r.features(n, d)
	copy(a[10*d:11*d], a[70*d:])
	copy(a[11*d:12*d], a[71*d:])
	score := gram(n, d, a, a)
	for i := range score {
		score[i] *= 1 + float32(r.uniform()-0.5)*2e-7
	}
	s := solved(t, n, score, Options{})
	if !s.FromInitial {
		t.Errorf("two equal units changed places: %v", s.Cols)
	}
	if free := solved(t, n, score, Options{NoInitial: true}); math.Abs(free.Value-s.Value) > 1e-6*s.Value {
		t.Errorf("value %v, without initial %v", s.Value, free.Value)
	}
}

func TestInvalid(t *testing.T) {
	n := 40
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		for _, at := range []int{0, 7*n + 31, 39*n + 39} {
			score := kinds["uniform"](&random{seed: 1}, n)
			score[at] = bad
			var failure *NotFiniteError
			if _, err := Maximize(n, score, Options{}); !errors.As(err, &failure) || failure.Row != at/n || failure.Col != at%n {
				t.Errorf("%v in row %d, column %d: %v", bad, at/n, at%n, err)
			}
		}
	}
	var shape *ShapeError
	for _, c := range []struct {
		n, entries int
		initial    []int
	}{{3, 8, nil}, {-1, 1, nil}, {1 << 31, 0, nil}, {1 << 32, 0, nil}, {2, 4, []int{0}}, {2, 4, []int{0, 0}}, {2, 4, []int{0, 2}}, {2, 4, []int{-1, 0}}} {
		if _, err := Minimize(c.n, make([]float32, c.entries), Options{Initial: c.initial}); !errors.As(err, &shape) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
