package model_test

import (
	"math"
	"testing"

	"github.com/mergekit/mergekit/model"
)

// TestRopeGolden has the frequencies of the specification, which were computed with transformers.
func TestRopeGolden(t *testing.T) {
	rope := func(kind string, theta, factor float64, original int) model.Rope {
		return model.Rope{Dim: 16, Type: kind, Theta: theta, Factor: factor, Original: original, Max: 2048, LowFreq: 1, HighFreq: 4, BetaFast: 32, BetaSlow: 1}
	}
	truncated := rope("yarn", 1e4, 4, 2048)
	exact := truncated
	exact.NoTruncate = true
	given := truncated
	given.Attention = 1.5
	scaled := truncated
	scaled.MScale, scaled.MScaleAll = 1, 0.5
	long := rope("longrope", 1e4, 4, 32)
	long.ShortFactor = []float64{1, 1, 1, 1, 1, 1, 1, 2}
	long.LongBy = []float64{1, 2, 4, 8, 16, 32, 64, 128}
	plain := []float64{1, .31622776, .1, .031622776, .01, .0031622776, .001, .00031622776}
	for _, c := range []struct {
		name   string
		rope   model.Rope
		length int
		want   []float64
		scale  float64
	}{
		{"default", rope("default", 1e4, 1, 2048), 10, plain, 1},
		{"linear", rope("linear", 1e4, 4, 2048), 10, []float64{.25, .079056941, .025, .0079056947}, 1},
		{"dynamic", rope("dynamic", 1e4, 2, 2048), 4096, []float64{1, .27029613, .07306, .019747833, .0053377626, .0014427766, .00038997692, .00010540926}, 1},
		{"dynamic, short", rope("dynamic", 1e4, 2, 2048), 2048, plain, 1},
		{"llama3", rope("llama3", 5e5, 8, 8192), 10, []float64{1, .19392276, .037606031, .0072926651, .00052484602, 3.4281024e-5, 6.6478697e-6, 1.2891732e-6}, 1},
		{"yarn", truncated, 10, []float64{1, .31622776, .1, .025693506, .00625, .0013834966, .00025, 7.9056947e-5}, 1.1386294},
		{"yarn, scale given", given, 10, []float64{1, .31622776, .1, .025693506, .00625, .0013834966, .00025, 7.9056947e-5}, 1.5},
		{"yarn, two scales", scaled, 10, []float64{1}, 1.1386294361 / 1.06931471806},
		{"longrope, short", long, 32, []float64{1, .31622776, .1, .031622776, .01, .0031622776, .001, .00015811388}, math.Sqrt(1 + math.Log(4)/math.Log(32))},
		{"longrope, long", long, 33, []float64{1, .15811388, .025, .003952847, .000625, 9.8821176e-5, 1.5625e-5, 2.4705294e-6}, math.Sqrt(1 + math.Log(4)/math.Log(32))},
	} {
		got, scale := c.rope.Inverse(c.length)
		if len(got) != 8 {
			t.Fatalf("%s: %d frequencies", c.name, len(got))
		}
		for i, want := range c.want {
			if d := math.Abs(got[i]-want) / want; d > 5e-7 { // some of the figures were rounded to float32 on their way
				t.Errorf("%s: frequency %d is %.9g, want %.9g", c.name, i, got[i], want)
			}
		}
		if math.Abs(scale-c.scale) > 1e-6 {
			t.Errorf("%s: scale %.9g, want %.9g", c.name, scale, c.scale)
		}
	}
	// Without rounding, the ramp begins between two frequencies, and the fourth is another.
	inv, _ := exact.Inverse(10)
	if whole, _ := truncated.Inverse(10); inv[3] == whole[3] {
		t.Error("truncate: false changes nothing")
	}
}
