package quant

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/tensors"
)

// Config is the quantization_config of a model.
type Config struct {
	Method           string           `json:"quant_method"`
	Format           string           `json:"format"`
	Algorithm        string           `json:"quant_algo"`
	Bits             int              `json:"bits"`
	OldBits          int              `json:"w_bit"`
	GroupSize        int              `json:"group_size"`
	OldGroupSize     int              `json:"q_group_size"`
	Version          any              `json:"version"`
	CheckpointFormat string           `json:"checkpoint_format"`
	BlockSize        []int            `json:"weight_block_size"`
	Groups           map[string]group `json:"config_groups"`
	In4Bit           bool             `json:"load_in_4bit"`
	In8Bit           bool             `json:"load_in_8bit"`
	Marlin           bool             `json:"is_marlin_format"`
	Sparsity         struct {
		Format string `json:"format"`
	} `json:"sparsity_config"`
	Transform struct {
		Groups map[string]any `json:"config_groups"`
	} `json:"transform_config"`
}

// group is how some modules are quantised, in compressed-tensors.
type group struct {
	Format  string `json:"format"`
	Weights *struct {
		Bits      int    `json:"num_bits"`
		Type      string `json:"type"`
		GroupSize int    `json:"group_size"`
		Strategy  string `json:"strategy"`
		Block     any    `json:"block_structure"` // a list of two; old files have text
	} `json:"weights"`
}

// ParseConfig reads a quantization_config. An error says what it has that cannot be.
func ParseConfig(raw []byte) (*Config, error) {
	c := &Config{}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, &tensors.FormatError{Msg: "has a quantization_config that cannot be read: " + err.Error(), Hint: "download config.json again"}
	}
	if c.Bits == 0 {
		c.Bits = c.OldBits
	}
	if c.GroupSize == 0 {
		c.GroupSize = c.OldGroupSize
	}
	c.Method = strings.ToLower(c.Method)
	switch {
	case c.Method != "":
	case len(c.Groups) > 0:
		c.Method = "compressed-tensors"
	case c.In4Bit || c.In8Bit:
		c.Method = "bitsandbytes"
	case c.Algorithm != "":
		c.Method = "modelopt"
	}
	return c, c.check()
}

// known are the schemes; the words are what messages list.
var known = []string{"fp8", "fbgemm_fp8", "compressed-tensors", "modelopt", "gptq", "awq", "bitsandbytes", "mxfp4"}

// plainFormats are those of compressed-tensors that are read, "" where groups say theirs.
var plainFormats = []string{"", "dense", "float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized", "mixed-precision"}

// check refuses what is not read, by name.
func (c *Config) check() error {
	refuse := func(what string) error {
		return &tensors.FormatError{Msg: "is quantised by " + what + ", which is not read", Hint: "use the model as it was before it was quantised; read are " + strings.Join(known, ", ")}
	}
	switch {
	case !slices.Contains(known, c.Method):
		return refuse(fmt.Sprintf("the method %.100q", c.Method))
	case len(c.Transform.Groups) > 0: // the model rotates what flows into a weight, which a plain one does not
		return refuse("compressed-tensors with rotations (transform_config)")
	case c.Sparsity.Format != "" && c.Sparsity.Format != "dense":
		return refuse(fmt.Sprintf("compressed-tensors with the sparse format %.100q", c.Sparsity.Format))
	}
	switch c.Method {
	case "compressed-tensors":
		for _, f := range append([]string{c.Format}, c.formats()...) {
			if !slices.Contains(plainFormats, f) {
				return refuse(fmt.Sprintf("compressed-tensors with the format %.100q", f))
			}
		}
		for _, g := range c.Groups {
			if g.Weights != nil && (g.Weights.Bits < 1 || g.Weights.Bits > 16 || g.Weights.GroupSize < -1) {
				return &tensors.FormatError{Msg: fmt.Sprintf("has a quantization_config with weights of %d bits in groups of %d", g.Weights.Bits, g.Weights.GroupSize), Hint: "download config.json again"}
			}
		}
	case "gptq":
		if c.Bits != 2 && c.Bits != 4 && c.Bits != 8 {
			return refuse(fmt.Sprintf("GPTQ in %d bits", c.Bits))
		}
		if f := c.CheckpointFormat; f != "" && f != "gptq" && f != "gptq_v2" {
			return refuse(fmt.Sprintf("GPTQ in the layout %.100q", f))
		}
		if c.Marlin {
			return refuse("GPTQ in the layout \"marlin\"")
		}
	case "awq":
		if c.Bits != 4 {
			return refuse(fmt.Sprintf("AWQ in %d bits", c.Bits))
		}
		if v, ok := c.Version.(string); ok && !strings.EqualFold(v, "gemm") {
			return refuse(fmt.Sprintf("AWQ in the layout %.100q", v))
		}
		if c.Format != "" && !strings.EqualFold(c.Format, "gemm") {
			return refuse(fmt.Sprintf("AWQ in the layout %.100q", c.Format))
		}
	}
	if (c.Method == "gptq" || c.Method == "awq") && c.GroupSize < -1 {
		return &tensors.FormatError{Msg: fmt.Sprintf("has a quantization_config with groups of %d", c.GroupSize), Hint: "download config.json again"}
	}
	return nil
}

func (c *Config) formats() (list []string) {
	for _, g := range c.Groups {
		list = append(list, g.Format)
	}
	return list
}

// block is the size of a block of elements that share a scale, 0 where the configuration does not say, or says several.
func (c *Config) block() (rows, cols int) {
	if len(c.BlockSize) == 2 {
		return max(0, c.BlockSize[0]), max(0, c.BlockSize[1])
	}
	for _, g := range c.Groups {
		if g.Weights == nil {
			continue
		}
		r, k := 0, max(0, g.Weights.GroupSize)
		if list, ok := g.Weights.Block.([]any); ok && len(list) == 2 {
			a, ok1 := list[0].(float64)
			b, ok2 := list[1].(float64)
			if ok1 && ok2 && a >= 1 && b >= 1 && a < 1<<30 && b < 1<<30 {
				r, k = int(a), int(b)
			}
		}
		if r == 0 && k == 0 { // one scale for a row or a matrix, which its shape tells
			continue
		}
		if (rows != 0 || cols != 0) && (r != rows || k != cols) {
			return 0, 0
		}
		rows, cols = r, k
	}
	return rows, cols
}

// packedBits lists the widths that packed integers of compressed-tensors may have.
func (c *Config) packedBits() (bits []int) {
	for _, g := range c.Groups {
		if g.Weights != nil && g.Weights.Bits <= 8 && !slices.Contains(bits, g.Weights.Bits) {
			bits = append(bits, g.Weights.Bits)
		}
	}
	slices.Sort(bits)
	return bits
}
