// Package search finds numbers in a box that make a score large, where a score takes long: a merge is written and measured for each.
// It knows no recipe and no model, only ranges and a function that it asks.
//
// # Vocabulary
//
// A dimension is a number with a range and a scale. A trial is one asking: trial 0 is what stands already, and has no values; the others
// have one for each dimension. Trials are asked in generations: the points of a generation depend on the seed and on the scores of the
// generations before, and on nothing else. So a generation's trials can be evaluated at once and in any order, and a search gives
// the same result however many run in parallel, and however often it was killed.
//
// # Journal
//
// The journal is a text file: a head, then a line for each trial that is finished, written and synced before the trial counts. A search
// that is resumed asks for the same points again and takes the scores that are known from the journal. A line that a kill has torn is
// the last one, and is cut off. The head says what is searched, so that scores of another search are refused.
package search
