package repair

import (
	"context"
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// Checkpoint finds the repair of a merged checkpoint directory: a plain network or a transformer, by its config.json. parents hold
// tensors by the names that the directory has. Where the merged tensors were rounded to 16 bits, a repair is rounded once more: let
// the merge write float32 if that matters.
func Checkpoint(ctx context.Context, dir string, parents []Parent, data calibration.Options, o Options) (Changes, *Report, error) {
	config := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, nil, &model.ConfigError{File: config, Msg: "cannot be read: " + err.Error() + "; a repair needs to know what the network computes"}
	}
	ckpt, err := checkpoint.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer ckpt.Close()
	merged := align.OfCheckpoint(ckpt)
	if model.IsPlain(text) {
		d, err := model.ReadPlainDescription(dir)
		if err != nil {
			return nil, nil, err
		}
		if o.Mode != Activations && o.Mode != ResetNorm {
			return Plain(ctx, d, merged, parents, nil, o)
		}
		data.Unlabelled = true
		set, err := calibration.Plain(d, data)
		if err != nil {
			return nil, nil, err
		}
		return Plain(ctx, d, merged, parents, set, o)
	}
	d, _, err := model.ReadDescription(dir)
	if err != nil {
		return nil, nil, err
	}
	if o.Mode == Norms {
		return TransformerNorms(ctx, d, merged, parents, o)
	}
	if o.Mode != Activations {
		return Transformer(ctx, &model.Model{D: d}, merged, parents, nil, o) // nothing, or an error
	}
	batches, err := calibration.Inputs(ctx, dir, d, data)
	if err != nil {
		return nil, nil, err
	}
	m, err := model.LoadFrom(ctx, d, ckpt, model.Options{Backend: o.Backend, Device: o.Device, Widen: true})
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	return Transformer(ctx, m, merged, parents, batches, o)
}

// WriteOptions say how a repaired checkpoint is written.
type WriteOptions struct {
	ShardBytes int64 // most bytes of tensors in a shard; 0: 5e9; negative: one file
	Force      bool  // replace an existing output
}

// chunkBytes is how much of a tensor is in memory at a time.
const chunkBytes = 16 << 20

// Write writes the checkpoint in dir with the changes carried out to out, which appears when it is complete. Files beside the weights
// are copied.
func Write(ctx context.Context, dir, out string, c Changes, o WriteOptions) error {
	from, err := checkpoint.Open(dir)
	if err != nil {
		return err
	}
	defer from.Close()
	var infos []tensors.Info
	for _, name := range from.Names() {
		info, _ := from.Lookup(name)
		infos = append(infos, info)
	}
	w, err := tensors.Create(out, infos, tensors.WriteOptions{ShardBytes: o.ShardBytes, Metadata: from.Metadata(), Force: o.Force})
	if err != nil {
		return err
	}
	defer w.Close()
	for i, info := range infos {
		if err := copyTensor(ctx, w, i, info, from, c); err != nil {
			return err
		}
		if err := w.Finish(i); err != nil {
			return err
		}
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		name := e.Name()
		if name != "config.json" && !adapter.SideFile(name) || !e.Type().IsRegular() {
			continue
		}
		if err := checkpoint.CopyFile(w, name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return w.Commit()
}

// copyTensor writes a tensor, changed if there is a change, some rows at a time.
func copyTensor(ctx context.Context, w *tensors.Writer, i int, info tensors.Info, from *tensors.Checkpoint, c Changes) error {
	v, err := from.View(info.Name)
	if err != nil {
		return err
	}
	if _, changed := c[info.Name]; !changed || len(v.Data) == 0 {
		for off := 0; off < len(v.Data); off += chunkBytes {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := w.WriteAt(i, v.Data[off:min(off+chunkBytes, len(v.Data))], int64(off)); err != nil {
				return err
			}
		}
		from.Release(info.Name, 0, int64(len(v.Data)))
		return nil
	}
	rows := info.Shape[0]
	width := int(info.Elems()) / rows
	bytes := len(v.Data) / rows // of a row
	step := min(rows, max(1, chunkBytes/(4*width)))
	x, buffer := make([]float32, step*width), make([]byte, step*bytes)
	for r := 0; r < rows; r += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(step, rows-r)
		part, data := x[:n*width], buffer[:n*bytes]
		if err := tensors.DecodeFloat32(part, v.Data[r*bytes:(r+n)*bytes], v.DType); err != nil {
			return err
		}
		c.Apply(info.Name, info.Shape, r, part)
		if err := tensors.EncodeFloat32(data, info.DType, part); err != nil {
			return err
		}
		if err := w.WriteAt(i, data, int64(r*bytes)); err != nil {
			return err
		}
	}
	from.Release(info.Name, 0, int64(len(v.Data)))
	return nil
}
