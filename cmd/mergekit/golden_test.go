package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/tensors"
)

// xlaPlugin returns the path of the plugin for the CPU, "" without one.
func xlaPlugin() string {
	for _, s := range backend.List() {
		if s.Kind == backend.XLACPU && s.Available {
			return s.Path
		}
	}
	return ""
}

// conditionXLA says whether the script's condition [xla] holds: there is a plugin for the CPU, whose path is $XLA.
func conditionXLA(cond string) (bool, error) { return cond == "xla" && xlaPlugin() != "", nil }

// logitsGoldenCommand: logits-golden BACKEND CASE... runs 'mergekit logits' on golden cases and compares the files that it writes
// with those of transformers.
func logitsGoldenCommand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args[1:] {
		dir := filepath.Join(ts.Getenv("FORWARD"), name)
		input, out := filepath.Join(dir, "input.json"), ts.MkAbs(name+".golden.safetensors")
		ts.Check(ts.Exec("mergekit", "logits", dir, "--input", input, "-o", out, "--backend", args[0], "--quiet"))
		want, shape := readOutput(ts, filepath.Join(dir, "expected.safetensors"))
		got, have := readOutput(ts, out)
		if len(got) != len(want) || len(have) != len(shape) {
			ts.Fatalf("%s: shape %v, want %v", name, have, shape)
		}
		data, err := os.ReadFile(input)
		ts.Check(err)
		var in struct {
			Mask [][]int `json:"attention_mask"`
		}
		ts.Check(json.Unmarshal(data, &in))
		var worst, largest float64
		for i := range want {
			if row := i / shape[len(shape)-1]; in.Mask != nil && len(shape) == 3 && in.Mask[row/shape[1]][row%shape[1]] == 0 {
				continue // padding
			}
			worst = max(worst, math.Abs(float64(got[i]-want[i])))
			largest = max(largest, math.Abs(float64(want[i])))
		}
		if !(worst <= 2e-4*largest) {
			ts.Fatalf("%s: largest difference %.3g, largest magnitude %.3g", name, worst, largest)
		}
	}
}

func readOutput(ts *testscript.TestScript, path string) ([]float32, []int) {
	c, err := tensors.Open(path)
	ts.Check(err)
	defer c.Close()
	v, err := c.View("output")
	ts.Check(err)
	f := make([]float32, v.Elems())
	ts.Check(tensors.DecodeFloat32(f, v.Data, v.DType))
	return f, v.Shape
}

// classifierAdapterCommand: classifier-adapter DIR writes a LoRA adapter for $MODELS/base that brings a head of three classes.
func classifierAdapterCommand(ts *testscript.TestScript, _ bool, args []string) {
	fill := func(shape ...int) adapter.Tensor {
		t := adapter.Tensor{Shape: shape}
		for i := range t.Elems() {
			t.Data = append(t.Data, float32(math.Sin(float64(i*i+shape[0])))/4)
		}
		return t
	}
	c := adapter.Defaults()
	c.TaskType, c.R, c.Alpha, c.Targets, c.ModulesToSave = "SEQ_CLS", 2, 4, adapter.Selector{Names: []string{"q_proj"}}, []string{"classifier", "score"}
	a := &adapter.Adapter{Config: c, Tensors: map[string]adapter.Tensor{"base_model.model.score.weight": fill(3, 32)}}
	for i := range 4 {
		module := fmt.Sprintf("base_model.model.model.layers.%d.self_attn.q_proj.", i)
		a.Tensors[module+"lora_A.weight"], a.Tensors[module+"lora_B.weight"] = fill(2, 32), fill(32, 2)
	}
	ts.Check(a.Save(ts.MkAbs(args[0]), adapter.SaveOptions{}))
}
