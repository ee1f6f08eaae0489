// Command trainpairs makes the small trained networks on which alignment is measured, for scripts/train-pairs: multilayer perceptrons from
// a file of images, and rows of character ids from a text.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mergekit/mergekit/finetune/plain"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/tensors"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	out := flag.String("out", "", "directory to write")
	text := flag.String("text", "", "text to cut into rows of ids, in place of training networks")
	row := flag.Int("row", 64, "ids of a row")
	rows := flag.Int("rows", 20000, "rows to learn from")
	data := flag.String("data", "", "images as CSV")
	divide := flag.Float64("divide", 255, "what the pixels are divided by")
	train := flag.Int("train", 0, "examples to learn from; the rest is for tests")
	shuffle := flag.Bool("shuffle", false, "shuffle before the split, by seed 0")
	input := flag.Int("input", 784, "pixels of an image")
	widths := flag.String("widths", "32,128,512", "widths of the three hidden layers")
	seeds := flag.String("seeds", "1,2,3,4,5", "seeds of weights and order")
	epochs := flag.Int("epochs", 100, "epochs")
	batch := flag.Int("batch", 100, "examples of a step")
	where := flag.String("backend", "auto", "where the networks are computed")
	flag.Parse()
	if *out == "" || (*text == "") == (*data == "") {
		return errors.New("trainpairs needs -out, and either -data or -text")
	}
	if *text != "" {
		return cut(*text, *out, *row, *rows)
	}
	n := networks{out: *out, data: *data, train: *train, input: *input, shuffle: *shuffle, divide: *divide,
		o: plain.Options{Epochs: *epochs, Batch: *batch}, backend: *where}
	for _, list := range []struct {
		text string
		to   *[]int
	}{{*widths, &n.widths}, {*seeds, &n.seeds}} {
		for part := range strings.SplitSeq(list.text, ",") {
			v, err := strconv.Atoi(part)
			if err != nil || v < 1 {
				return fmt.Errorf("%q is no list of positive numbers", list.text)
			}
			*list.to = append(*list.to, v)
		}
	}
	return n.make(ctx)
}

// networks says which networks to train.
type networks struct {
	out, data, backend string
	train, input       int
	shuffle            bool
	divide             float64
	widths, seeds      []int
	o                  plain.Options
}

// config is that of a perceptron with three hidden layers (section 16 of our notes on merging).
func (n *networks) config(width int) []byte {
	return fmt.Appendf(nil, `{
  "model_type": "mlp",
  "input_shape": [%d],
  "loss": "cross_entropy",
  "layers": [
    {"type": "linear", "name": "layer1", "out": %d}, {"type": "relu"},
    {"type": "linear", "name": "layer2", "out": %d}, {"type": "relu"},
    {"type": "linear", "name": "layer3", "out": %d}, {"type": "relu"},
    {"type": "linear", "name": "layer4", "out": 10}
  ]
}
`, n.input, width, width, width)
}

func (n *networks) make(ctx context.Context) error {
	b, status, err := backend.OpenModel(n.backend)
	if err != nil {
		return err
	}
	defer b.Finalize()
	fmt.Fprintf(os.Stderr, "backend %s\n", status.Kind)
	var train, test *samples.Set
	for _, width := range n.widths {
		config := n.config(width)
		d, err := model.DescribePlain(config)
		if err != nil {
			return err
		}
		if train == nil {
			all, err := samples.Read(n.data, d, samples.Options{Divide: n.divide})
			if err != nil {
				return err
			}
			if n.train < 1 || n.train >= all.N {
				return fmt.Errorf("-train %d of %d examples leaves nothing to test, or nothing to learn from", n.train, all.N)
			}
			if n.shuffle {
				all = all.Only(samples.Shuffle(all.N, 0))
			}
			train, test = all.Range(0, n.train), all.Range(n.train, all.N)
			if err := errors.Join(save(filepath.Join(n.out, "train.safetensors"), train), save(filepath.Join(n.out, "test.safetensors"), test)); err != nil {
				return err
			}
		}
		for _, seed := range n.seeds {
			dir := filepath.Join(n.out, fmt.Sprintf("w%d-s%d", width, seed))
			if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); err == nil {
				fmt.Printf("%s: is there already\n", dir)
				continue
			}
			began := time.Now()
			m, err := model.NewPlain(d, d.Initial(uint64(seed)), b, 0)
			if err != nil {
				return err
			}
			o := n.o
			o.Seed = uint64(seed)
			learned, err := plain.Train(ctx, m, train, o)
			if err != nil {
				m.Close()
				return err
			}
			r, err := m.Loss(test.X, test.Labels, test.N)
			if err != nil {
				m.Close()
				return err
			}
			values, err := m.Tensors()
			m.Close()
			if err != nil {
				return err
			}
			if err := write(dir, config, values); err != nil {
				return err
			}
			fmt.Printf("%s: train loss %.2g accuracy %.4f, test loss %.4f accuracy %.4f, %.1f s\n", dir, learned.MeanLoss(), learned.Accuracy(),
				r.MeanLoss(), r.Accuracy(), time.Since(began).Seconds())
		}
	}
	return nil
}

