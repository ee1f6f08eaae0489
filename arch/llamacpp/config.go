package llamacpp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// renderJSON is how transformers writes its files: two spaces, characters as they are.
func renderJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("cannot render JSON: %w", err)
	}
	return b.Bytes(), nil
}

// writeConfig makes config.json and generation_config.json.
func (m *Model) writeConfig(files map[string][]byte, dtype tensors.DType) error {
	inner, err := m.number("feed_forward_length")
	if err != nil {
		return err
	}
	length, err := m.number("context_length")
	if err != nil {
		return err
	}
	eps, ok := m.f.Float(m.arch + ".attention.layer_norm_rms_epsilon")
	if !ok || eps <= 0 || eps >= 1 {
		return m.bad("the setting %s.attention.layer_norm_rms_epsilon is missing or no small positive number", m.arch)
	}
	_, untied := m.f.Tensor("output.weight")
	config := map[string]any{
		"architectures": []string{m.family.class}, "model_type": m.family.modelType, "torch_dtype": dtype.TorchName(),
		"hidden_size": m.hidden, "intermediate_size": inner, "num_hidden_layers": m.layers,
		"num_attention_heads": m.heads, "num_key_value_heads": m.kvHeads, "head_dim": m.headSize,
		"hidden_act": "silu", "max_position_embeddings": length, "vocab_size": m.vocab,
		"rms_norm_eps": number(eps), "tie_word_embeddings": !untied, "use_cache": true,
	}
	if err := m.rope(config, length); err != nil {
		return err
	}
	if err := m.family.settings(m, config); err != nil {
		return err
	}
	generation := map[string]any{}
	for _, which := range []string{"bos", "eos", "pad"} {
		if id, ok := m.specialID(which); ok {
			config[which+"_token_id"], generation[which+"_token_id"] = id, id
		}
	}
	// Chat models end a turn, or a message to a tool, with other tokens than a text.
	if eos, ok := m.specialID("eos"); ok {
		ends := []int64{eos}
		for _, which := range []string{"eot", "eom"} {
			if id, ok := m.specialID(which); ok && !slices.Contains(ends, id) {
				ends = append(ends, id)
			}
		}
		if len(ends) > 1 {
			generation["eos_token_id"] = ends
		}
	}
	if files["config.json"], err = renderJSON(config); err != nil {
		return err
	}
	files["generation_config.json"], err = renderJSON(generation)
	return err
}

// number undoes the rounding to float32 that settings have in GGUF: 1e-05 and not 9.999999747378752e-06.
func number(x float64) any {
	if float64(float32(x)) == x {
		return float32(x)
	}
	return x
}

// specialID reads the id of a special token, which must be one of the vocabulary.
func (m *Model) specialID(which string) (int64, bool) {
	key := "tokenizer.ggml." + map[string]string{"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown", "eot": "eot", "eom": "eom"}[which] + "_token_id"
	id, ok := m.f.Int(key)
	return id, ok && id >= 0 && id < m.vocab
}

// rope sets the base and the scaling of the rotary embedding.
func (m *Model) rope(config map[string]any, length int64) error {
	theta, ok := m.f.Float(m.arch + ".rope.freq_base")
	if !ok {
		theta = 10000
	}
	if !(theta > 0) || math.IsInf(theta, 0) {
		return m.bad("the setting %s.rope.freq_base is %v, which is no base", m.arch, theta)
	}
	config["rope_theta"] = number(theta)
	if err := m.scaling(config); err != nil {
		return err
	}
	t, ok := m.f.Tensor(ropeFactors)
	if !ok {
		return nil
	}
	if t.Elems() != m.headSize/2 || t.Type.BlockElems() != 1 {
		return m.bad("%s does not have %d elements", ropeFactors, m.headSize/2)
	}
	factors := make([]float32, m.headSize/2)
	if err := m.f.ReadFloat32(t, factors, 0, nil); err != nil {
		return err
	}
	scaling, ok := llama3Scaling(factors, theta)
	if !ok {
		return m.unsupported("scales its rotary embedding by factors that are not Llama 3's")
	}
	if scaling != nil {
		config["rope_scaling"] = scaling
	}
	return nil
}

