package convert

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/gguf"
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
	f, err := gguf.Open(src)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := refuseInside(filepath.Dir(src), out); err != nil {
		return nil, err
	}
	m, err := describe(f)
	if err != nil {
		return nil, err
	}
	x := &output{id: newIdentity("gguf", o), files: map[string][]byte{}}
	if err := identifyGGUF(x.id, f); err != nil {
		return nil, err
	}
	if err := m.weights(x, o); err != nil {
		return nil, err
	}
	dtype := m.storedDType()
	if o.DType != nil {
		dtype = *o.DType
	}
	if err := m.writeConfig(x.files, dtype); err != nil {
		return nil, err
	}
	if err := m.writeTokenizer(x.files); err != nil {
		return nil, err
	}
	r, err := x.write(ctx, out, o)
	if err != nil {
		return nil, err
	}
	r.Warnings = m.warnings
	return r, nil
}

// identifyGGUF adds what tells the file from others: every part's header, size and time of change.
func identifyGGUF(id identity, f *gguf.File) error {
	for i, path := range f.Files() {
		file, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("cannot read the input again: %w", err)
		}
		st, err := file.Stat()
		if err == nil {
			id.add(filepath.Base(path), fmt.Sprint(st.Size()), st.ModTime().UTC().String())
			err = id.addStart(file, min(f.HeaderBytes(i), st.Size())) // a part without tensors may lack the padding
		}
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("cannot read the input again: %w", err)
		}
	}
	return nil
}

// family is an architecture of GGUF files that is understood.
type family struct {
	class, modelType string // of transformers
	permuted         bool   // llama.cpp's converter reorders the rows of q and k for its rotary embedding
	biasedQKV        bool   // q, k and v have biases without a setting that says so
	settings         func(m *model, config map[string]any) error
}

var families = map[string]family{
	"llama":   {class: "LlamaForCausalLM", modelType: "llama", permuted: true, settings: llamaSettings},
	"mistral": {class: "MistralForCausalLM", modelType: "mistral", permuted: true, settings: windowSettings},
	"qwen2":   {class: "Qwen2ForCausalLM", modelType: "qwen2", biasedQKV: true, settings: windowSettings},
	"qwen3":   {class: "Qwen3ForCausalLM", modelType: "qwen3", settings: qwen3Settings},
}

// The names of tensors: those of a layer follow "blk.N." in GGUF and "model.layers.N." in transformers.
var (
	layerNames = map[string]string{
		"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
		"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
		"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
		"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
	}
	modelNames = map[string]string{
		"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight",
	}
)

// ropeFactors holds the divisors of the rotary frequencies, which transformers computes from config.json.
const ropeFactors = "rope_freqs.weight"

// model is a GGUF file of a known family with the sizes that everything depends on.
type model struct {
	f        *gguf.File
	arch     string
	family   family
	layers   int64
	hidden   int64
	heads    int64
	kvHeads  int64
	headSize int64
	vocab    int64
	warnings []string
}

// bad is an error in the file.
func (m *model) bad(format string, args ...any) error {
	return &tensors.FormatError{File: m.f.Path(), Msg: fmt.Sprintf(format, args...), Hint: "check that the file is complete, or convert the original model again"}
}

// unsupported is a file that is right but not understood.
func (m *model) unsupported(format string, args ...any) error {
	return &tensors.FormatError{File: m.f.Path(), Msg: fmt.Sprintf(format, args...), Hint: "use the original model's safetensors files"}
}

func (m *model) warn(format string, args ...any) {
	m.warnings = append(m.warnings, fmt.Sprintf(format, args...))
}

// number reads a positive setting of the architecture.
func (m *model) number(key string) (int64, error) {
	n, ok := m.f.Int(m.arch + "." + key)
	if !ok {
		return 0, m.bad("the setting %s.%s is missing or not one integer", m.arch, key)
	}
	if n < 1 || n > 1<<31-1 {
		return 0, m.bad("the setting %s.%s is %d, which is no size", m.arch, key, n)
	}
	return n, nil
}

