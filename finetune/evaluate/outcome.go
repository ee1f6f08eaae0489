package evaluate

import "math"

// Outcome is what a model made of one row.
type Outcome struct {
	// Truth and Chosen are the class or the choice of a row, counted as Report.Labels does; -1 for a row that is neither. Chosen is -1
	// as well where the model's outputs are no numbers.
	Truth, Chosen int
	// Logs are the logits of the classes, or the log probabilities of the choices up to a constant, -Inf for those that the row does not
	// choose from. nil for other rows.
	Logs []float64
	// Targets are the log probabilities of the learnt tokens in their order, First says which of them the model puts first.
	Targets []float64
	First   []bool
	// Weight is that of the row, and of each of its tokens, in a loss.
	Weight float64
}

// start makes room for the outcomes of all rows.
func (r *run) start() {
	if !r.o.Outcomes {
		return
	}
	r.outcomes = make([]Outcome, len(r.set.Examples))
	for i := range r.outcomes {
		r.outcomes[i] = Outcome{Truth: -1, Chosen: -1, Weight: 1}
		if w := r.set.Examples[i].Weight; w != 0 {
			r.outcomes[i].Weight = float64(w)
		}
	}
}

// keepToken keeps what became of a learnt token.
func (r *run) keepToken(i int, log float32, first bool) {
	if r.outcomes != nil {
		o := &r.outcomes[i]
		o.Targets, o.First = append(o.Targets, float64(log)), append(o.First, first)
	}
}

// keepChoice keeps the log probabilities of a row's choices, one for each candidate. Candidates of one text count as the best of them,
// as the choice does.
func (r *run) keepChoice(i int, list []candidate, logs []float64) {
	if r.outcomes == nil {
		return
	}
	o := &r.outcomes[i]
	o.Logs = make([]float64, len(r.texts))
	for k := range o.Logs {
		o.Logs[k] = math.Inf(-1)
	}
	for k, c := range list {
		at := r.texts[c.text]
		o.Logs[at] = max(o.Logs[at], logs[k])
	}
}

// keepClass keeps the logits of a row's classes.
func (r *run) keepClass(i int, logits []float32, truth, chosen int) {
	if r.outcomes == nil {
		return
	}
	o := &r.outcomes[i]
	o.Truth, o.Chosen = truth, chosen
	for _, x := range logits {
		o.Logs = append(o.Logs, float64(x))
	}
}

// labels lists what rows choose from, by number.
func (r *run) labels() []string {
	if len(r.set.Labels) > 0 {
		return r.set.Labels
	}
	if len(r.texts) == 0 {
		return nil
	}
	list := make([]string, len(r.texts))
	for text, k := range r.texts {
		list[k] = text
	}
	return list
}
