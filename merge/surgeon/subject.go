package surgeon

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/tensors"
)

// subject is one of the two models.
type subject struct {
	dir    string
	ckpt   *tensors.Checkpoint
	config arch.Config
	raw    []byte
	arch   *arch.Arch
	words  *words
	embed  []string // input embeddings, [rows, width]
	head   []string // output heads, [rows, width]
	biases []string // vectors over the vocabulary
	stale  []string // heads that loaders ignore, because the embedding is used in their place
}

// maxVocabulary bounds the ids that a tokenizer may give.
const maxVocabulary = 1 << 22

func openSubject(dir string) (*subject, error) {
	c, err := checkpoint.Open(dir)
	if err != nil {
		return nil, err
	}
	if dir, err = checkpoint.Directory(dir); err != nil { // of a GGUF file, where its configuration and tokenizer are
		return nil, errors.Join(err, c.Close())
	}
	s := &subject{dir: dir, ckpt: c}
	if err := s.read(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

// read reads everything but the weights.
func (s *subject) read() error {
	if len(s.ckpt.Names()) == 0 {
		return &Error{File: s.dir, Msg: "has no tensors", Hint: "check that the download or the merge that made it ended"}
	}
	var err error
	s.config, s.raw, err = arch.ReadConfigFile(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &Error{File: s.dir, Msg: "has no config.json, which says how large the vocabulary is", Hint: "name a model's directory"}
	}
	if err != nil {
		return err
	}
	if s.words, err = newWords(s.dir, maxVocabulary); err != nil {
		return err
	}
	if err := s.describe(); err != nil {
		return err
	}
	return s.find()
}

// describe finds the model's architecture.
func (s *subject) describe() error {
	sources, configs := []arch.Source{s.ckpt}, []arch.Config{s.config}
	if a, ok := arch.Lookup(s.config); ok {
		missing, err := a.Unfit(sources, configs)
		if err != nil {
			return fmt.Errorf("%s: %w", s.dir, err)
		}
		if len(missing) == 0 {
			s.arch = a
			return nil
		}
	}
	a, err := arch.Infer(sources, configs)
	if err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	s.arch = a
	return nil
}

// find sorts the tensors over the vocabulary.
func (s *subject) find() error {
	modules, err := adapter.Modules(s.ckpt, s.raw)
	if err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	heads, tied := map[string]bool{}, map[string]bool{}
	for _, m := range modules {
		if m.OutputHead {
			heads[m.Weight], tied[m.Path+".weight"] = !m.Tied, m.Tied
		}
	}
	for i := range s.arch.Modules {
		m := &s.arch.Modules[i]
		for post, list := range [][]arch.Weight{m.Pre, m.Post} {
			for _, w := range list {
				if w.VocabAxis < 0 {
					continue
				}
				for _, name := range append([]string{w.Name}, w.Aliases...) {
					if err := s.sort(w, name, post == 1 || heads[name], tied[name]); err != nil {
						return err
					}
				}
			}
		}
	}
	if len(s.embed) == 0 {
		return &Error{File: s.dir, Msg: "has no embedding over its vocabulary", Hint: "only models of text have one"}
	}
	return nil
}

// sort puts one tensor into its list.
func (s *subject) sort(w arch.Weight, name string, head, tied bool) error {
	info, ok := s.ckpt.Lookup(name)
	if !ok || slices.Contains(slices.Concat(s.embed, s.head, s.biases, s.stale), name) {
		return nil
	}
	if w.VocabAxis != 0 || len(info.Shape) < 1 || len(info.Shape) > 2 || !info.DType.IsFloat() {
		return &Error{File: s.dir, Where: name, Msg: fmt.Sprintf("of shape %v and dtype %s is no table of rows of floating-point numbers, one for each token", info.Shape, info.DType)}
	}
	switch {
	case len(info.Shape) == 1:
		s.biases = append(s.biases, name)
	case head && tied:
		s.stale = append(s.stale, name)
	case head:
		s.head = append(s.head, name)
	default:
		s.embed = append(s.embed, name)
	}
	return nil
}

// table is the matrix of the donor that is to the donor what a matrix of the model is to the model: the one of the same name, else the
// first of its kind. A donor without a head of its own uses its embedding.
func (s *subject) table(name string, head bool) string {
	list := s.embed
	if head && len(s.head) > 0 {
		list = s.head
	}
	if slices.Contains(list, name) {
		return name
	}
	return list[0]
}

// rope is how the model turns its queries and keys: the base of the angles, and the width of a head.
func (s *subject) rope() (theta float64, head int, err error) {
	number := func(keys ...string) float64 {
		for _, k := range keys {
			for _, prefix := range []string{"", "text_config."} {
				if v, ok := s.config.Get(prefix + k); ok {
					var x float64
					if _, err := fmt.Sscan(strings.TrimSpace(fmt.Sprint(v)), &x); err == nil && x > 0 {
						return x
					}
				}
			}
		}
		return 0
	}
	theta = number("rope_theta", "rope_parameters.rope_theta", "rope_parameters.full_attention.rope_theta")
	if theta == 0 {
		theta = 10000 // what configurations that do not say it mean
	}
	info, _ := s.ckpt.Lookup(s.embed[0])
	width := info.Shape[1]
	head = int(number("head_dim"))
	if n := int(number("num_attention_heads")); head == 0 && n > 0 {
		head = width / n
	}
	if head < 2 || head%2 != 0 || width%head != 0 {
		return 0, 0, &Error{File: s.dir, Where: "approximation-method", Msg: fmt.Sprintf("mp_rope cuts rows of %d values into heads of %d, which does not work out", width, head), Hint: "use omp"}
	}
	return theta, head, nil
}