// describe reads the sizes and checks them against the tensors.
func describe(f *gguf.File) (*model, error) {
	m := &model{f: f}
	var ok bool
	if m.arch, ok = f.Text("general.architecture"); !ok {
		return nil, m.bad("the setting general.architecture is missing")
	}
	if m.family, ok = families[m.arch]; !ok {
		return nil, m.unsupported("has the architecture %q; llama, mistral, qwen2 and qwen3 can be converted", m.arch)
	}
	if n, ok := f.Int(m.arch + ".expert_count"); ok && n > 0 {
		return nil, m.unsupported("is a mixture of %d experts; only dense models can be converted", n)
	}
	for key, to := range map[string]*int64{"block_count": &m.layers, "embedding_length": &m.hidden, "attention.head_count": &m.heads} {
		var err error
		if *to, err = m.number(key); err != nil {
			return nil, err
		}
	}
	m.kvHeads = m.heads
	if f.Has(m.arch + ".attention.head_count_kv") {
		var err error
		if m.kvHeads, err = m.number("attention.head_count_kv"); err != nil {
			return nil, err
		}
	}
	return m, m.checkShapes()
}

// checkShapes derives the size of a head and of the vocabulary from the tensors, and checks that settings agree.
func (m *model) checkShapes() error {
	embed, ok := m.f.Tensor("token_embd.weight")
	if !ok || len(embed.Shape) != 2 || int64(embed.Shape[1]) != m.hidden {
		return m.bad("token_embd.weight is missing or not a matrix of %d columns", m.hidden)
	}
	m.vocab = int64(embed.Shape[0])
	for layer := range m.layers {
		for _, part := range []struct {
			name  string
			heads int64
		}{{"attn_q", m.heads}, {"attn_k", m.kvHeads}, {"attn_v", m.kvHeads}} {
			name := fmt.Sprintf("blk.%d.%s.weight", layer, part.name)
			t, ok := m.f.Tensor(name)
			if !ok || len(t.Shape) != 2 || int64(t.Shape[1]) != m.hidden || t.Shape[0] == 0 || int64(t.Shape[0])%part.heads != 0 {
				return m.bad("%s is missing or not a matrix of %d columns with rows for %d heads", name, m.hidden, part.heads)
			}
			size := int64(t.Shape[0]) / part.heads
			if m.headSize == 0 {
				m.headSize = size
			}
			if size != m.headSize {
				return m.bad("%s has heads of %d rows, others have %d", name, size, m.headSize)
			}
		}
	}
	if err := m.checkComplete(); err != nil {
		return err
	}
	if m.headSize%2 != 0 {
		return m.bad("heads have %d rows, an odd number", m.headSize)
	}
	if n, ok := m.f.Int(m.arch + ".rope.dimension_count"); ok && n != m.headSize {
		return m.unsupported("rotates %d of the %d dimensions of a head, which %s of transformers does not", n, m.headSize, m.family.class)
	}
	return nil
}

