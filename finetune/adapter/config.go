package adapter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
)

// The files of an adapter.
const (
	ConfigName  = "adapter_config.json"
	WeightsName = "adapter_model.safetensors"
)

// Selector says which modules something is about: names (a module's last component, or any longer end of its path), a
// regular expression over whole paths, or all linear modules. The zero Selector is null in the file.
type Selector struct {
	Names     []string
	Regex     string // Python's syntax, as far as RE2 has it
	AllLinear bool   // "all-linear": every Linear and Conv1D but the output head
}

// IsZero says whether nothing was given.
func (s Selector) IsZero() bool { return s.Names == nil && s.Regex == "" && !s.AllLinear }

// Pattern gives modules that match a key a value of their own.
type Pattern struct {
	Key   string
	Value float64
}

// TokenRows are rows of an embedding that are trained on their own (trainable_token_indices).
type TokenRows struct {
	Module  string // end of the module's path
	Indices []int
}

// Config is adapter_config.json.
type Config struct {
	TaskType          string // CAUSAL_LM, SEQ_CLS, ...; "" is null
	BaseModel         string // base_model_name_or_path
	Revision          string
	R                 int
	Alpha             float64
	Dropout           float64
	Targets           Selector // target_modules
	Exclude           Selector // exclude_modules
	ModulesToSave     []string
	Bias              string // none, all or lora_only
	FanInFanOut       bool
	InferenceMode     bool
	Init              string // init_lora_weights: "true", "false", or the name of a method
	RSLoRA            bool
	DoRA              bool
	LoraBias          bool // B has a bias
	RankPattern       []Pattern
	AlphaPattern      []Pattern
	LayersToTransform []int
	LayersPattern     []string
	TrainableTokens   []TokenRows
	EnsureWeightTying bool
	PeftVersion       string

	// Other holds the keys that say nothing about how the adapter is applied, and unknown ones, as they were written.
	Other map[string]json.RawMessage
}

// PeftVersion is the version whose files this package writes.
const PeftVersion = "0.21.2"

// Defaults returns the configuration that an empty file stands for.
func Defaults() *Config {
	return &Config{R: 8, Alpha: 8, Bias: "none", Init: "true", PeftVersion: PeftVersion}
}

// carried are the known keys that only matter while an adapter is initialised, quantised or trained elsewhere. The values
// are what peft writes for an ordinary adapter.
var carried = map[string]string{
	"auto_mapping": "null", "corda_config": "null", "eva_config": "null", "loftq_config": "{}", "lora_ga_config": "null",
	"megatron_config": "null", "megatron_core": `"megatron.core"`, "qalora_group_size": "16",
}

// refused are the keys whose features change what the tensors mean; anything but null or false is an error.
var refused = []string{
	"alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "monteclora_config", "target_parameters",
	"use_bdlora", "use_qalora", "velora_config",
}

// maxConfigBytes bounds the file that is read into memory; maxRank and maxNames what it may ask for.
const (
	maxConfigBytes = 16 << 20
	maxRank        = 1 << 20
	maxLayer       = 1 << 20
)

// ReadConfig reads adapter_config.json in dir. The warnings name the keys that were not understood and are kept as they are.
func ReadConfig(dir string) (*Config, []string, error) {
	file := filepath.Join(dir, ConfigName)
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil, &Error{File: dir, Msg: "is no adapter: it has no " + ConfigName, Hint: "name the directory that holds " + ConfigName + " and " + WeightsName, Err: err}
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(raw) > maxConfigBytes {
		return nil, nil, &Error{File: file, Msg: "is too large for a configuration", Hint: "check the path"}
	}
	c, warnings, err := ParseConfig(raw)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.File = file
		}
		return nil, nil, err
	}
	return c, warnings, nil
}

// ParseConfig reads the text of adapter_config.json.
func ParseConfig(raw []byte) (*Config, []string, error) {
	keys, values, err := orderedObject(raw)
	if err != nil {
		return nil, nil, &Error{Msg: "is not valid JSON: " + err.Error(), Hint: "the file is damaged; download it again"}
	}
	c := Defaults()
	c.PeftVersion = ""
	c.Other = map[string]json.RawMessage{}
	var unknown []string
	for i, key := range keys {
		known, err := c.set(key, values[i])
		if err != nil {
			return nil, nil, err
		}
		if !known {
			unknown = append(unknown, key)
		}
	}
	if err := c.Check(); err != nil {
		return nil, nil, err
	}
	var warnings []string
	if len(unknown) > 0 {
		sort.Strings(unknown)
		warnings = append(warnings, fmt.Sprintf("%s: unknown keys are ignored: %s", ConfigName, some(unknown)))
	}
	return c, warnings, nil
}

