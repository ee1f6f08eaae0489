package evaluation

import "math"

// Bounds of a temperature. Where all rows are right the loss falls with the temperature for ever, and where they are no better than chance
// it falls with its inverse.
const (
	minTemperature = 0.01
	maxTemperature = 100
)

// Calibration is what one temperature for all logits changes (Guo et al., 2017): answers stay, probabilities do not.
type Calibration struct {
	Temperature float64 `json:"temperature"`
	LossBefore  Number  `json:"loss_before"` // cross-entropy of the classes or choices
	LossAfter   Number  `json:"loss_after"`
	ECEBefore   Number  `json:"ece_before"`
	ECEAfter    Number  `json:"ece_after"`
}

// Temperature is what logits are divided by to make the cross-entropy of the classes or choices least, from 0.01 to 100; 1 for rows
// without.
//
// The loss is convex in the inverse b of the temperature. Its derivative is the mean logit under the model minus that of the truth, its
// second derivative the variance; Newton's steps that leave the bracket are replaced by its middle.
func (o *Outcomes) Temperature() float64 {
	if len(o.Logs) == 0 {
		return 1
	}
	low, high := 1/float64(maxTemperature), 1/float64(minTemperature)
	if d, _ := o.slope(low); !(d < 0) {
		return maxTemperature
	}
	if d, _ := o.slope(high); !(d > 0) {
		return minTemperature
	}
	b := 1.0
	for range 200 {
		d, dd := o.slope(b)
		if d == 0 || high-low < 1e-14*b {
			break
		}
		if d < 0 {
			low = b
		} else {
			high = b
		}
		next := b - d/dd
		if !(next > low && next < high) {
			next = (low + high) / 2
		}
		if math.Abs(next-b) < 1e-13*b {
			b = next
			break
		}
		b = next
	}
	return 1 / b
}

// slope is the first and the second derivative of the loss at the inverse temperature b.
func (o *Outcomes) slope(b float64) (first, second float64) {
	var weight float64
	for i, logs := range o.Logs {
		var sum, m1, m2 float64
		top := math.Inf(-1)
		for _, l := range logs {
			top = max(top, b*l)
		}
		for _, l := range logs {
			if math.IsInf(l, -1) {
				continue // not a choice of this row
			}
			p := math.Exp(b*l - top)
			sum += p
			m1 += p * l
			m2 += p * l * l
		}
		m1, m2 = m1/sum, m2/sum
		first += o.Weight[i] * (m1 - logs[o.Truth[i]])
		second += o.Weight[i] * max(m2-m1*m1, 0)
		weight += o.Weight[i]
	}
	return first / weight, second / weight
}

// At is the outcomes with logits divided by a temperature. Tokens of rows that are no choices stay as they are.
func (o *Outcomes) At(temperature float64) *Outcomes {
	out := *o
	out.Logs = nil
	for _, logs := range o.Logs {
		scaled := make([]float64, len(logs))
		for k, l := range logs {
			scaled[k] = l / temperature
		}
		out.Logs = append(out.Logs, logSoftmax(scaled))
	}
	return &out
}

// Calibrate says what a temperature changes; nil for rows without classes or choices.
func (o *Outcomes) Calibrate(temperature float64) *Calibration {
	if len(o.Logs) == 0 {
		return nil
	}
	after := o.At(temperature)
	return &Calibration{Temperature: temperature, LossBefore: Number(o.classLoss()), LossAfter: Number(after.classLoss()), ECEBefore: Number(o.ECE()), ECEAfter: Number(after.ECE())}
}
