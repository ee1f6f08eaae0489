package method_test

import (
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/mergekit/mergekit/merge/method"
)

// survey merges with a survey and checks that the output is what it is without.
func (m merging) surveyed(t *testing.T) *method.Task {
	t.Helper()
	want := m.run(t)
	m.survey = true
	got, task, err := m.try()
	if err != nil {
		t.Fatal(err)
	}
	if !equal(got, want) {
		t.Fatalf("%s: a survey changes the output", m.method)
	}
	if task.Surveyed == nil {
		t.Fatalf("%s: there is no survey", m.method)
	}
	return task
}

func TestSurvey(t *testing.T) {
	x := [][]float32{{1, 1, 1, 1, 1, 1}, {2, 3, 4, 1, 1, 7}, {0, 2, 1, 1, 6, 7}}
	// Task vectors (1 2 3 0 0 6) and (−1 1 0 0 5 6); of the first its three largest stay.
	m := merging{method: "task_arithmetic", x: x, each: []params{nil, {"weight": 1.0}, {"weight": 1.0}}}
	s := m.surveyed(t).Surveyed
	want := &method.Survey{Out: 1*1 + 4*4 + 4*4 + 1 + 6*6 + 13*13, Masks: true, Inputs: []method.InputSurvey{
		{Read: true, Norm: 6, Distance: 0 + 9 + 9 + 0 + 25 + 144},
		{Read: true, Norm: 4 + 9 + 16 + 1 + 1 + 49, Distance: 1 + 1 + 0 + 0 + 25 + 36, Delta: 1 + 4 + 9 + 36, Left: 1 + 4 + 9 + 36},
		{Read: true, Norm: 0 + 4 + 1 + 1 + 36 + 49, Distance: 1 + 4 + 9 + 0 + 0 + 36, Delta: 1 + 1 + 25 + 36, Left: 1 + 1 + 25 + 36},
	}, Pairs: []method.PairSurvey{{Both: 3, Clash: 1}}}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("%+v, want %+v", s, want)
	}
	m.method = "ties"
	m.each[1] = params{"weight": 1.0, "density": 0.5}
	if s = m.surveyed(t).Surveyed; s.Inputs[1].Delta != 50 || s.Inputs[1].Left != 4+9+36 || s.Pairs[0] != (method.PairSurvey{Both: 2}) {
		t.Errorf("%+v: the first model has lost its smallest entry, and with it the conflict", s)
	}
	// Equal masks and disjoint ones.
	for _, c := range []struct {
		a, b []float32
		want method.PairSurvey
	}{{[]float32{0, 2, 0, -3}, []float32{0, 1, 0, -4}, method.PairSurvey{Both: 2}}, {[]float32{0, 2, 0, -3}, []float32{0, -1, 0, 4}, method.PairSurvey{Both: 2, Clash: 2}},
		{[]float32{1, 0, 2, 0}, []float32{0, 1, 0, -2}, method.PairSurvey{}}} {
		m := merging{method: "task_arithmetic", x: [][]float32{make([]float32, 4), c.a, c.b}, each: []params{nil, {"weight": 1.0}, {"weight": 1.0}}}
		if s := m.surveyed(t).Surveyed; s.Pairs[0] != c.want {
			t.Errorf("%v and %v: %+v, want %+v", c.a, c.b, s.Pairs[0], c.want)
		}
	}
	// Methods without task vectors have norms and distances.
	s = merging{method: "linear", base: -1, x: x[:2], each: []params{{"weight": 0.5}, {"weight": 0.5}}}.surveyed(t).Surveyed
	if s.Masks || s.Pairs != nil || s.Inputs[1].Norm != 80 || s.Inputs[0].Distance != 50.0/4 || s.Inputs[0].Delta != 0 || s.Out != 1.5*1.5+2*2+2.5*2.5+1+1+4*4 {
		t.Errorf("%+v", s)
	}
}

// Many models are counted by patterns of signs. Every count must be what looking at each pair gives.
func TestSurveyOfManyModels(t *testing.T) {
	for _, n := range []int{1, 2, 4, 5, 6, 10, 11, 16, 23} {
		const size = 3000
		x := models(uint64(70+n), n, size)
		each := []params{nil}
		for i := range n {
			each = append(each, params{"weight": 1.0, "density": 0.2 + 0.02*float64(i)})
		}
		m := merging{method: "dare_linear", shape: []int{30, 100}, x: x, each: each, chunk: 1000, seed: 3, shared: params{"rescale": false}}
		task := m.surveyed(t)
		// What stays of one model, it adds to the base alone.
		var left [][]float64
		for i := range n {
			alone := m
			alone.each = append([]params{}, each...)
			for k := range n {
				if k != i {
					alone.each[k+1] = params{"weight": 0.0, "density": 0.5}
				}
			}
			left = append(left, delta(alone.run(t), x[0]))
		}
		for i := range n {
			for j := i + 1; j < n; j++ {
				var want method.PairSurvey
				for k := range size {
					if a, b := left[i][k], left[j][k]; a != 0 && b != 0 {
						want.Both++
						if (a > 0) != (b > 0) {
							want.Clash++
						}
					}
				}
				if got := task.Surveyed.Pairs[method.PairIndex(i, j, n)]; got != want {
					t.Fatalf("%d models, pair %d and %d: %+v, want %+v", n, i, j, got, want)
				}
			}
		}
		if len(task.Surveyed.Pairs) != n*(n-1)/2 {
			t.Errorf("%d models: %d pairs", n, len(task.Surveyed.Pairs))
		}
	}
}

// Every method's survey is the same on our backend and on GoMLX's own, and on any number of threads; none changes the output.
func TestSurveyOfEveryMethod(t *testing.T) {
	for _, m := range invariant(t) {
		t.Run(fmt.Sprint(m.method, m.shared), func(t *testing.T) {
			m.threads = 1
			one := m.surveyed(t)
			m.threads = 3
			if many := m.surveyed(t); !reflect.DeepEqual(one.Surveyed, many.Surveyed) {
				t.Errorf("by threads: %+v, %+v", one.Surveyed, many.Surveyed)
			}
			m.survey, m.backend = true, "gomlx"
			_, other, err := m.try()
			if err != nil {
				t.Fatal(err)
			}
			a, b := one.Surveyed, other.Surveyed
			if !reflect.DeepEqual(a.Pairs, b.Pairs) || a.Masks != b.Masks || !near(a.Out, b.Out) {
				t.Errorf("%+v, on gomlx %+v", a, b)
			}
			for i := range a.Inputs {
				if x, y := a.Inputs[i], b.Inputs[i]; x.Read != y.Read || !near(x.Norm, y.Norm) || !near(x.Distance, y.Distance) || !near(x.Delta, y.Delta) || !near(x.Left, y.Left) {
					t.Errorf("input %d: %+v, on gomlx %+v", i, x, y)
				}
			}
			for name, v := range one.Reported {
				if other.Reported[name] != v {
					t.Errorf("%s: %v, on gomlx %v", name, v, other.Reported[name])
				}
			}
		})
	}
}

// near allows for the order in which a sum is taken, and for outputs that differ in their last bits.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-6*(math.Abs(a)+math.Abs(b))+1e-12 }
