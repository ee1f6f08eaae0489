package evaluate

import "fmt"

// Verdict compares a tuned model with its base that was shown solved rows: where that does as well, tuning was not needed, or did
// not work.
type Verdict struct {
	Metric string  `json:"metric"` // what was compared
	Tuned  float64 `json:"tuned"`
	Base   float64 `json:"few_shot"`
	Better bool    `json:"tuned_is_better"`
}

// Compare takes the measure that matters for the rows: the accuracy of classes or choices where they are such, else the loss.
func Compare(tuned, base *Score) Verdict {
	v := Verdict{Metric: "accuracy"}
	switch {
	case tuned.Class != nil && base.Class != nil:
		v.Tuned, v.Base = tuned.Class.Accuracy, base.Class.Accuracy
	case tuned.Choice != nil && base.Choice != nil && tuned.Choice.Rows == tuned.Rows:
		v.Tuned, v.Base = tuned.Choice.Accuracy, base.Choice.Accuracy
	default:
		v = Verdict{Metric: "loss", Tuned: tuned.Result.MeanLoss(), Base: base.Result.MeanLoss()}
		v.Better = v.Tuned < v.Base
		return v
	}
	v.Better = v.Tuned > v.Base
	return v
}

// Message is the line that closes a report when tuning has not helped.
func (v Verdict) Message(tuned, base string, shots int) string {
	rows := "a solved row"
	if shots != 1 {
		rows = fmt.Sprint(shots, " solved rows")
	}
	return fmt.Sprintf("tuning did not help: %s has %s %.4f, and %s with %s in front of each has %.4f without any training; look at rows, epochs and learning rate before using the tuned model", tuned, v.Metric, v.Tuned, base, rows, v.Base)
}
