package adapter

import (
	"errors"

	"github.com/mergekit/mergekit/tensors"
)

// This file holds the signatures whose bodies follow in the next commits.

// Modules lists the modules of a checkpoint from its headers and its config.json, by the paths of the Hugging Face class.
func Modules(ckpt *tensors.Checkpoint, configJSON []byte) ([]Module, error) {
	return nil, errors.ErrUnsupported
}

// Init makes the tensors that training starts from, keyed as on disk. weight returns the values of a module's weight as
// stored; it is asked for DoRA, PiSSA and OLoRA only.
func Init(c *Config, targets []Target, seed uint64, weight func(Module) ([]float32, error)) (map[string]Tensor, error) {
	return nil, errors.ErrUnsupported
}

// Converted turns a trained PiSSA or OLoRA adapter, whose base was changed at the start, into an ordinary one of twice the
// rank for the original base.
func Converted(c *Config, targets []Target, init, trained map[string]Tensor) (*Config, map[string]Tensor, error) {
	return nil, nil, errors.ErrUnsupported
}

// Residual changes a module's weight to what PiSSA and OLoRA train on: w - s·B·A with the initial factors. Others leave it.
func Residual(c *Config, t Target, init map[string]Tensor, w []float32) {}

// Adapter is an adapter in memory.
type Adapter struct {
	Dir     string
	Config  *Config
	Tensors map[string]Tensor // keys as on disk
}

// Open reads an adapter: its configuration and all tensors, as float32.
func Open(dir string) (*Adapter, error) { return nil, errors.ErrUnsupported }

// SaveOptions say how an adapter is written.
type SaveOptions struct {
	Compat string            // Full (also "") or Minimal
	Force  bool              // replace an existing output
	Files  map[string][]byte // further files by name: README.md, a chat template
	Copies map[string]string // further files by the path they are copied from: a tokenizer
}

// Save writes the adapter as a directory, which appears whole or not at all.
func (a *Adapter) Save(dir string, o SaveOptions) error { return errors.ErrUnsupported }

// Delta is what an adapter does to one tensor of a checkpoint.
type Delta struct {
	Module Module
	Tensor string // in the checkpoint; one that the checkpoint does not have where New
	Shape  []int  // after fusing
	New    bool
}

// Bind matches the adapter to the modules of a base.
func (a *Adapter) Bind(modules []Module) ([]Delta, error) { return nil, errors.ErrUnsupported }

// Rows changes rows [lo, hi) of the stored tensor, which w holds, to those of the fused one.
func (d *Delta) Rows(w []float32, lo, hi int) error { return errors.ErrUnsupported }
