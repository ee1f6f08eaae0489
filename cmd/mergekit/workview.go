package main

import (
	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/progress"
)

// workView shows a work that has both: steps (matching, measuring, running over prompts) and then bytes. One gives way to the other, and warnings
// to neither.
type workView struct {
	*stepView
	bar *progress.Progress
}

func newWorkView(cmd *cobra.Command) *workView { return &workView{stepView: newStepView(cmd)} }

// warn prints a warning on a line of its own.
func (v *workView) warn(message string) {
	v.stepView.end()
	warn(v.cmd, message)
}

// started gives what begins to count bytes, under the name of what is done with them.
func (v *workView) started(doing string) func(total int64) {
	return func(total int64) {
		v.end()
		v.bar = newProgress(v.cmd, total, doing)
	}
}

// written counts bytes.
func (v *workView) written(n int64) { v.bar.Add(n) }

// end closes what is open.
func (v *workView) end() {
	v.stepView.end()
	v.bar.Done()
	v.bar = nil
}
