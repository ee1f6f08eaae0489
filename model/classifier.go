package model

import (
	"bytes"
	"encoding/json"
	"fmt"
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
	if d.NumLabels != labels { // names of other classes
		delete(keys, "id2label")
	}
	changed, err := json.Marshal(keys)
	if err != nil {
		return nil, err
	}
	return Describe(changed)
}