// checkComplete looks for the other tensors without which transformers would start from random values.
func (m *model) checkComplete() error {
	parts := []string{"attn_norm", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"}
	if m.arch == "qwen3" {
		parts = append(parts, "attn_q_norm", "attn_k_norm")
	}
	names := []string{"output_norm.weight"}
	for layer := range m.layers {
		for _, part := range parts {
			names = append(names, fmt.Sprintf("blk.%d.%s.weight", layer, part))
		}
		if m.family.biasedQKV {
			for _, part := range []string{"attn_q", "attn_k", "attn_v"} {
				names = append(names, fmt.Sprintf("blk.%d.%s.bias", layer, part))
			}
		}
	}
	for _, name := range names {
		if _, ok := m.f.Tensor(name); !ok {
			return m.bad("the tensor %s is missing", name)
		}
	}
	return nil
}

// weights lists the output's tensors in file order.
func (m *model) weights(x *output, o Options) error {
	keep := m.storedDType() != tensors.F32
	for _, t := range m.f.Tensors() {
		if t.Name == ropeFactors {
			continue
		}
		name, layer, ok := m.rename(t.Name)
		if !ok || layer >= m.layers {
			return m.unsupported("has the tensor %q, which %s of transformers does not have", t.Name, m.family.class)
		}
		if !t.Type.Supported() {
			return &tensors.FormatError{File: m.f.Path(), Tensor: t.Name, Msg: "is quantised as " + t.Type.String() + ", which is not decoded", Hint: "use a file of another quantisation, such as Q8_0, Q6_K or Q4_K"}
		}
		dtype := tensors.F32
		if keep {
			dtype = plainDType(t.Type)
		}
		if o.DType != nil {
			dtype = *o.DType
		}
		s := &stored{f: m.f, tensor: t, to: dtype}
		if part := tensorPart(t.Name); m.family.permuted && (part == "attn_q" || part == "attn_k") {
			if len(t.Shape) == 0 || int64(t.Shape[0])%m.headSize != 0 {
				return m.bad("%s does not have %d rows for each head", t.Name, m.headSize)
			}
			s.headSize = m.headSize
		}
		x.infos = append(x.infos, tensors.Info{Name: name, DType: dtype, Shape: t.Shape})
		x.from = append(x.from, s)
	}
	return nil
}

// tensorPart is what "blk.N.PART.weight" calls PART.
func tensorPart(name string) string {
	p := strings.Split(name, ".")
	if len(p) != 4 {
		return ""
	}
	return p[2]
}

// rename gives a tensor's name in transformers and its layer, -1 if it belongs to none.
func (m *model) rename(name string) (string, int64, bool) {
	if to, ok := modelNames[name]; ok {
		return to, -1, true
	}
	p := strings.Split(name, ".")
	if len(p) != 4 || p[0] != "blk" || p[3] != "weight" && p[3] != "bias" {
		return "", 0, false
	}
	var layer int64
	if _, err := fmt.Sscanf(p[1], "%d", &layer); err != nil || fmt.Sprint(layer) != p[1] || layer < 0 {
		return "", 0, false
	}
	to, ok := layerNames[p[2]]
	if strings.HasSuffix(p[2], "_norm") && strings.HasPrefix(p[2], "attn_") && p[2] != "attn_norm" {
		ok = ok && m.arch == "qwen3"
	}
	return "model.layers." + p[1] + "." + to + "." + p[3], layer, ok
}

// storedDType is the dtype of the model without a wish: F16 or BF16 if that is what all matrices are, else F32.
func (m *model) storedDType() tensors.DType {
	common := tensors.DType(0)
	for _, t := range m.f.Tensors() {
		if len(t.Shape) < 2 {
			continue
		}
		d := tensors.F32
		if t.Type == gguf.F16 || t.Type == gguf.BF16 {
			d = plainDType(t.Type)
		}
		if common != 0 && d != common {
			return tensors.F32
		}
		common = d
	}
	if common == 0 {
		return tensors.F32
	}
	return common
}

// plainDType is the dtype that holds a type's values as they are.
func plainDType(t gguf.Type) tensors.DType {
	switch t {
	case gguf.F16:
		return tensors.F16
	case gguf.BF16:
		return tensors.BF16
	}
	return tensors.F32
}

// stored is a tensor of a GGUF file.
type stored struct {
	f        *gguf.File
	tensor   gguf.Tensor
	to       tensors.DType
	headSize int64 // rows of a head whose order is to be undone; 0: rows are in order
}

func (s *stored) release(int64, int64) {}

func (s *stored) bytes(b *buffers, off, n int64) ([]byte, error) {
	size := int64(s.to.Size())
	elem, count := off/size, n/size
	floats := grown(&b.floats, int(count))
	if err := s.read(b, floats, elem); err != nil {
		return nil, err
	}
	out := grown(&b.out, int(n))
	if err := tensors.EncodeFloat32(out, s.to, floats); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", s.tensor.Name, err)
	}
	return out, nil
}

// read decodes elements of the output's order.
func (s *stored) read(b *buffers, dst []float32, elem int64) error {
	scratch := grown(&b.raw, len(dst)/s.tensor.Type.BlockElems()*s.tensor.Type.BlockBytes())
	if s.headSize == 0 {
		return s.f.ReadFloat32(s.tensor, dst, elem, scratch)
	}
	// A piece begins and ends on block borders, and so does a row: what it has of a row does, too.
	row := int64(1) // of a vector, each element is a row
	for _, d := range s.tensor.Shape[1:] {
		row *= int64(d)
	}
	for len(dst) > 0 {
		at, in := elem/row, elem%row
		n := min(row-in, int64(len(dst)))
		if err := s.f.ReadFloat32(s.tensor, dst[:n], s.sourceRow(at)*row+in, scratch); err != nil {
			return err
		}
		dst, elem = dst[n:], elem+n
	}
	return nil
}

// sourceRow is the row of the file that is row r of the output. Transformers rotates row i of a head's first half with row
// i of its second; llama.cpp rotates neighbours, so its converter puts the pairs side by side.
func (s *stored) sourceRow(r int64) int64 {
	half := s.headSize / 2
	head, in := r/s.headSize, r%s.headSize
	return head*s.headSize + in%half*2 + in/half
}
