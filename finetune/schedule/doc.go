// Package schedule is the curves that a learning rate follows over a run.
//
// A curve gives the learning rate of optimizer step t, counted from 1. All begin with a warm-up, linear from 0, and differ in what
// follows. A new curve is a file with a Kind and a line in kinds.
package schedule
