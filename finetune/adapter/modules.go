package adapter

import (
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/tensors"
)

// embeddingNames are the last components of the paths of embeddings; other weights with two axes are linear maps.
var embeddingNames = []string{
	"embed_tokens", "wte", "wpe", "word_embeddings", "position_embeddings", "token_type_embeddings", "tok_embeddings",
	"embed_in", "embed_positions", "embeddings", "shared", "relative_attention_bias", "tokens_embed", "positions_embed",
}

// inputEmbeddings are those whose matrix an output head may share.
var inputEmbeddings = []string{"embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "shared"}

// conv1DNames are the linear maps of GPT-2 and its relatives that are stored [in, out].
var conv1DNames = []string{"c_attn", "c_proj", "c_fc", "q_attn"}

// basePrefixes are the attribute under which a class with a head holds the bare model, by model_type. Files of the bare model
// lack it, and so do some old ones of classes with a head.
var basePrefixes = map[string]string{
	"llama": "model", "mistral": "model", "mixtral": "model", "qwen2": "model", "qwen3": "model", "gemma": "model",
	"gemma2": "model", "gemma3_text": "model", "phi": "model", "phi3": "model", "stablelm": "model", "olmo2": "model",
	"gpt2": "transformer", "gpt_neox": "gpt_neox", "bert": "bert", "roberta": "roberta", "xlm-roberta": "roberta",
	"distilbert": "distilbert", "electra": "electra",
}

// headNames are the parts of a class with a head that stand beside the bare model.
var headNames = []string{"lm_head", "embed_out", "score", "classifier", "cls", "qa_outputs", "v_head", "pre_classifier", "vocab_transform", "vocab_layer_norm", "vocab_projector", "discriminator_predictions", "generator_predictions"}

// headPart says whether a path belongs to a head.
func headPart(path string) bool {
	return slices.ContainsFunc(headNames, func(h string) bool { return path == h || strings.HasPrefix(path, h+".") })
}

// outputHeads are the modules that "all-linear" leaves out.
var outputHeads = []string{"lm_head", "embed_out", "score", "classifier", "cls.predictions.decoder"}

// Modules lists the modules of a checkpoint from its headers and its config.json (nil if it has none), by their paths in the
// Hugging Face class that the configuration names. An output head that shares the embedding's matrix comes last.
func Modules(ckpt *tensors.Checkpoint, configJSON []byte) ([]Module, error) {
	var cfg arch.Config
	if configJSON != nil {
		var err error
		if cfg, err = arch.ParseConfig(arch.ConfigName, configJSON); err != nil {
			return nil, err
		}
	}
	l := newListing(cfg, ckpt.Names())
	for _, name := range ckpt.Names() {
		info, _ := ckpt.Lookup(name)
		l.add(info)
	}
	l.addBiases(ckpt)
	l.tie()
	return l.modules, nil
}

// listing is a list of modules in the making.
type listing struct {
	cfg     arch.Config
	conv1D  bool
	prefix  string // the base's attribute, "" if unknown
	bare    bool   // the class is the bare model
	put     bool   // names lack the prefix and get it
	take    bool   // names have it and lose it
	modules []Module
	at      map[string]int // by path
}

func newListing(cfg arch.Config, names []string) *listing {
	l := &listing{cfg: cfg, at: map[string]int{}}
	class := ""
	if a := cfg.Architectures(); len(a) > 0 {
		class = a[0]
	}
	l.prefix = basePrefixes[cfg.ModelType()]
	l.bare = strings.HasSuffix(class, "Model") && !strings.HasSuffix(class, "HeadModel") && !strings.HasSuffix(class, "HeadsModel")
	has := slices.ContainsFunc(names, func(n string) bool { return l.prefix != "" && strings.HasPrefix(n, l.prefix+".") })
	l.take = l.bare && has
	// A configuration that names no class: GPT-2's are those with a head.
	l.put = l.prefix != "" && !has && !l.bare && (class != "" || l.prefix == "transformer")
	l.conv1D = cfg.ModelType() == "gpt2" || strings.HasPrefix(class, "GPT2")
	return l
}

// path turns a tensor's name without its last component into the path in the class; ok is false for what the class lacks.
func (l *listing) path(name string) (string, bool) {
	head := headPart(name)
	switch {
	case l.take:
		rest, ok := strings.CutPrefix(name, l.prefix+".")
		return rest, ok
	case l.put && !head:
		return l.prefix + "." + name, true
	}
	return name, true
}

func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func (l *listing) add(info tensors.Info) {
	stem, ok := strings.CutSuffix(info.Name, ".weight")
	if !ok {
		// The oldest BERT files call a norm's weight gamma.
		if stem, ok = strings.CutSuffix(info.Name, "LayerNorm.gamma"); !ok {
			return
		}
		stem += "LayerNorm"
	}
	if arch.Recomputed(info.Name) || !info.DType.IsFloat() {
		return
	}
	path, ok := l.path(stem)
	if !ok {
		return
	}
	m := Module{Path: path, Weight: info.Name, Shape: slices.Clone(info.Shape), Kind: Other}
	m.OutputHead = slices.Contains(outputHeads, path)
	switch {
	case len(info.Shape) != 2:
		if len(info.Shape) > 0 {
			m.Out = info.Shape[0]
		}
	case slices.Contains(embeddingNames, last(path)) && !m.OutputHead:
		m.Kind, m.In, m.Out = Embedding, info.Shape[0], info.Shape[1]
	case l.conv1D && slices.Contains(conv1DNames, last(path)):
		m.Kind, m.In, m.Out = Conv1D, info.Shape[0], info.Shape[1]
	default:
		m.Kind, m.In, m.Out = Linear, info.Shape[1], info.Shape[0]
	}
	l.at[path] = len(l.modules)
	l.modules = append(l.modules, m)
}

// addBiases finds the modules' biases; a bias on its own (that of BERT's output over the vocabulary) is a module without a
// weight.
func (l *listing) addBiases(ckpt *tensors.Checkpoint) {
	for _, name := range ckpt.Names() {
		info, _ := ckpt.Lookup(name)
		stem, ok := strings.CutSuffix(name, ".bias")
		if !ok {
			if stem, ok = strings.CutSuffix(name, ".beta"); !ok {
				continue
			}
		}
		path, ok := l.path(stem)
		if !ok || arch.Recomputed(name) || !info.DType.IsFloat() || len(info.Shape) != 1 {
			continue
		}
		i, known := l.at[path]
		if !known {
			i = len(l.modules)
			l.at[path] = i
			l.modules = append(l.modules, Module{Path: path, Kind: Other, Out: info.Shape[0]})
		}
		l.modules[i].Bias, l.modules[i].BiasName = true, name
	}
}

// tieDefaults are the families whose output head shares the embedding's matrix unless their configuration says otherwise.
var tieDefaults = []string{"gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "bert", "roberta", "xlm-roberta", "distilbert", "electra"}

// tie finds an output head that shares the input embedding's matrix: it has no tensor of its own, or one that loaders ignore.
func (l *listing) tie() {
	input := -1
	for i, m := range l.modules {
		if m.Kind == Embedding && slices.Contains(inputEmbeddings, last(m.Path)) {
			input = i
			break
		}
	}
	path := l.headPath()
	if input < 0 || path == "" {
		return
	}
	at, there := l.at[path]
	tied, said := l.cfg.Bool("tie_word_embeddings")
	if !said {
		tied = !there || slices.Contains(tieDefaults, l.cfg.ModelType())
	}
	if !tied {
		return
	}
	e := l.modules[input]
	head := Module{Path: path, Kind: Linear, In: e.Out, Out: e.In, OutputHead: true, Weight: e.Weight, Tied: true, Shape: slices.Clone(e.Shape)}
	if there {
		head.Bias, head.BiasName = l.modules[at].Bias, l.modules[at].BiasName
		l.modules[at] = head
		return
	}
	l.at[path] = len(l.modules)
	l.modules = append(l.modules, head)
}

// headPath is where the class keeps its output over the vocabulary, "" if it has none.
func (l *listing) headPath() string {
	class := ""
	if a := l.cfg.Architectures(); len(a) > 0 {
		class = a[0]
	}
	switch {
	case l.cfg == nil, l.bare:
		return ""
	case strings.HasSuffix(class, "ForMaskedLM"), strings.HasSuffix(class, "ForPreTraining"):
		if l.cfg.ModelType() == "bert" {
			return "cls.predictions.decoder"
		}
		return ""
	case l.cfg.ModelType() == "gpt_neox" && strings.HasSuffix(class, "ForCausalLM"):
		return "embed_out"
	case strings.HasSuffix(class, "ForCausalLM"), strings.HasSuffix(class, "LMHeadModel"), strings.HasSuffix(class, "ForConditionalGeneration"),
		class == "" && l.prefix != "" && !slices.Contains([]string{"bert", "roberta", "distilbert", "electra"}, l.prefix):
		return "lm_head"
	}
	return ""
}
