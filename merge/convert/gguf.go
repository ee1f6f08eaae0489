package convert

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/arch/llamacpp"
)

// FromGGUF writes the model of the GGUF file src (any part of a split one) as a Hugging Face directory: weights under the
// names and in the layout of transformers, config.json, generation_config.json, and the tokenizer with its chat template.
//
// Without o.DType a file whose matrices are all F16, or all BF16, keeps every tensor's dtype; of any other, all tensors
// become F32, which holds the dequantised values exactly.
func FromGGUF(ctx context.Context, src, out string, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c, m, err := llamacpp.Open(src)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := refuseInside(filepath.Dir(src), out); err != nil {
		return nil, err
	}
	x := &output{id: newIdentity("gguf", o)}
	if err := identifyGGUF(x.id, m); err != nil {
		return nil, err
	}
	if err := x.tensors(c, o); err != nil {
		return nil, err
	}
	dtype := m.DType()
	if o.DType != nil {
		dtype = *o.DType
	}
	if x.files, err = m.Files(dtype); err != nil {
		return nil, err
	}
	r, err := x.write(ctx, out, o)
	if err != nil {
		return nil, err
	}
	r.Warnings = m.Warnings()
	return r, nil
}

// identifyGGUF adds what tells the file from others: every part's header, size and time of change.
func identifyGGUF(id identity, m *llamacpp.Model) error {
	for _, part := range m.Parts() {
		file, err := os.Open(part.Path)
		if err != nil {
			return fmt.Errorf("cannot read the input again: %w", err)
		}
		st, err := file.Stat()
		if err == nil {
			id.add(filepath.Base(part.Path), fmt.Sprint(st.Size()), st.ModTime().UTC().String())
			err = id.addStart(file, min(part.Header, st.Size())) // a part without tensors may lack the padding
		}
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("cannot read the input again: %w", err)
		}
	}
	return nil
}
