package evaluate

import (
	"fmt"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/model"
)

// Check refuses rows that the head of such a model cannot be measured on.
func Check(d *model.Description, set *data.Set) error {
	labelled := len(set.Labels) > 0
	switch {
	case labelled && d.Head != model.HeadScore && d.Head != model.HeadClassifier:
		return &model.InputError{File: place(set), Msg: fmt.Sprintf("its rows have labels, and the model (%s) has no classification head; give a classifier, or write the rows as prompts with the label as completion", d.ClassName())}
	case labelled && d.NumLabels < 2:
		return &model.InputError{File: place(set), Msg: fmt.Sprintf("its rows have labels, and the model (%s) gives a single score; it is a reward model, no classifier", d.ClassName())}
	case labelled && len(set.Labels) > d.NumLabels:
		return &model.InputError{File: place(set), Msg: fmt.Sprintf("its rows have %d classes, the model's head tells %d", len(set.Labels), d.NumLabels)}
	case !labelled && d.Head != model.HeadLM:
		return &model.InputError{File: place(set), Msg: fmt.Sprintf("the model (%s) has no language-model head, so it gives tokens no probability; rows with a label ({\"text\", \"label\"}) can be measured with a classifier", d.ClassName())}
	}
	for i := range set.Examples {
		x := &set.Examples[i]
		for _, id := range x.IDs {
			if id < 0 || int(id) >= d.Vocab {
				return fmt.Errorf("%s:%d: %w", x.File, x.Line, &model.VocabularyError{ID: int(id), Vocab: d.Vocab})
			}
		}
	}
	return nil
}
