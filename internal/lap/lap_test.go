package lap

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// random is a counter-based generator: the same numbers for a seed, wherever a test starts.
type random struct{ seed, counter uint64 }

func (r *random) next() uint64 {
	r.counter++
	z := r.seed*0xd1342543de82ef95 + r.counter*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *random) uniform() float64 { return float64(r.next()>>11) / (1 << 53) }

func (r *random) normal() float64 {
	return math.Sqrt(-2*math.Log(1-r.uniform())) * math.Cos(2*math.Pi*r.uniform())
}

func (r *random) permutation(n int) []int {
	p := make([]int, n)
	for i := range p {
		j := int(r.next() % uint64(i+1))
		p[i], p[j] = p[j], i
	}
	return p
}

// features are n rows of d normal numbers.
func (r *random) features(n, d int) []float32 {
	x := make([]float32, n*d)
	for i := range x {
		x[i] = float32(r.normal())
	}
	return x
}

// gram is the products of the rows of a with the rows of b; both [n, d].
func gram(n, d int, a, b []float32) []float32 {
	g := make([]float32, n*n)
	for i := range n {
		for j := range n {
			var sum float32
			for k, x := range a[i*d : (i+1)*d] {
				sum += x * b[j*d+k]
			}
			g[i*n+j] = sum
		}
	}
	return g
}

// kinds are the matrices of the tests, by what they are like.
var kinds = map[string]func(r *random, n int) []float32{
	"uniform": func(r *random, n int) []float32 {
		g := make([]float32, n*n)
		for i := range g {
			g[i] = float32(r.uniform())
		}
		return g
	},
	"integers": func(r *random, n int) []float32 {
		g := make([]float32, n*n)
		for i := range g {
			g[i] = float32(r.next()%10) - 4
		}
		return g
	},
	"gaussian gram": func(r *random, n int) []float32 {
		d := max(2, n/4)
		return gram(n, d, r.features(n, d), r.features(n, d))
	},
	"correlated gram": func(r *random, n int) []float32 {
		d := max(2, n/4)
		a, noise := r.features(n, d), r.features(n, d)
		p := r.permutation(n)
		b := make([]float32, n*d)
		for i, from := range p {
			for k := range d {
				b[i*d+k] = 0.3*a[from*d+k] + 0.954*noise[i*d+k]
			}
		}
		return gram(n, d, a, b)
	},
	"permuted copy": func(r *random, n int) []float32 {
		d := max(2, n/4)
		a := r.features(n, d)
		b := make([]float32, n*d)
		for i, from := range r.permutation(n) {
			copy(b[i*d:(i+1)*d], a[from*d:])
		}
		return gram(n, d, a, b)
	},
	"low rank with ties": func(r *random, n int) []float32 {
		a, b := make([]float32, 2*n), make([]float32, 2*n)
		for i := range a {
			a[i], b[i] = float32(r.next()%4), float32(r.next()%4)
		}
		return gram(n, 2, a, b)
	},
	"constant": func(r *random, n int) []float32 {
		g := make([]float32, n*n)
		for i := range g {
			g[i] = 2.5
		}
		return g
	},
	"zero rows": func(r *random, n int) []float32 {
		d := max(2, n/4)
		a, b := r.features(n, d), r.features(n, d)
		for i := range n {
			if i%3 == 0 {
				clear(a[i*d : (i+1)*d])
			}
			if i%5 == 0 {
				clear(b[i*d : (i+1)*d])
			}
		}
		return gram(n, d, a, b)
	},
	"wide range": func(r *random, n int) []float32 {
		g := make([]float32, n*n)
		for i := range g {
			g[i] = float32(r.normal() * math.Exp(8*r.normal()))
		}
		return g
	},
}

func forKinds(t *testing.T, test func(t *testing.T, kind string, build func(r *random, n int) []float32)) {
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Run(strings.ReplaceAll(kind, " ", "_"), func(t *testing.T) { test(t, kind, kinds[kind]) })
	}
}

// best is the largest sum over all permutations, tried one by one.
func best(n int, score []float32) float64 {
	cols := make([]int, n)
	for i := range cols {
		cols[i] = i
	}
	value := math.Inf(-1)
	var try func(k int)
	try = func(k int) {
		if k == n {
			value = max(value, Value(n, score, cols))
			return
		}
		for i := k; i < n; i++ {
			cols[k], cols[i] = cols[i], cols[k]
			try(k + 1)
			cols[k], cols[i] = cols[i], cols[k]
		}
	}
	try(0)
	return value
}

