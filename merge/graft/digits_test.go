package graft

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// The network of the tests: 8x8 images of digits to ten classes. It learns the digits 0 to 6, and is then tuned on all ten: by plain gradient
// descent with a pull to the base, which is how the paper's authors tune what they graft.
const digitsConfig = `{"model_type": "mlp", "input_shape": [64], "layers": [
	{"type": "linear", "name": "in", "out": 96}, {"type": "relu"},
	{"type": "linear", "name": "mid", "out": 96}, {"type": "relu"},
	{"type": "linear", "name": "out", "out": 10}]}`

var digitsShapes = map[string][]int{"in.weight": {96, 64}, "in.bias": {96}, "mid.weight": {96, 96}, "mid.bias": {96}, "out.weight": {10, 96}, "out.bias": {10}}

// digitsTask is a fine-tune with its base and its data.
type digitsTask struct {
	base, tuned       string // directories
	train, held, test string // CSV files of the new task
}

// rows reads the digits, shuffled.
func rows(t testing.TB) (lines []string) {
	t.Helper()
	raw, err := os.ReadFile("testdata/digits.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	lines = strings.Fields(text.String())
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	return lines
}

func writeRows(t testing.TB, path string, lines []string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func openModels(t testing.TB) compute.Backend {
	t.Helper()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

func digitsJudge(t testing.TB, b compute.Backend, file string) *evaluation.Judge {
	t.Helper()
	j, err := evaluation.Open(context.Background(), []byte(digitsConfig), "", evaluation.Options{Data: calibration.Options{Files: []string{file}, Divide: 16}, Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// fit trains a network by Adam, from w.
func fit(t testing.TB, j *evaluation.Judge, w map[string]model.Tensor, steps int, lr float64) {
	t.Helper()
	ctx := context.Background()
	l, err := j.Learner(ctx, align.OfTensors(w), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m, v := map[string][]float64{}, map[string][]float64{}
	o := newOrder(j.Rows(), 7)
	for step := 1; step <= steps; step++ {
		if err := l.Set(func(name string, dst []float32) error { copy(dst, w[name].Data); return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Gradient(ctx, o.next(64), model.ObjectiveLoss); err != nil {
			t.Fatal(err)
		}
		err := l.Visit(func(name string, g []float32) error {
			if m[name] == nil {
				m[name], v[name] = make([]float64, len(g)), make([]float64, len(g))
			}
			for i, x := range g {
				m[name][i] = 0.9*m[name][i] + 0.1*float64(x)
				v[name][i] = 0.999*v[name][i] + 0.001*float64(x)*float64(x)
				w[name].Data[i] -= float32(lr * m[name][i] / (1 - math.Pow(0.9, float64(step))) / (math.Sqrt(v[name][i]/(1-math.Pow(0.999, float64(step)))) + 1e-8))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func saveDigits(t testing.TB, dir string, w map[string]model.Tensor) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	var infos []tensors.Info
	var data [][]byte
	for name, x := range w {
		b := make([]byte, 0, 4*len(x.Data))
		for _, f := range x.Data {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
		infos, data = append(infos, tensors.Info{Name: name, DType: tensors.F32, Shape: x.Shape}), append(data, b)
	}
	if err := tensors.SaveFile(filepath.Join(dir, "model.safetensors"), infos, data, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(digitsConfig), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

var digitsOnce sync.Once
var digitsMade *digitsTask

// digits trains base and fine-tune, once for all tests.
func digits8(t testing.TB) *digitsTask {
	t.Helper()
	digitsOnce.Do(func() {
		dir, err := os.MkdirTemp("", "digits")
		if err != nil {
			t.Fatal(err)
		}
		b := openModels(t)
		all := rows(t)
		d := &digitsTask{
			train: writeRows(t, filepath.Join(dir, "train.csv"), all[:1000]),
			held:  writeRows(t, filepath.Join(dir, "held.csv"), all[1000:1400]),
			test:  writeRows(t, filepath.Join(dir, "test.csv"), all[1400:]),
		}
		var some []string
		for _, r := range all[:1000] {
			if c := r[len(r)-1]; c < '7' {
				some = append(some, r)
			}
		}
		first := writeRows(t, filepath.Join(dir, "first.csv"), some)
		w := map[string]model.Tensor{}
		rng := rand.New(rand.NewPCG(3, 3))
		for _, name := range []string{"in.weight", "in.bias", "mid.weight", "mid.bias", "out.weight", "out.bias"} {
			n := 1
			for _, k := range digitsShapes[name] {
				n *= k
			}
			x := make([]float32, n)
			if strings.HasSuffix(name, ".weight") {
				for i := range x {
					x[i] = float32(rng.NormFloat64() * math.Sqrt(2/float64(digitsShapes[name][1])))
				}
			}
			w[name] = model.Tensor{Shape: digitsShapes[name], Data: x}
		}
		j := digitsJudge(t, b, first)
		fit(t, j, w, 300, 2e-3)
		d.base = saveDigits(t, filepath.Join(dir, "base"), w)
		j = digitsJudge(t, b, d.train)
		descend(t, j, w, 500, 0.1, 2e-3)
		d.tuned = saveDigits(t, filepath.Join(dir, "tuned"), w)
		digitsMade = d
	})
	if digitsMade == nil {
		t.Fatal("the networks of the tests could not be trained")
	}
	return digitsMade
}

func TestMain(m *testing.M) {
	status := m.Run()
	if digitsMade != nil {
		_ = os.RemoveAll(filepath.Dir(digitsMade.base))
	}
	os.Exit(status)
}

// openSpace opens the space of the digits.
func (d *digitsTask) space(t testing.TB) *Space {
	t.Helper()
	var list []*tensors.Checkpoint
	for _, dir := range []string{d.base, d.tuned} {
		c, err := tensors.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		list = append(list, c)
	}
	s, err := NewSpace(list[0], list[1], "embeddings,statistics", nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// descend tunes a network by plain gradient descent with a pull to where it began: after each step every element moves back by lr*pull,
// and stays where it began once it is there.
func descend(t testing.TB, j *evaluation.Judge, w map[string]model.Tensor, steps int, lr, pull float64) {
	t.Helper()
	ctx := context.Background()
	l, err := j.Learner(ctx, align.OfTensors(w), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := map[string][]float32{}
	for name := range w {
		start[name] = append([]float32(nil), w[name].Data...)
	}
	o := newOrder(j.Rows(), 7)
	for range steps {
		if err := l.Set(func(name string, dst []float32) error { copy(dst, w[name].Data); return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Gradient(ctx, o.next(64), model.ObjectiveLoss); err != nil {
			t.Fatal(err)
		}
		err := l.Visit(func(name string, g []float32) error {
			for i, x := range g {
				d := float64(w[name].Data[i]) - lr*float64(x) - float64(start[name][i])
				d = math.Copysign(max(math.Abs(d)-lr*pull, 0), d)
				w[name].Data[i] = start[name][i] + float32(d)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
