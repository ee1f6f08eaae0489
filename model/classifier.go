package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// DescribeClassifier is Describe for a checkpoint that gets a head of so many classes from an adapter: the same model in its
// family's class for the classification of sequences.
func DescribeClassifier(config []byte, labels int) (*Description, error) {
	var keys map[string]any
	dec := json.NewDecoder(bytes.NewReader(config))
	dec.UseNumber()
	if err := dec.Decode(&keys); err != nil {
		return nil, &ConfigError{Msg: fmt.Sprintf("is not a JSON object: %v", err)}
	}
	d, err := Describe(config)
	if err != nil {
		return nil, err
	}
	stem := d.Architecture
	for _, end := range []string{"ForCausalLM", "ForMaskedLM", "ForPreTraining", "LMHeadModel", "Model", "ForSequenceClassification"} {
		if s, ok := strings.CutSuffix(stem, end); ok {
			stem = s
			break
		}
	}
	keys["architectures"] = []string{stem + "ForSequenceClassification"}
	keys["num_labels"] = labels
	delete(keys, "id2label")
	changed, err := json.Marshal(keys)
	if err != nil {
		return nil, err
	}
	return Describe(changed)
}

// LabelNames returns the names of a classifier's classes from its config.json (id2label), by class. Classes that it does not
// name are called LABEL_0, LABEL_1 and so on, as transformers calls them.
func LabelNames(config []byte, classes int) []string {
	var c struct {
		Names map[string]any `json:"id2label"`
	}
	_ = json.Unmarshal(config, &c) // without names the numbers stand
	out := make([]string, classes)
	for i := range out {
		out[i] = fmt.Sprintf("LABEL_%d", i)
		if s, ok := c.Names[strconv.Itoa(i)].(string); ok {
			out[i] = s
		}
	}
	return out
}