// hungarian is the textbook O(n^3) algorithm in float64, a judge that shares nothing with the solver. It returns the smallest sum.
func hungarian(n int, cost []float32) float64 {
	u, v := make([]float64, n+1), make([]float64, n+1)
	row, way := make([]int, n+1), make([]int, n+1)
	for i := 1; i <= n; i++ {
		row[0] = i
		j0 := 0
		least := make([]float64, n+1)
		used := make([]bool, n+1)
		for j := range least {
			least[j] = math.Inf(1)
		}
		for row[j0] != 0 {
			used[j0] = true
			delta, j1 := math.Inf(1), 0
			for j := 1; j <= n; j++ {
				if used[j] {
					continue
				}
				if c := float64(cost[(row[j0]-1)*n+j-1]) - u[row[j0]] - v[j]; c < least[j] {
					least[j], way[j] = c, j0
				}
				if least[j] < delta {
					delta, j1 = least[j], j
				}
			}
			for j := range n + 1 {
				if used[j] {
					u[row[j]] += delta
					v[j] -= delta
				} else {
					least[j] -= delta
				}
			}
			j0 = j1
		}
		for j0 != 0 {
			row[j0], j0 = row[way[j0]], way[j0]
		}
	}
	sum := 0.0
	for j := 1; j <= n; j++ {
		sum += float64(cost[(row[j]-1)*n+j-1])
	}
	return sum
}

func largestOf(x []float32) float64 {
	m := 0.0
	for _, c := range x {
		m = max(m, math.Abs(float64(c)))
	}
	return m
}

func solved(t *testing.T, n int, score []float32, options Options) Solution {
	t.Helper()
	s, err := Maximize(n, score, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(n, score); err != nil {
		t.Fatal(err)
	}
	if v := Value(n, score, s.Cols); v != s.Value {
		t.Fatalf("value is %v, should be %v", s.Value, v)
	}
	// Verify forgives 1e-5 an entry; the duals of an exact optimum leave no such gap in the sum.
	gap := s.Value
	for i := range n {
		gap += s.U[i] + s.V[i]
	}
	if math.Abs(gap) > 1e-6*largestOf(score)*float64(n) {
		t.Fatalf("the duals leave a gap of %g", gap)
	}
	return s
}

func TestBruteForce(t *testing.T) {
	forKinds(t, func(t *testing.T, kind string, build func(r *random, n int) []float32) {
		for n := range 8 {
			for seed := range uint64(40 / max(1, n-4)) {
				score := build(&random{seed: seed + 100*uint64(n)}, n)
				for _, options := range []Options{{}, {NoInitial: true}} {
					s := solved(t, n, score, options)
					if want := best(n, score); math.Abs(s.Value-want) > 1e-6*math.Abs(want) {
						t.Fatalf("n %d seed %d: %v, the best is %v; %v", n, seed, s.Value, want, score)
					}
				}
			}
		}
	})
}

func TestHungarian(t *testing.T) {
	forKinds(t, func(t *testing.T, kind string, build func(r *random, n int) []float32) {
		for _, n := range []int{15, 16, 17, 33, 64, 100, 129, 200, 257} {
			cost := build(&random{seed: uint64(n)}, n)
			s, err := Minimize(n, cost, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(n, cost); err != nil {
				t.Fatalf("n %d: %v", n, err)
			}
			if want := hungarian(n, cost); math.Abs(s.Value-want) > 1e-6*math.Abs(want)+1e-9 {
				t.Fatalf("n %d: %v, the smallest is %v", n, s.Value, want)
			}
		}
	})
}

func TestCertificate(t *testing.T) {
	forKinds(t, func(t *testing.T, kind string, build func(r *random, n int) []float32) {
		for _, n := range []int{400, 512} {
			score := build(&random{seed: uint64(n)}, n)
			before := slices.Clone(score)
			s := solved(t, n, score, Options{})
			if !slices.Equal(score, before) {
				t.Fatal("the scores were modified")
			}
			again := solved(t, n, score, Options{})
			if fmt.Sprint(s) != fmt.Sprint(again) {
				t.Fatal("two solves of one matrix differ")
			}
			free := solved(t, n, score, Options{NoInitial: true})
			if math.Abs(free.Value-s.Value) > 1e-6*math.Abs(s.Value) {
				t.Fatalf("value %v with an initial assignment, %v without", s.Value, free.Value)
			}
		}
	})
}

func TestCertificateFails(t *testing.T) {
	n := 20
	score := kinds["uniform"](&random{seed: 3}, n)
	fresh := func() Solution { return solved(t, n, score, Options{}) }
	var failure *CertificateError

	s := fresh()
	s.Cols[4], s.Cols[9] = s.Cols[9], s.Cols[4]
	if err := s.Verify(n, score); !errors.As(err, &failure) || failure.Row != 4 && failure.Row != 9 || !failure.Assigned {
		t.Errorf("two swapped columns: %v", err)
	}
	s = fresh()
	s.V[7] += 0.5
	if err := s.Verify(n, score); !errors.As(err, &failure) || failure.Col != 7 {
		t.Errorf("a price too high: %v", err)
	}
	s = fresh()
	s.U[3] = math.NaN()
	if err := s.Verify(n, score); !errors.As(err, &failure) || failure.Row != 3 {
		t.Errorf("a dual that is not a number: %v", err)
	}
	s = fresh()
	s.Cols[0] = s.Cols[1]
	if err := s.Verify(n, score); err == nil {
		t.Error("a column twice passes")
	}
	s = fresh()
	s.minimized = true
	if err := s.Verify(n, score); err == nil {
		t.Error("the duals of a maximum pass for a minimum")
	}
}