// save writes examples as the commands read them.
func save(path string, s *samples.Set) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	x, labels := make([]byte, 4*len(s.X)), make([]byte, 4*s.N)
	if err := errors.Join(tensors.EncodeFloat32(x, tensors.F32, s.X)); err != nil {
		return err
	}
	for i, c := range s.Labels.Classes {
		labels[4*i] = byte(c) // little-endian, fewer than 256 classes
	}
	return tensors.SaveFile(path, []tensors.Info{{Name: "input", DType: tensors.F32, Shape: []int{s.N, len(s.X) / s.N}}, {Name: "labels", DType: tensors.I32, Shape: []int{s.N}}},
		[][]byte{x, labels}, nil)
}

// write writes a checkpoint.
func write(dir string, config []byte, values map[string]model.Tensor) error {
	var infos []tensors.Info
	for _, name := range slices.Sorted(maps.Keys(values)) {
		infos = append(infos, tensors.Info{Name: name, DType: tensors.F32, Shape: values[name].Shape})
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{Files: []string{"config.json"}})
	if err != nil {
		return err
	}
	defer w.Close()
	for i, info := range infos {
		raw := make([]byte, 4*info.Elems())
		if err := tensors.EncodeFloat32(raw, tensors.F32, values[info.Name].Data); err != nil {
			return err
		}
		if err := errors.Join(w.WriteAt(i, raw, 0), w.Finish(i)); err != nil {
			return err
		}
	}
	if err := w.WriteFile("config.json", config); err != nil {
		return err
	}
	return w.Commit()
}

// cut writes train.jsonl, valid.jsonl and test.jsonl: rows of ids of characters, and vocab.json, the characters by id. The last twentieth
// of the text is for tests, the one before it for validation. Characters that the first part lacks become the last id.
func cut(path, out string, length, rows int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := []rune(string(data))
	part := len(text) / 20
	parts := map[string][]rune{"train": text[:len(text)-2*part], "valid": text[len(text)-2*part : len(text)-part], "test": text[len(text)-part:]}
	ids := map[rune]int{}
	for _, r := range parts["train"] {
		ids[r] = 0
	}
	chars := slices.Sorted(maps.Keys(ids))
	for i, r := range chars {
		ids[r] = i
	}
	if err := os.MkdirAll(out, 0o777); err != nil {
		return err
	}
	for name, limit := range map[string]int{"train": rows, "valid": 200, "test": 400} {
		f, err := os.Create(filepath.Join(out, name+".jsonl"))
		if err != nil {
			return err
		}
		w := bufio.NewWriter(f)
		text := parts[name]
		limit = min(limit, len(text)/length)
		for k := range limit {
			at := len(text) / limit * k // spread over the whole part
			row := make([]int, length)
			for i, r := range text[at : at+length] {
				id, ok := ids[r]
				if !ok {
					id = len(chars)
				}
				row[i] = id
			}
			line, err := json.Marshal(map[string][]int{"input_ids": row})
			if err != nil {
				return err
			}
			if _, err := w.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		if err := errors.Join(w.Flush(), f.Close()); err != nil {
			return err
		}
	}
	vocab, err := json.Marshal(string(chars))
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d characters, %d different ones\n", path, len(text), len(chars))
	return os.WriteFile(filepath.Join(out, "vocab.json"), append(vocab, '\n'), 0o666)
}
