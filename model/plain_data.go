package model

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// ReadExamples reads examples for a plain network from a safetensors file: "input", float, [n, ...] with the network's input shape
// behind n (or [n, features] for the same number of values), and, if it is there, "labels": whole numbers [n], or floats of the
// outputs' shape for the squared error. Errors about the file are *InputError or *tensors.FormatError.
func ReadExamples(path string, d *PlainDescription) (x []float32, n int, l Labels, err error) {
	c, err := tensors.Open(path)
	if err != nil {
		return nil, 0, l, err
	}
	defer c.Close()
	bad := func(format string, args ...any) error {
		return &InputError{File: path, Msg: fmt.Sprintf(format, args...)}
	}
	if x, n, err = readInputs(c, path, d); err != nil {
		return nil, 0, l, err
	}
	if _, ok := c.Lookup("labels"); !ok {
		return x, n, l, nil
	}
	var rows int
	if d.Loss == SquaredError {
		l.Values, rows, err = readRows(c, "labels", d.Output)
	} else {
		l.Classes, rows, err = readClasses(c)
	}
	switch {
	case err != nil:
		return nil, 0, l, bad("%v", err)
	case rows != n:
		return nil, 0, l, bad("has %d examples and %d labels", n, rows)
	}
	return x, n, l, nil
}

// ReadInputs is ReadExamples without the labels, which may be anything.
func ReadInputs(path string, d *PlainDescription) (x []float32, n int, err error) {
	c, err := tensors.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	return readInputs(c, path, d)
}

func readInputs(c *tensors.Checkpoint, path string, d *PlainDescription) (x []float32, n int, err error) {
	if _, ok := c.Lookup("input"); !ok {
		return nil, 0, &InputError{File: path, Msg: `has no tensor "input" with the examples`}
	}
	if x, n, err = readRows(c, "input", d.Input); err != nil {
		return nil, 0, &InputError{File: path, Msg: err.Error()}
	}
	return x, n, nil
}

// readRows reads floats of n examples.
func readRows(c *tensors.Checkpoint, name string, shape []int) ([]float32, int, error) {
	v, err := c.View(name)
	if err != nil {
		return nil, 0, err
	}
	each, _ := plainElems(shape)
	if len(v.Shape) < 1 || !v.DType.IsFloat() || (!slices.Equal(v.Shape[1:], shape) && !slices.Equal(v.Shape[1:], []int{each})) {
		return nil, 0, fmt.Errorf("%q is %v %v; it must be float, %v for each example", name, v.DType, v.Shape, shape)
	}
	f := make([]float32, v.Elems())
	return f, v.Shape[0], tensors.DecodeFloat32(f, v.Data, v.DType)
}

// readClasses reads whole numbers.
func readClasses(c *tensors.Checkpoint) ([]int32, int, error) {
	v, err := c.View("labels")
	if err != nil {
		return nil, 0, err
	}
	size := v.DType.Size()
	if len(v.Shape) != 1 || v.DType.IsFloat() || size == 0 {
		return nil, 0, fmt.Errorf("\"labels\" is %v %v; classes must be whole numbers, one for each example", v.DType, v.Shape)
	}
	out := make([]int32, v.Shape[0])
	for i := range out {
		b := v.Data[i*size : (i+1)*size]
		var n uint64
		for k := size - 1; k >= 0; k-- { // little-endian
			n = n<<8 | uint64(b[k])
		}
		if n >= 1<<31 {
			return nil, 0, fmt.Errorf("example %d has a class that is negative or too large", i+1)
		}
		out[i] = int32(n)
	}
	return out, len(out), nil
}
