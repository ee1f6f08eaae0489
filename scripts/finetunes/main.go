// Command finetunes makes the networks of the studies on soups and on merging tasks, for scripts/train-finetunes: a base, fine-tunes of it,
// and the examples on which they are measured. All from images of handwritten digits; the same arguments give the same files.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/finetune/plain"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
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

// maker makes a study's files.
type maker struct {
	ctx     context.Context
	out     string
	backend compute.Backend
}

func run(ctx context.Context) error {
	out := flag.String("out", "", "directory to write")
	study := flag.String("study", "", "soup or tasks")
	mnist := flag.String("mnist", "testdata/golden/wm/mnist5k.csv.gz", "images of 28x28 as CSV")
	digits := flag.String("digits", "", "images of 8x8 as CSV, for a task of its own")
	where := flag.String("backend", "auto", "where the networks are computed")
	flag.Parse()
	if *out == "" {
		return errors.New("finetunes needs -out")
	}
	b, status, err := backend.OpenModel(*where)
	if err != nil {
		return err
	}
	defer b.Finalize()
	fmt.Fprintf(os.Stderr, "backend %s\n", status.Kind)
	m := &maker{ctx: ctx, out: *out, backend: b}
	switch *study {
	case "soup":
		return m.soup(*mnist)
	case "tasks":
		return m.tasks(*mnist, *digits)
	}
	return fmt.Errorf("-study is soup or tasks, not %q", *study)
}

// trained trains a network from values, which are left as they are.
func (m *maker) trained(d *model.PlainDescription, values map[string]model.Tensor, s *samples.Set, o plain.Options) (map[string]model.Tensor, error) {
	net, err := model.NewPlain(d, values, m.backend, 0)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	if _, err := plain.Train(m.ctx, net, s, o); err != nil {
		return nil, err
	}
	return net.Tensors()
}

// score measures a network: the mean loss and the accuracy.
func (m *maker) score(d *model.PlainDescription, values map[string]model.Tensor, s *samples.Set) (loss, accuracy float64, err error) {
	net, err := model.NewPlain(d, values, m.backend, 0)
	if err != nil {
		return 0, 0, err
	}
	defer net.Close()
	r, err := net.Loss(s.X, s.Labels, s.N)
	return r.MeanLoss(), r.Accuracy(), err
}

// record writes what was made, for those who measure it.
func (m *maker) record(name string, what any) error {
	text, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.out, name), append(text, '\n'), 0o666)
}

// told prints a line about what took how long.
func told(began time.Time, format string, args ...any) {
	fmt.Printf("%s, %.1f s\n", fmt.Sprintf(format, args...), time.Since(began).Seconds())
}
