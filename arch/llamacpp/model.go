package llamacpp

import (
	"fmt"
	"strings"
	"sync"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/gguf"
)

// Open opens a GGUF file, or any part of a split one, as the checkpoint that it would be for transformers: tensors under its names and with
// its order of rows, dequantised where they are read. Closing the checkpoint closes the file.
//
// A file whose matrices are all F16, or all BF16, keeps every tensor's dtype; of any other, all tensors are F32, which holds the
// dequantised values exactly.
func Open(path string) (*tensors.Checkpoint, *Model, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, nil, err
	}
	m, err := describe(f)
	if err == nil {
		var c *tensors.Checkpoint
		if c, err = m.checkpoint(path); err == nil {
			return c, m, nil
		}
	}
	_ = f.Close()
	return nil, nil, err
}

// checkpoint lists the tensors in file order, and takes the file over.
func (m *Model) checkpoint(path string) (*tensors.Checkpoint, error) {
	list, err := m.weights()
	if err != nil {
		return nil, err
	}
	return tensors.Assemble(path, m.f.Parts(), list, map[string]string{"format": "pt"})
}

// family is an architecture of GGUF files that is understood.
type family struct {
	class, modelType string // of transformers
	permuted         bool   // llama.cpp's converter reorders the rows of q and k for its rotary embedding
	biasedQKV        bool   // q, k and v have biases without a setting that says so
	settings         func(m *Model, config map[string]any) error
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

// Model is a GGUF file of a known family with the sizes that everything depends on.
type Model struct {
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
func (m *Model) bad(format string, args ...any) error {
	return &tensors.FormatError{File: m.f.Path(), Msg: fmt.Sprintf(format, args...), Hint: "check that the file is complete, or convert the original model again"}
}

// unsupported is a file that is right but not understood.
func (m *Model) unsupported(format string, args ...any) error {
	return &tensors.FormatError{File: m.f.Path(), Msg: fmt.Sprintf(format, args...), Hint: "use the original model's safetensors files"}
}

func (m *Model) warn(format string, args ...any) {
	m.warnings = append(m.warnings, fmt.Sprintf(format, args...))
}

// Warnings says what of the file could not be taken over, or may differ.
func (m *Model) Warnings() []string { return m.warnings }

// Part is a file of the model.
type Part struct {
	Path   string
	Header int64 // bytes before the tensors' data
}

// Parts lists the files.
func (m *Model) Parts() (parts []Part) {
	for i, path := range m.f.Files() {
		parts = append(parts, Part{path, m.f.HeaderBytes(i)})
	}
	return parts
}

// Files makes the files that transformers has beside the weights: config.json, generation_config.json, and the tokenizer with its chat
// template. dtype is what config.json says of the weights.
func (m *Model) Files(dtype tensors.DType) (map[string][]byte, error) {
	files := map[string][]byte{}
	if err := m.writeConfig(files, dtype); err != nil {
		return nil, err
	}
	return files, m.writeTokenizer(files)
}

// number reads a positive setting of the architecture.
func (m *Model) number(key string) (int64, error) {
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
func describe(f *gguf.File) (*Model, error) {
	m := &Model{f: f}
	var ok bool
	if m.arch, ok = f.Text("general.architecture"); !ok {
		return nil, m.bad("the setting general.architecture is missing")
	}
	if m.family, ok = families[m.arch]; !ok {
		return nil, m.unsupported("has the architecture %.60q; llama, mistral, qwen2 and qwen3 can be converted", m.arch)
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
func (m *Model) checkShapes() error {
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
func (m *Model) checkComplete() error {
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

// weights lists the tensors in file order.
func (m *Model) weights() (list []tensors.Listing, err error) {
	keep := m.DType() != tensors.F32
	for _, t := range m.f.Tensors() {
		if t.Name == ropeFactors {
			continue
		}
		name, layer, ok := m.rename(t.Name)
		if !ok || layer >= m.layers {
			return nil, m.unsupported("has the tensor %q, which %s of transformers does not have", t.Name, m.family.class)
		}
		if !t.Type.Supported() {
			return nil, &tensors.FormatError{File: m.f.Path(), Tensor: t.Name, Msg: "is quantised as " + t.Type.String() + ", which is not decoded", Hint: "use a file of another quantisation, such as Q8_0, Q6_K or Q4_K"}
		}
		s := &stored{f: m.f, tensor: t, to: tensors.F32}
		if keep {
			s.to = plainDType(t.Type)
		}
		if part := tensorPart(t.Name); m.family.permuted && (part == "attn_q" || part == "attn_k") {
			if len(t.Shape) == 0 || int64(t.Shape[0])%m.headSize != 0 {
				return nil, m.bad("%s does not have %d rows for each head", t.Name, m.headSize)
			}
			s.headSize = m.headSize
		}
		l := tensors.Listing{Info: tensors.Info{Name: name, DType: s.to, Shape: t.Shape}, Source: s}
		if s.plain() {
			l.File, l.Offset = t.Begin()
			l.Source = nil
		}
		list = append(list, l)
	}
	return list, nil
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
func (m *Model) rename(name string) (string, int64, bool) {
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

// DType is the dtype of the model: F16 or BF16 if that is what all matrices are, else F32.
func (m *Model) DType() tensors.DType {
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

// stored is a tensor of a GGUF file: a tensors.Source.
type stored struct {
	f        *gguf.File
	tensor   gguf.Tensor
	to       tensors.DType
	headSize int64 // rows of a head whose order is to be undone; 0: rows are in order
}

// plain reports whether the file has the tensor's bytes as they are wanted.
func (s *stored) plain() bool {
	return s.headSize == 0 && map[gguf.Type]tensors.DType{gguf.F32: tensors.F32, gguf.F16: tensors.F16, gguf.BF16: tensors.BF16}[s.tensor.Type] == s.to
}

// WillNeed does nothing: blocks are decoded in the order of the file, which the system reads ahead by itself.
func (s *stored) WillNeed(int64, int64) {}

// Release does nothing.
func (s *stored) Release(int64, int64) {}

// decodeElems is how many elements are decoded at a time. It is a multiple of every block.
const decodeElems = 64 << 10

// buffers is what decoding a piece needs besides the result.
type buffers struct {
	raw    []byte
	floats []float32
}

var pool = sync.Pool{New: func() any { return &buffers{floats: make([]float32, decodeElems), raw: make([]byte, 8*decodeElems)} }}

// ReadAt decodes elements.
func (s *stored) ReadAt(dst []byte, off int64) error {
	b := pool.Get().(*buffers)
	defer pool.Put(b)
	size := int64(s.to.Size())
	block := int64(s.tensor.Type.BlockElems())
	for elem, n := off/size, int64(len(dst))/size; n > 0; {
		lead := elem % block // a piece may begin and end within a block
		count := min(n, decodeElems-lead)
		whole := (lead + count + block - 1) / block * block
		floats := b.floats[:whole]
		if err := s.read(b, floats, elem-lead); err != nil {
			return err
		}
		if err := tensors.EncodeFloat32(dst[:count*size], s.to, floats[lead:lead+count]); err != nil {
			return err
		}
		dst, elem, n = dst[count*size:], elem+count, n-count
	}
	return nil
}

// read decodes whole blocks of the checkpoint's order.
func (s *stored) read(b *buffers, dst []float32, elem int64) error {
	if s.headSize == 0 {
		return s.f.ReadFloat32(s.tensor, dst, elem, b.raw)
	}
	// Blocks do not cross rows, so what a piece has of a row is whole blocks, too.
	row := int64(1) // of a vector, each element is a row
	for _, d := range s.tensor.Shape[1:] {
		row *= int64(d)
	}
	for len(dst) > 0 {
		at, in := elem/row, elem%row
		n := min(row-in, int64(len(dst)))
		if err := s.f.ReadFloat32(s.tensor, dst[:n], s.sourceRow(at)*row+in, b.raw); err != nil {
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