// scaling sets how positions are scaled, as llama.cpp reads it: a factor alone is linear, and old files have it under another name.
func (m *Model) scaling(config map[string]any) error {
	kind, ok := m.f.Text(m.arch + ".rope.scaling.type")
	if !ok {
		kind = "linear"
	}
	factor, ok := m.f.Float(m.arch + ".rope.scaling.factor")
	if !ok {
		factor, _ = m.f.Float(m.arch + ".rope.scale_linear")
	}
	if !(factor >= 0) || math.IsInf(factor, 0) {
		return m.bad("the rotary embedding is scaled by %v, which is no factor", factor)
	}
	switch {
	case kind == "none" || factor == 0 || factor == 1:
	case kind == "linear":
		config["rope_scaling"] = map[string]any{"rope_type": "linear", "factor": number(factor)}
	case kind == "yarn":
		return m.yarn(config, factor)
	default:
		return m.unsupported("scales its rotary embedding by %.60q; none, linear and yarn can be converted", kind)
	}
	return nil
}

// yarn sets the scaling of Peng et al., 2023, "YaRN: efficient context window extension of large language models".
func (m *Model) yarn(config map[string]any, factor float64) error {
	scaling := map[string]any{"rope_type": "yarn", "factor": number(factor)}
	prefix := m.arch + ".rope.scaling."
	if n, ok := m.f.Int(prefix + "original_context_length"); ok {
		scaling["original_max_position_embeddings"] = n
	}
	for _, key := range []string{"beta_fast", "beta_slow"} {
		if x, ok := m.f.Float(prefix + "yarn_" + key); ok {
			if !(x > 0) || math.IsInf(x, 0) {
				return m.bad("the setting %syarn_%s is %v, which is no number of turns", prefix, key, x)
			}
			scaling[key] = number(x)
		}
	}
	// What the classes of these families compute for themselves, or do without.
	for key, plain := range map[string]float64{"attn_factor": 1, "yarn_attn_factor": 1, "yarn_ext_factor": 1, "yarn_log_multiplier": 0} {
		if x, ok := m.f.Float(prefix + key); ok && x != plain {
			return m.unsupported("has the setting %s%s of %v, which cannot be converted; only %v can", prefix, key, x, plain)
		}
	}
	config["rope_scaling"] = scaling
	return nil
}

// llama3Scaling finds the settings that give the factors, by which frequencies are divided: short waves keep theirs, long
// ones have the largest factor, and a line in the frequency joins them. All published models share three of the settings. A
// model without scaling has nil.
func llama3Scaling(factors []float32, theta float64) (settings map[string]any, ok bool) {
	const lowFreq, highFreq, context = 1.0, 4.0, 8192.0
	largest := 0.0
	for _, f := range factors {
		largest = max(largest, float64(f))
	}
	for i, f := range factors {
		turns := context * math.Pow(theta, -float64(i)/float64(len(factors))) / (2 * math.Pi)
		smooth := min(1, max(0, (turns-lowFreq)/(highFreq-lowFreq)))
		want := 1 / ((1-smooth)/largest + smooth)
		if !(math.Abs(float64(f)-want) <= 1e-3*want) {
			return nil, false
		}
	}
	if largest == 1 {
		return nil, true
	}
	return map[string]any{
		"rope_type": "llama3", "factor": number(largest), "low_freq_factor": lowFreq, "high_freq_factor": highFreq,
		"original_max_position_embeddings": int64(context),
	}, true
}

// biases reports whether all four projections of attention have biases; some only is what no setting can say.
func (m *Model) biases(parts ...string) (bool, error) {
	n := 0
	for _, part := range parts {
		if _, ok := m.f.Tensor("blk.0." + part + ".bias"); ok {
			n++
		}
	}
	if n != 0 && n != len(parts) {
		return false, m.unsupported("has biases for some of %v, which %s of transformers cannot have", parts, m.family.class)
	}
	return n != 0, nil
}

func attentionBias(m *Model, config map[string]any) (err error) {
	config["attention_bias"], err = m.biases("attn_q", "attn_k", "attn_v", "attn_output")
	return err
}

func llamaSettings(m *Model, config map[string]any) (err error) {
	if err := attentionBias(m, config); err != nil {
		return err
	}
	config["mlp_bias"], err = m.biases("ffn_gate", "ffn_up", "ffn_down")
	return err
}

func qwen3Settings(m *Model, config map[string]any) error {
	config["use_sliding_window"] = false
	return attentionBias(m, config)
}

// windowSettings are those of families with a sliding window, which their defaults switch on.
func windowSettings(m *Model, config map[string]any) error {
	config["sliding_window"] = nil
	n, ok := m.f.Int(m.arch + ".attention.sliding_window")
	if ok && n > 0 {
		config["sliding_window"] = n
	}
	if m.arch != "mistral" {
		config["use_sliding_window"] = ok && n > 0
	}
	return nil
}
