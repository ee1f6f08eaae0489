package linalg

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// key makes a generator's key of a seed and a name, so that every tensor has numbers of its own and every place in a tensor
// has its number whatever was drawn before.
func key(seed uint64, name string) [2]uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	h := sha256.Sum256(append(b[:], name...))
	return [2]uint64{binary.LittleEndian.Uint64(h[:8]), binary.LittleEndian.Uint64(h[8:16])}
}

// bits are 64 random bits of counter i: SplitMix64's finaliser over key and counter, twice, each time with one half of the
// key. Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators".
func bits(k [2]uint64, i uint64) uint64 {
	x := mix(i*0x9e3779b97f4a7c15 + k[0])
	return mix(x ^ k[1])
}

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Uniform fills x with numbers of [0, 1).
func Uniform(x []float32, seed uint64, name string) {
	k := key(seed, name)
	for i := range x {
		x[i] = float32(bits(k, uint64(i))>>40) / (1 << 24)
	}
}

// Normal fills x with standard normal numbers. Box and Muller, 1958, "A note on the generation of random normal deviates".
func Normal(x []float32, seed uint64, name string) {
	k := key(seed, name)
	for i := 0; i < len(x); i += 2 {
		b := bits(k, uint64(i/2))
		u := (float64(b>>32) + 0.5) / (1 << 32) // never 0
		v := float64(b&0xffffffff) / (1 << 32)
		r := math.Sqrt(-2 * math.Log(u))
		sin, cos := math.Sincos(2 * math.Pi * v)
		x[i] = float32(r * cos)
		if i+1 < len(x) {
			x[i+1] = float32(r * sin)
		}
	}
}

// Bernoulli calls drop for every index in [0, n) that is not kept, each being kept with probability p.
func Bernoulli(n int, p float64, seed uint64, name string, drop func(i int)) {
	k := key(seed, name)
	for i := range n {
		if float64(bits(k, uint64(i))>>11)/(1<<53) >= p {
			drop(i)
		}
	}
}
