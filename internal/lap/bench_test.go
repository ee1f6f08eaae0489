package lap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"testing"
	"time"
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

// BenchmarkFile solves the matrix of the file that LAP_MATRIX names (n*n little-endian float32, to maximise) and prints what it took and
// the optimum, for scripts/bench-align; without the variable it has nothing to measure.
func BenchmarkFile(b *testing.B) {
	path := os.Getenv("LAP_MATRIX")
	if path == "" {
		b.Skip("LAP_MATRIX names no file")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	n := int(math.Sqrt(float64(len(raw) / 4)))
	score := make([]float32, n*n)
	if err := binary.Read(bytes.NewReader(raw), binary.LittleEndian, score); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		start := time.Now()
		s, err := Maximize(n, score, Options{})
		if err != nil {
			b.Fatal(err)
		}
		fmt.Printf("\nsolved %d %.9f %.17g\n", n, time.Since(start).Seconds(), s.Value)
		if os.Getenv("LAP_VERIFY") != "" {
			if err := s.Verify(n, score); err != nil {
				b.Fatal(err)
			}
		}
	}
}
