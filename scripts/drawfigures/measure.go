package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/merge/connect"
	"github.com/mergekit/mergekit/merge/lmc"
)

// widths are those that scripts/train-pairs trains.
var widths = []int{32, 128, 512}

// task is a set of images with networks that were trained on it.
type task struct{ name, title string }

var tasks = []task{{"digits", "digits (1,797 images of 8x8)"}, {"mnist", "MNIST-5,000"}}

// network is the directory of a trained network.
func (j *job) network(t task, width, seed int) string {
	return filepath.Join(j.pairs, t.name, fmt.Sprintf("w%d-s%d", width, seed))
}

// networks are those of the seeds from 1 to n.
func (j *job) networks(t task, width, n int) (list []string) {
	for seed := 1; seed <= n; seed++ {
		list = append(list, j.network(t, width, seed))
	}
	return list
}

func (j *job) data(t task, set string) string {
	return filepath.Join(j.pairs, t.name, set+".safetensors")
}

// run runs the program so that it writes into a folder that is named by the arguments, unless it is there already.
func (j *job) run(ctx context.Context, file string, args ...string) (string, error) {
	sum := sha256.Sum256([]byte(strings.Join(args, "\x00")))
	dir := filepath.Join(j.work, args[0]+"-"+hex.EncodeToString(sum[:6]))
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	args = append(args, "--backend", j.backend, "--quiet", "-o", dir)
	fmt.Println(j.program, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, j.program, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w", j.program, strings.Join(args, " "), err)
	}
	return path, nil
}

func read[T any](path string) (*T, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := json.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

// barrier measures models of a task on train and test.
func (j *job) barrier(ctx context.Context, t task, models []string, flags ...string) (*connect.Report, error) {
	args := append([]string{"barrier"}, models...)
	args = append(args, "--data", j.data(t, "test"), "--train", j.data(t, "train"), "--on-same-base", "force")
	path, err := j.run(ctx, "barrier.json", append(args, flags...)...)
	if err != nil {
		return nil, err
	}
	return read[connect.Report](path)
}

// vectors compares singular vectors before and after alignment by weights.
func (j *job) vectors(ctx context.Context, a, b string, flags ...string) (*lmc.Report, error) {
	path, err := j.run(ctx, "lmc.json", append([]string{"analyze", "lmc", a, b, "--on-same-base", "force"}, flags...)...)
	if err != nil {
		return nil, err
	}
	return read[lmc.Report](path)
}

// path is what a variant measures between the first two models on a set.
func path(r *connect.Report, variant, set string) (*connect.Path, *connect.Curve, error) {
	for _, v := range r.Variants {
		if v.Name != variant {
			continue
		}
		p := &v.Paths[0]
		for i := range p.Curves {
			if p.Curves[i].Set == set {
				return p, &p.Curves[i], nil
			}
		}
	}
	return nil, nil, fmt.Errorf("the measurement has no %s on %s", variant, set)
}

func number(x float64) string  { return fmt.Sprintf("%.3f", x) }
func percent(x float64) string { return fmt.Sprintf("%.1f%%", 100*x) }
