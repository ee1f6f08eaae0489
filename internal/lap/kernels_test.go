package lap

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// Every vector kernel gives what the plain one gives, at lengths around the vectors', with ties.
func TestKernels(t *testing.T) {
	for _, kernel := range availableKernels() {
		t.Run(kernel.name, func(t *testing.T) {
			for seed := range uint64(300) {
				r := &random{seed: seed}
				n := 2 + int(r.next()%70)
				row, v := make([]float32, n), make([]float64, n)
				distance := make([]float64, n)
				least := make([]float32, n)
				closed := make([]bool, n)
				for j := range n {
					row[j] = float32(r.normal())
					v[j] = r.normal() * 1e-3
					distance[j] = r.normal()
					least[j] = float32(r.normal())
					if seed%2 == 0 { // many ties
						row[j], v[j], least[j] = float32(int(r.next()%3)), float64(r.next()%3), float32(int(r.next()%3))-1
					}
					if r.next()%4 == 0 {
						distance[j] = math.Inf(1)
						closed[j] = r.next()%2 == 0
					}
				}
				sign := float64(1)
				if seed%3 == 0 {
					sign = -1
				}
				results := func(k kernels) string {
					least, best := slices.Clone(least), make([]int32, n)
					finite := k.columnMinima(row, float32(sign), 7, least, best)
					a, i, b, j := k.twoSmallest(row, v, sign)
					found := make([]int32, 16+seed%9)
					var below []int32
					for at := int(seed % 2); at < n; {
						var count int
						count, at = k.below(row, v, sign, 0.3, at, found)
						below = append(append(below, found[:count]...), int32(-at))
					}
					open := slices.Clone(v)
					for j := range open {
						if closed[j] {
							open[j] = math.Inf(-1)
						}
					}
					distance, previous := slices.Clone(distance), make([]int32, n)
					d, c := k.relax(row, open, sign, 0.25, 9, distance, previous)
					return fmt.Sprint(finite, least, best, "\n", a, i, b, j, "\n", below, "\n", distance, previous, d, c)
				}
				if got, want := results(kernel), results(scalarKernels); got != want {
					t.Fatalf("seed %d, n %d:\n%s\nshould be\n%s", seed, n, got, want)
				}
				row[r.next()%uint64(n)] = float32(math.Inf(1 - 2*int(seed%2)))
				if kernel.columnMinima(row, 1, 0, least, make([]int32, n)) {
					t.Fatalf("seed %d: an infinite entry is not seen", seed)
				}
			}
		})
	}
}

// The duals and the assignment have the same bits with every set of kernels.
func TestKernelsSolve(t *testing.T) {
	forKinds(t, func(t *testing.T, kind string, build func(r *random, n int) []float32) {
		for _, n := range []int{9, 50, 130, 301} {
			score := build(&random{seed: uint64(n)}, n)
			var want string
			for _, kernel := range availableKernels() {
				initial, err := checked(n, score, Options{})
				if err != nil {
					t.Fatal(err)
				}
				s := newSolver(n, score, -1, initial)
				s.kernel = kernel
				if err := s.solve(); err != nil {
					t.Fatal(err)
				}
				s.returnToInitial(initial)
				got := fmt.Sprint(s.colOf, s.u, s.v)
				if want == "" {
					want = got
				}
				if got != want {
					t.Fatalf("n %d: %s differs from %s", n, kernel.name, scalarKernels.name)
				}
			}
		}
	})
}

// Lists and whole rows find paths of the same length: searches that start over whole rows give the same optimum.
func TestSearchRows(t *testing.T) {
	forKinds(t, func(t *testing.T, kind string, build func(r *random, n int) []float32) {
		for _, n := range []int{40, 150} {
			score := build(&random{seed: uint64(n)}, n)
			whole := newSolver(n, score, -1, nil)
			free, err := whole.reduceColumns()
			if err != nil {
				t.Fatal(err)
			}
			if len(free) > 0 {
				p := newPaths(whole)
				for _, f := range free {
					p.search++
					p.nearest, p.end = math.Inf(1), -1
					p.waiting.push(entry{0, f})
					p.offset[f] = 0
					p.searchRows()
					p.apply(f)
				}
			}
			cols := make([]int, n)
			for i, j := range whole.colOf {
				cols[i] = int(j)
			}
			s := solved(t, n, score, Options{NoInitial: true})
			if got := Value(n, score, cols); math.Abs(got-s.Value) > 1e-6*math.Abs(s.Value) {
				t.Fatalf("n %d: %v over whole rows, %v with lists", n, got, s.Value)
			}
		}
	})
}
