package gguf

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// readFloats reads little-endian float32 values.
func readFloats(t *testing.T, path string) []float32 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float32, len(b)/4)
	decodeF32(x, b)
	return x
}

// equalBits compares bit by bit; a NaN equals any NaN.
func equalBits(t *testing.T, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := got[i], want[i]
		if math.Float32bits(g) != math.Float32bits(w) && !(g != g && w != w) {
			t.Fatalf("value %d: %v (%08x), want %v (%08x)", i, g, math.Float32bits(g), w, math.Float32bits(w))
		}
	}
}

// TestDequantizeVectors compares every type with what the gguf package for Python decodes, bit by bit.
func TestDequantizeVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/vectors/*.blocks")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	byName := map[string]Type{}
	for k, x := range types {
		byName[x.name] = k
	}
	tested := map[Type]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".blocks")
		t.Run(name, func(t *testing.T) {
			k, ok := byName[name]
			if !ok {
				t.Fatal("no such type")
			}
			tested[k] = true
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := readFloats(t, strings.TrimSuffix(file, ".blocks")+".f32")
			got := make([]float32, len(src)/k.BlockBytes()*k.BlockElems())
			if err := Dequantize(got, k, src); err != nil {
				t.Fatal(err)
			}
			equalBits(t, got, want)
		})
	}
	for k, x := range types {
		if x.decode != nil && k.Quantized() && !tested[k] {
			t.Errorf("%s has no vectors", k)
		}
	}
}

func TestDequantizePlain(t *testing.T) {
	for _, c := range []struct {
		k    Type
		src  []byte
		want []float32
	}{
		{I8, []byte{0, 255, 128}, []float32{0, -1, -128}},
		{I16, []byte{0, 1, 255, 255}, []float32{256, -1}},
		{I32, []byte{0, 0, 0, 128}, []float32{-2147483648}},
		{I64, []byte{254, 255, 255, 255, 255, 255, 255, 255}, []float32{-2}},
		{F64, []byte{0, 0, 0, 0, 0, 0, 0xf8, 0x3f}, []float32{1.5}},
		{F32, []byte{0, 0, 0xc0, 0x3f}, []float32{1.5}},
		{BF16, []byte{0xc0, 0x3f}, []float32{1.5}},
		{F16, []byte{0, 0x3e, 1, 0, 0, 0x80, 0, 0x7c, 0, 0xfc, 1, 0x7c}, []float32{1.5, 1.0 / (1 << 24), float32(math.Copysign(0, -1)),
			float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())}},
	} {
		got := make([]float32, len(c.want))
		if err := Dequantize(got, c.k, c.src); err != nil {
			t.Errorf("%s: %v", c.k, err)
			continue
		}
		equalBits(t, got, c.want)
	}
}

func TestDequantizeErrors(t *testing.T) {
	for _, c := range []struct {
		k    Type
		n, b int
	}{{Q4_0, 33, 18}, {Q4_0, 32, 17}, {Q6_K, 32, 210}, {Q8_K, 256, 292}, {Type(5), 1, 1}} {
		if err := Dequantize(make([]float32, c.n), c.k, make([]byte, c.b)); err == nil {
			t.Errorf("%s: %d elements of %d bytes were decoded", c.k, c.n, c.b)
		}
	}
}

func BenchmarkDequantize(b *testing.B) {
	for _, k := range []Type{Q4_0, Q4_1, Q8_0, Q4_K, Q6_K} {
		b.Run(k.String(), func(b *testing.B) {
			const n = 1 << 16
			dst, src := make([]float32, n), make([]byte, n/k.BlockElems()*k.BlockBytes())
			b.SetBytes(4 * n)
			for b.Loop() {
				if err := Dequantize(dst, k, src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
