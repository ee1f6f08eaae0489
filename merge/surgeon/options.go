package surgeon

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Options say how tokens that the model lacks are approximated, and how the output is written.
type Options struct {
	Method  string // see Methods; "": omp
	K       int    // landmarks of common_interpolation, omp and mp_rope; 0: 64
	Cosine  bool   // nearest by the angle, not by the distance
	Scheme  string // weights of common_interpolation: see Schemes; "": distance_proportional
	Subword string // how subword combines rows: see SubwordMethods; "": mean
	// PrefixMatch and ByteMatch say where a token that the model lacks takes the row of the longest token it begins with, and where a byte
	// of one vocabulary is the same as a byte of the other: see Places; "": no.
	PrefixMatch, ByteMatch string
	Magikarp               bool    // leave out tokens that were hardly trained
	Noise                  float64 // deviation of normal noise on approximated rows
	Scale                  float64 // factor of approximated rows; 0: 1
	Seed                   uint64
	Batch                  int // rows of the output that are worked on at once, for each thread; 0: 512

	Threads    int
	ShardBytes int64 // 0: the writer's; negative: one file
	Force      bool
	Files      map[string][]byte // further files of the output
	NoTokens   bool              // the donor's tokenizer files are not copied
	Warn       func(message string)
	Started    func(total int64) // bytes of the output; may be nil
	Written    func(n int64)     // may be nil
}

// Methods are the ways to approximate a token, with the one that is the default first.
func Methods() []string {
	return []string{"omp", "common_interpolation", "subword", "mean", "zero", "randn", "john_hewitt", "landmark_pca", "stb", "mp_rope"}
}

// Schemes are the weights of common_interpolation.
func Schemes() []string { return []string{"distance_proportional", "barycentric", "least_squares"} }

// SubwordMethods are the ways to combine the rows of a token's pieces.
func SubwordMethods() []string { return []string{"mean", "sum", "weighted_mean", "first_last"} }

// Places are where a way of matching is used.
func Places() []string { return []string{"no", "yes", "embed", "lm_head"} }

// complete fills in what is not given and refuses what is no value.
func (o *Options) complete() error {
	for _, c := range []struct {
		name   string
		value  *string
		values []string
	}{
		{"approximation-method", &o.Method, Methods()}, {"weight-scheme", &o.Scheme, Schemes()}, {"subword-method", &o.Subword, SubwordMethods()},
		{"prefix-match", &o.PrefixMatch, Places()}, {"byte-match", &o.ByteMatch, Places()},
	} {
		if *c.value == "" {
			*c.value = c.values[0]
		}
		if !slices.Contains(c.values, *c.value) {
			return &Error{Where: c.name, Msg: fmt.Sprintf("%q is unknown", *c.value), Hint: "use " + strings.Join(c.values, ", ")}
		}
	}
	if o.K == 0 {
		o.K = 64
	}
	if o.Scale == 0 {
		o.Scale = 1
	}
	if o.Batch == 0 {
		o.Batch = 512
	}
	const most = 4096 // a larger system for every token would not end
	if o.K < 1 || o.K > most {
		return &Error{Where: "k", Msg: fmt.Sprintf("%d landmarks for a token; between 1 and %d can be used", o.K, most)}
	}
	for name, v := range map[string]float64{"new-vocab-noise": o.Noise, "new-vocab-scale": o.Scale} {
		if math.IsNaN(v) || math.IsInf(v, 0) || name == "new-vocab-noise" && v < 0 {
			return &Error{Where: name, Msg: fmt.Sprintf("%v is not possible", v), Hint: "give a finite number"}
		}
	}
	return nil
}

// at says whether a way of matching is used for the head or the embeddings.
func at(place string, head bool) bool {
	return place == "yes" || place == "lm_head" && head || place == "embed" && !head
}
