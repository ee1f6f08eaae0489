package lap

import (
	"fmt"
	"testing"
)

// BenchmarkMaximize solves matrices like those of weight matching; scripts/bench-align compares with scipy on more of them.
func BenchmarkMaximize(b *testing.B) {
	for _, kind := range []string{"uniform", "gaussian gram", "correlated gram", "permuted copy", "integers"} {
		for _, n := range []int{512, 1024, 2048, 4096} {
			var score []float32
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				if score == nil {
					score = benchMatrix(kind, n)
				}
				for b.Loop() {
					if _, err := Maximize(n, score, Options{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// benchMatrix is a test kind whose Gram matrices have 64 features whatever n, or building them would take longer than solving.
func benchMatrix(kind string, n int) []float32 {
	r := &random{seed: uint64(n)}
	const d = 64
	a := r.features(n, d)
	b := r.features(n, d)
	switch kind {
	case "gaussian gram":
		return gram(n, d, a, b)
	case "permuted copy", "correlated gram":
		rho := float32(1)
		noise := float32(0)
		if kind == "correlated gram" {
			rho, noise = 0.3, 0.954
		}
		c := make([]float32, n*d)
		for i, from := range r.permutation(n) {
			for k := range d {
				c[i*d+k] = rho*a[from*d+k] + noise*b[i*d+k]
			}
		}
		return gram(n, d, a, c)
	}
	return kinds[kind](r, n)
}
