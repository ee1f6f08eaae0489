package match

import (
	"errors"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
)

// TestManyGolden brings three networks that were trained apart to one another.
func TestManyGolden(t *testing.T) {
	var models []align.Weights
	for i := range 3 {
		models = append(models, align.OfTensors(golden(t, i+1)))
	}
	spec := goldenSpec(symmetry.Perm, golden(t, 1))
	res, err := Many(t.Context(), spec, models, ManyOptions{Options: Options{Verify: true, MaxIter: 2}})
	if err != nil {
		t.Fatal(err)
	}
	// Each of the three pairs alone reaches 0.317; aligned to the first model alone, the other two reach 0.22.
	if res.Before > 0.01 || res.After < 0.29 || res.Certificates == 0 || res.Sweeps != 2 {
		t.Errorf("agreement from %.4f to %.4f in %d sweeps, %d certificates", res.Before, res.After, res.Sweeps, res.Certificates)
	}
	t.Logf("agreement %.4f to %.4f", res.Before, res.After)
}

// TestMany brings copies of one model together, those of a turned stream with a shared head among them: any two agree afterwards, and with
// ToFirst all become the first.
func TestMany(t *testing.T) {
	for _, f := range families(t) {
		if f.name != "llama-tied-bias" && f.name != "mlp" && f.name != "gpt2" {
			continue
		}
		for _, way := range []string{Cyclic, Universe} {
			t.Run(f.name+" "+way, func(t *testing.T) {
				t.Parallel()
				values := f.weights(1)
				whole, err := align.SpecOf(f.config, source(values), "")
				if err != nil {
					t.Fatal(err)
				}
				spec, err := whole.Restrict(symmetry.Full, symmetry.AllGroups())
				if err != nil {
					t.Fatal(err)
				}
				models := []align.Weights{align.OfTensors(values)}
				for seed := range uint64(2) {
					m, err := align.Random(spec, seed, align.RandomOptions{Scales: true, Gains: true})
					if err != nil {
						t.Fatal(err)
					}
					models = append(models, align.OfTensors(transformed(t, values, m)))
				}
				for _, first := range []bool{false, true} {
					res, err := Many(t.Context(), spec, models, ManyOptions{Way: way, ToFirst: first})
					if err != nil {
						t.Fatal(err)
					}
					if res.After < 1-1e-9 {
						t.Errorf("agreement %.9f", res.After)
					}
					for i, m := range res.Maps {
						to := models[0]
						if !first {
							to = align.Aligned(models[0], res.Maps[0])
						}
						if off, where := worst(t, to, align.Aligned(models[i], m)); off > 1e-5 {
							t.Errorf("model %d: %s is off by %g", i, where, off)
						}
					}
				}
			})
		}
	}
}

func TestManyRefuses(t *testing.T) {
	w := align.OfTensors(mlp(1, 4, 5, 3))
	spec := chain(symmetry.Perm, false, 4, 5, 3)
	for want, f := range map[string]func() error{
		"1 models have no consensus": func() error { _, err := Many(t.Context(), spec, []align.Weights{w}, ManyOptions{}); return err },
		"is not known": func() error {
			_, err := Many(t.Context(), spec, []align.Weights{w, w}, ManyOptions{Way: "mean"})
			return err
		},
		"with one vocabulary": func() error {
			_, err := Many(t.Context(), spec, []align.Weights{w, w}, ManyOptions{Options: Options{Tokens: func() (a, b []int32) { return nil, nil }}})
			return err
		},
	} {
		var e *align.Error
		if err := f(); !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
