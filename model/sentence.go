package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// PoolMode is a way to make one vector from the hidden states of a text.
type PoolMode string

// The ways to pool, under the names of sentence-transformers' keys (pooling_mode_...).
const (
	PoolMean     PoolMode = "mean_tokens" // the mean over the mask
	PoolMeanSqrt PoolMode = "mean_sqrt_len_tokens"
	PoolWeighted PoolMode = "weightedmean_tokens"
	PoolMax      PoolMode = "max_tokens"
	PoolFirst    PoolMode = "cls_token"
	PoolLast     PoolMode = "lasttoken"
)

// poolModes lists them in the order in which sentence-transformers puts their vectors side by side.
var poolModes = []PoolMode{PoolFirst, PoolMax, PoolMean, PoolMeanSqrt, PoolWeighted, PoolLast}

// Pooling says how an encoder makes one vector of a text (Reimers and Gurevych, 2019, "Sentence-BERT").
type Pooling struct {
	Modes     []PoolMode // several are put side by side
	Normalize bool       // to length 1
	MaxLength int        // tokens of a text that count; 0: as many as the model has positions
	LowerCase bool       // texts are lowered before they are split into tokens
	Model     string     // directory of the encoder itself
}

// String names what differs in graphs.
func (p *Pooling) String() string { return fmt.Sprint(p.Modes, " normalised ", p.Normalize) }

// ReadPooling reads how a checkpoint of sentence-transformers pools: modules.json, the configuration of its pooling module, and
// sentence_bert_config.json. A checkpoint without them is pooled by the mean over the mask. The error is a *ConfigError.
func ReadPooling(dir string) (*Pooling, error) {
	p := &Pooling{Modes: []PoolMode{PoolMean}, Model: dir}
	var modules []struct {
		Path string `json:"path"`
		Type string `json:"type"`
	}
	found, err := readJSON(filepath.Join(dir, "modules.json"), &modules)
	if err != nil || !found {
		return p, err
	}
	file := filepath.Join(dir, "modules.json")
	for _, m := range modules {
		if !filepath.IsLocal(m.Path) && m.Path != "" {
			return nil, &ConfigError{File: file, Msg: fmt.Sprintf("the path %q of a module leads out of the checkpoint", m.Path)}
		}
		kind := m.Type[strings.LastIndexByte(m.Type, '.')+1:]
		switch kind {
		case "Transformer":
			p.Model = filepath.Join(dir, m.Path)
		case "Pooling":
			if err := p.readModes(filepath.Join(dir, m.Path, "config.json")); err != nil {
				return nil, err
			}
		case "Normalize":
			p.Normalize = true
		default:
			return nil, &ConfigError{File: file, Msg: fmt.Sprintf("module %q cannot be computed; Transformer, Pooling and Normalize can", m.Type)}
		}
	}
	var limits struct {
		Max   *int `json:"max_seq_length"`
		Lower bool `json:"do_lower_case"`
	}
	for _, path := range []string{filepath.Join(p.Model, "sentence_bert_config.json"), filepath.Join(dir, "sentence_bert_config.json")} {
		found, err := readJSON(path, &limits)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		if limits.Max != nil {
			if *limits.Max < 1 {
				return nil, &ConfigError{File: path, Msg: fmt.Sprintf(`"max_seq_length" must be positive, not %d`, *limits.Max)}
			}
			p.MaxLength = *limits.Max
		}
		p.LowerCase = limits.Lower
		break
	}
	return p, nil
}

func (p *Pooling) readModes(path string) error {
	var keys map[string]any
	found, err := readJSON(path, &keys)
	if err != nil {
		return err
	}
	if !found {
		return &ConfigError{File: path, Msg: "is missing; modules.json names it"}
	}
	p.Modes = nil
	for _, m := range poolModes {
		if on, _ := keys["pooling_mode_"+string(m)].(bool); on {
			p.Modes = append(p.Modes, m)
		}
	}
	if p.Modes == nil {
		return &ConfigError{File: path, Msg: "switches no way of pooling on that is known; one of pooling_mode_mean_tokens, pooling_mode_cls_token, pooling_mode_max_tokens, pooling_mode_mean_sqrt_len_tokens, pooling_mode_weightedmean_tokens and pooling_mode_lasttoken must be true"}
	}
	return nil
}

// readJSON reads a small JSON file. found is false when there is none.
func readJSON(path string, to any) (found bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return false, &ConfigError{File: path, Msg: fmt.Sprintf("cannot be read: %v", err)}
	}
	return true, nil
}
