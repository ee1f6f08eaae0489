package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// hashed names a file or folder of the measurements by what it comes from.
func (j *job) hashed(kind string, from ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(from, "\x00")))
	return filepath.Join(j.work, kind+"-"+hex.EncodeToString(sum[:6]))
}

// recipe writes a recipe that merges a pair, half and half.
func recipe(method string, pair []string, blocks ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "merge_method: %s\nmodels:\n", method)
	for _, m := range pair {
		fmt.Fprintf(&b, "  - model: %q\n", m)
		if method == "linear" {
			b.WriteString("    parameters: {weight: 0.5}\n")
		}
	}
	for _, block := range blocks {
		b.WriteString(block + "\n")
	}
	return b.String()
}

// merge runs a recipe, unless that has been done.
func (j *job) merge(ctx context.Context, text string) (string, error) {
	dir := j.hashed("merge", text)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.WriteFile(dir+".yml", []byte(text), 0o666); err != nil {
		return "", err
	}
	return dir, j.call(ctx, nil, "merge", dir+".yml", dir, "--quiet")
}

// call runs the program as it is told.
func (j *job) call(ctx context.Context, out *bytes.Buffer, args ...string) error {
	fmt.Println(j.program, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, j.program, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if out != nil {
		cmd.Stdout = out
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", j.program, strings.Join(args, " "), err)
	}
	return nil
}

// score is what 'mergekit eval' says of a model.
type score struct {
	Event string  `json:"event"`
	Loss  float64 `json:"loss"`
	Class struct {
		Accuracy float64 `json:"accuracy"`
	} `json:"class"`
}

// score measures a model on a set, unless that has been done.
func (j *job) score(ctx context.Context, model, data string) (*score, error) {
	path := j.hashed("eval", model, data) + ".json"
	if _, err := os.Stat(path); err == nil {
		return read[score](path)
	}
	var out bytes.Buffer
	if err := j.call(ctx, &out, "eval", model, "--data", data, "--json", "--quiet", "--backend", j.backend); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(&out)
	for lines.Scan() {
		var s score
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return nil, fmt.Errorf("eval %s: %w", model, err)
		}
		if s.Event == "score" {
			return &s, os.WriteFile(path, lines.Bytes(), 0o666)
		}
	}
	return nil, fmt.Errorf("eval %s: gave no score", model)
}

// scored merges and measures.
func (j *job) scored(ctx context.Context, text, data string) (*score, error) {
	dir, err := j.merge(ctx, text)
	if err != nil {
		return nil, err
	}
	return j.score(ctx, dir, data)
}