// set takes one key of the file; known is false for one that this package has not heard of.
func (c *Config) set(key string, raw json.RawMessage) (known bool, err error) {
	if slices.Contains(refused, key) {
		if text := string(raw); text != "null" && text != "false" && text != "[]" {
			return true, &Error{Where: key, Msg: fmt.Sprintf("%s is not supported: it changes what the adapter's tensors mean", show(raw)), Hint: "fuse this adapter with the tool that made it"}
		}
		return true, nil
	}
	if _, ok := carried[key]; ok {
		c.Other[key] = raw
		return true, nil
	}
	null := string(raw) == "null"
	take := func(dst any) error {
		if null {
			return nil
		}
		if err := json.Unmarshal(raw, dst); err != nil {
			return errorf(key, "%s is no value of this key", show(raw))
		}
		return nil
	}
	switch key {
	case "peft_type":
		var t string
		if err := take(&t); err != nil {
			return true, err
		}
		if t != "LORA" {
			return true, &Error{Where: key, Msg: fmt.Sprintf("%q adapters are not supported", t), Hint: "only LORA (with rsLoRA and DoRA) is"}
		}
		return true, nil
	case "task_type":
		return true, take(&c.TaskType)
	case "base_model_name_or_path":
		return true, take(&c.BaseModel)
	case "revision":
		return true, take(&c.Revision)
	case "peft_version":
		return true, take(&c.PeftVersion)
	case "r":
		return true, take(&c.R)
	case "lora_alpha":
		return true, take(&c.Alpha)
	case "lora_dropout":
		return true, take(&c.Dropout)
	case "bias":
		return true, take(&c.Bias)
	case "fan_in_fan_out":
		return true, take(&c.FanInFanOut)
	case "inference_mode":
		return true, take(&c.InferenceMode)
	case "use_rslora":
		return true, take(&c.RSLoRA)
	case "use_dora":
		return true, take(&c.DoRA)
	case "lora_bias":
		return true, take(&c.LoraBias)
	case "ensure_weight_tying":
		return true, take(&c.EnsureWeightTying)
	case "modules_to_save":
		return true, take(&c.ModulesToSave)
	case "target_modules":
		return true, c.selector(key, raw, &c.Targets)
	case "exclude_modules":
		return true, c.selector(key, raw, &c.Exclude)
	case "init_lora_weights":
		return true, c.setInit(raw)
	case "rank_pattern":
		c.RankPattern, err = readPatterns(key, raw)
		return true, err
	case "alpha_pattern":
		c.AlphaPattern, err = readPatterns(key, raw)
		return true, err
	case "layers_to_transform":
		return true, oneOrMore(key, raw, &c.LayersToTransform)
	case "layers_pattern":
		return true, oneOrMore(key, raw, &c.LayersPattern)
	case "trainable_token_indices":
		return true, c.setTokens(raw)
	}
	c.Other[key] = raw
	return false, nil
}

func (c *Config) selector(key string, raw json.RawMessage, dst *Selector) error {
	if string(raw) == "null" {
		return nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		if strings.EqualFold(text, "all-linear") && key == "target_modules" {
			dst.AllLinear = true
		} else {
			dst.Regex = text
		}
		return nil
	}
	dst.Names = []string{}
	if err := json.Unmarshal(raw, &dst.Names); err != nil {
		return errorf(key, "%s is neither a list of names nor a pattern", show(raw))
	}
	return nil
}

func (c *Config) setInit(raw json.RawMessage) error {
	switch text := string(raw); text {
	case "true", "false":
		c.Init = text
		return nil
	case "null":
		return nil
	}
	if err := json.Unmarshal(raw, &c.Init); err != nil {
		return errorf("init_lora_weights", "%s is neither true, false nor the name of a method", show(raw))
	}
	return nil
}

