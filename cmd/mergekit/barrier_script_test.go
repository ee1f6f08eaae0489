package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// networkCommand: network DIR WEIGHTS makes a network of the golden weights, whose layers the reference names.
func networkCommand(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o777))
	weights, err := os.ReadFile(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "model.safetensors"), weights, 0o666))
	ts.Check(os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type": "mlp", "input_shape": [784], "layers": [
 {"type": "linear", "name": "0", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "2", "out": 512}, {"type": "relu"},
 {"type": "linear", "name": "4", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "6", "out": 10}]}`), 0o666))
}

// examplesCommand: examples FILE N WIDTH CLASSES writes labelled examples as CSV.
func examplesCommand(ts *testscript.TestScript, _ bool, args []string) {
	var sizes []int
	for _, a := range args[1:] {
		n, err := strconv.Atoi(a)
		ts.Check(err)
		sizes = append(sizes, n)
	}
	var b strings.Builder
	for i := range sizes[0] {
		for k := range sizes[1] {
			fmt.Fprintf(&b, "%.3f,", float64((i*i*31+k*7)%256)/255)
		}
		fmt.Fprintln(&b, i%sizes[2])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o666))
}
