package quant

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

// FuzzApply wants of any configuration with any checkpoint: a *tensors.FormatError, or weights that can be read to their ends.
func FuzzApply(f *testing.F) {
	dirs, err := filepath.Glob("../../testdata/golden/quantised/*")
	if err != nil || len(dirs) == 0 {
		f.Fatal(err)
	}
	for _, dir := range dirs {
		config, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			f.Fatal(err)
		}
		var c struct {
			Q json.RawMessage `json:"quantization_config"`
		}
		if err := json.Unmarshal(config, &c); err != nil {
			f.Fatal(err)
		}
		if c.Q == nil {
			c.Q = []byte(`{"quant_method":"modelopt"}`)
		}
		weights, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(c.Q), weights)
	}
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		if len(weights) > 1<<17 {
			return
		}
		q, err := ParseConfig(config)
		if err != nil {
			if !errors.As(err, new(*tensors.FormatError)) {
				t.Errorf("%v is no FormatError", err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "model.safetensors")
		if err := os.WriteFile(path, weights, 0o666); err != nil {
			t.Fatal(err)
		}
		c, err := tensors.Open(path)
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := Apply(c, q, tensors.BF16); err != nil {
			if !errors.As(err, new(*tensors.FormatError)) {
				t.Errorf("%v is no FormatError", err)
			}
			return
		}
		for _, name := range c.Names() {
			info, _ := c.Lookup(name)
			if info.Bytes() > 64*int64(len(weights)) {
				t.Fatalf("%q is %v of a file of %d bytes", name, info, len(weights))
			}
			v, err := c.View(name)
			if err != nil { // a list of groups is checked when it is read
				continue
			}
			r, err := c.Reader(name)
			if err != nil {
				t.Fatal(err)
			}
			size := info.DType.Size()
			if size == 0 || len(v.Data) < 3*size {
				continue
			}
			part, err := r.Bytes(int64(size), int64(len(v.Data)-2*size), nil)
			if err != nil || !bytes.Equal(part, v.Data[size:len(v.Data)-size]) {
				t.Errorf("%q: the middle differs from the whole, %v", name, err)
			}
		}
	})
}