// setTokens reads a list of indices, which are those of embed_tokens, or an object from modules to indices.
func (c *Config) setTokens(raw json.RawMessage) error {
	const key = "trainable_token_indices"
	if string(raw) == "null" {
		return nil
	}
	var list []int
	if json.Unmarshal(raw, &list) == nil {
		c.TrainableTokens = []TokenRows{{"embed_tokens", list}}
		return nil
	}
	names, values, err := orderedObject(raw)
	if err != nil {
		return errorf(key, "%s is neither a list of numbers nor an object from modules to such lists", show(raw))
	}
	for i, n := range names {
		var list []int
		if err := json.Unmarshal(values[i], &list); err != nil {
			return errorf(key, "%s of %q is no list of numbers", show(values[i]), n)
		}
		c.TrainableTokens = append(c.TrainableTokens, TokenRows{n, list})
	}
	return nil
}

func readPatterns(key string, raw json.RawMessage) ([]Pattern, error) {
	if string(raw) == "null" {
		return nil, nil
	}
	names, values, err := orderedObject(raw)
	if err != nil {
		return nil, errorf(key, "%s is no object from patterns to numbers", show(raw))
	}
	var out []Pattern
	for i, n := range names {
		p := Pattern{Key: n}
		if err := json.Unmarshal(values[i], &p.Value); err != nil {
			return nil, errorf(key, "%s of %q is no number", show(values[i]), n)
		}
		out = append(out, p)
	}
	return out, nil
}

// oneOrMore reads a value or a list of values.
func oneOrMore[T any](key string, raw json.RawMessage, dst *[]T) error {
	if string(raw) == "null" {
		return nil
	}
	var one T
	if json.Unmarshal(raw, &one) == nil {
		*dst = []T{one}
		return nil
	}
	if err := json.Unmarshal(raw, dst); err != nil {
		return errorf(key, "%s is no value of this key", show(raw))
	}
	return nil
}

// Check says what is wrong with the values, naming the key.
func (c *Config) Check() error {
	bad := func(key, format string, args ...any) error { return errorf(key, format, args...) }
	if c.R <= 0 || c.R > maxRank {
		return bad("r", "%d is no rank; a positive number is expected", c.R)
	}
	if math.IsNaN(c.Alpha) || math.IsInf(c.Alpha, 0) {
		return bad("lora_alpha", "%v is no number", c.Alpha)
	}
	if !(c.Dropout >= 0 && c.Dropout < 1) {
		return bad("lora_dropout", "%v is no probability below 1", c.Dropout)
	}
	if !slices.Contains([]string{"none", "all", "lora_only"}, c.Bias) {
		return bad("bias", "%q is unknown; use none, all or lora_only", c.Bias)
	}
	for _, p := range c.RankPattern {
		if n := int(p.Value); float64(n) != p.Value || n <= 0 || n > maxRank {
			return bad("rank_pattern", "%v of %q is no rank; a positive whole number is expected", p.Value, p.Key)
		}
	}
	for _, p := range c.AlphaPattern {
		if math.IsNaN(p.Value) || math.IsInf(p.Value, 0) {
			return bad("alpha_pattern", "%v of %q is no number", p.Value, p.Key)
		}
	}
	for _, n := range c.LayersToTransform {
		if n < 0 || n > maxLayer {
			return bad("layers_to_transform", "%d is no layer", n)
		}
	}
	for _, t := range c.TrainableTokens {
		for _, i := range t.Indices {
			if i < 0 || i > math.MaxInt32 {
				return bad("trainable_token_indices", "%d is no token", i)
			}
		}
	}
	return c.checkPatterns()
}

// orderedObject reads a JSON object and keeps the order of its keys; of a key that comes twice the last value counts, at the
// place of the first, as in Python.
func orderedObject(raw []byte) (keys []string, values []json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	t, err := d.Token()
	if err != nil {
		return nil, nil, err
	}
	if t != json.Delim('{') {
		return nil, nil, errors.New("an object is expected")
	}
	at := map[string]int{}
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		key, ok := k.(string)
		if !ok {
			return nil, nil, errors.New("a key is expected")
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, nil, err
		}
		if i, twice := at[key]; twice {
			values[i] = v
			continue
		}
		at[key] = len(keys)
		keys, values = append(keys, key), append(values, v)
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("something follows the object")
	}
	return keys, values, nil
}

// show renders a value of the file for a message: short, and on one line.
func show(raw []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		b.Reset()
		b.Write(raw)
	}
	if b.Len() > 80 {
		return fmt.Sprintf("%q...", b.Bytes()[:80])
	}
	return b.String()
}
