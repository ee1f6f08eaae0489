package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"github.com/mergekit/mergekit/tensors"
)

// killVariable makes the test binary the program itself, without testscript's folder of links.
const killVariable = "MERGEKIT_TEST_MERGE"

// noise writes a checkpoint of n tensors of some 300 kB.
func noise(t *testing.T, dir string, seed uint64, n int) {
	t.Helper()
	if err := writeNoise(dir, seed, n); err != nil {
		t.Fatal(err)
	}
}

func writeNoise(dir string, seed uint64, n int) error {
	var infos []tensors.Info
	for i := range n {
		infos = append(infos, tensors.Info{Name: fmt.Sprintf("blocks.%d.weight", i), DType: tensors.F32, Shape: []int{70 + i, 1021}})
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{})
	if err != nil {
		return err
	}
	defer w.Close()
	rng := rand.New(rand.NewPCG(seed, seed))
	for i, info := range infos {
		x := make([]float32, info.Elems())
		for k := range x {
			x[k] = float32(rng.NormFloat64())
		}
		data := make([]byte, info.Bytes())
		if err := tensors.EncodeFloat32(data, tensors.F32, x); err != nil {
			return err
		}
		if err := w.WriteAt(i, data, 0); err != nil {
			return err
		}
		if err := w.Finish(i); err != nil {
			return err
		}
	}
	return w.Commit()
}

// content is a directory's files by name.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		m[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestKill kills a merge with SIGKILL at twenty random moments and resumes it; the output has the bytes of an undisturbed
// merge each time. Package tensors has the same test with a writer that is caught in the middle more often.
func TestKill(t *testing.T) {
	root := t.TempDir()
	noise(t, filepath.Join(root, "base"), 1, 60)
	noise(t, filepath.Join(root, "tuned"), 2, 60)
	recipe := filepath.Join(root, "recipe.yml")
	text := "merge_method: dare_ties\nbase_model: base\nmodels:\n- {model: tuned, parameters: {weight: 0.7, density: 0.4}}\ndtype: bfloat16\n"
	if err := os.WriteFile(recipe, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	merge := func(dir string, more ...string) *exec.Cmd {
		args := append([]string{"merge", recipe, filepath.Join(dir, "out"), "--backend", "go", "--quiet", "--shard-size", "2MB"}, more...)
		c := exec.Command(os.Args[0], args...)
		c.Env = append(os.Environ(), killVariable+"=1")
		return c
	}
	whole := filepath.Join(root, "whole")
	start := time.Now()
	if out, err := merge(whole).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	span := time.Since(start)
	want := content(t, filepath.Join(whole, "out"))
	rng := rand.New(rand.NewPCG(3, 3))
	killed := 0
	for k := range 20 {
		dir := filepath.Join(root, fmt.Sprint(k))
		c := merge(dir)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rng.Int64N(int64(span))))
		_ = c.Process.Kill()
		err := c.Wait()
		if _, e := os.Stat(filepath.Join(dir, "out")); e != nil {
			if err == nil {
				t.Fatal("finished without an output")
			}
			killed++
			if out, err := merge(dir, "--resume").CombinedOutput(); err != nil {
				t.Fatalf("kill %d: %v\n%s", k, err, out)
			}
		}
		got := content(t, filepath.Join(dir, "out"))
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("kill %d: %s differs", k, name)
			}
		}
		if len(got) != len(want) {
			t.Errorf("kill %d: %d files, want %d", k, len(got), len(want))
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if killed == 0 {
		t.Error("every merge was faster than its kill: the test tests nothing")
	}
}

// asProgram runs the command line of a binary that TestKill started.
func asProgram() {
	if os.Getenv(killVariable) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		os.Exit(run(ctx, os.Args))
	}
}
