package train

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

type saveOptions struct {
	compat string
	files  map[string][]byte
	copies map[string]string
}

// saveModel writes the base with its trained weights, in the base's dtypes and order.
func (s *subject) saveModel(dir string, trained map[string]model.Tensor, o saveOptions) error {
	byFile := map[string]model.Tensor{}
	for name, t := range trained {
		info, ok := s.desc.Find(s.ckpt, name)
		if !ok {
			return fmt.Errorf("the checkpoint has no tensor for %s", name)
		}
		byFile[info.Name] = t
		if d := s.desc; d.Tied && d.Head == model.HeadLM && name == d.Names.Embed+".weight" {
			if copy, ok := s.ckpt.Lookup(d.Names.LMHead + ".weight"); ok { // some files hold the tied matrix twice
				byFile[copy.Name] = t
			}
		}
	}
	var infos []tensors.Info
	for _, name := range s.ckpt.Names() {
		info, _ := s.ckpt.Lookup(name)
		infos = append(infos, info)
	}
	var names []string
	for n := range o.files {
		names = append(names, n)
	}
	for n := range o.copies {
		names = append(names, n)
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{Force: true, Files: names, Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Close()
	var encoded []byte
	for i, info := range infos {
		v, err := s.ckpt.View(info.Name)
		if err != nil {
			return err
		}
		data := v.Data
		if t, ok := byFile[info.Name]; ok {
			encoded = slices.Grow(encoded[:0], len(data))[:len(data)]
			data = encoded
			if err := tensors.EncodeFloat32(data, info.DType, t.Data); err != nil {
				return err
			}
		}
		if err := w.WriteAt(i, data, 0); err != nil {
			return err
		}
		if err := w.Finish(i); err != nil {
			return err
		}
	}
	for n, data := range o.files {
		if err := w.WriteFile(n, data); err != nil {
			return err
		}
	}
	for n, path := range o.copies {
		if err := checkpoint.CopyFile(w, n, path); err != nil {
			return err
		}
	}
	return w.Commit()
}

// sideFiles are the files of a base that belong to a fine-tuned model too.
var sideFiles = []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
	"tokenizer.model", "vocab.txt", "chat_template.jinja"}

// copies lists the side files of the base by the path they are copied from.
func copies(base string, names []string) map[string]string {
	out := map[string]string{}
	for _, n := range names {
		path := filepath.Join(base, n)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			out[n] = path
		}
	}
	return out
}
