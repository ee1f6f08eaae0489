package method

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
)

// ReportName is the name under which Task.Reported has a count of input i: "nonzero" or "survived".
func ReportName(what string, i int) string { return fmt.Sprintf("%s.%d", what, i) }

// reportTaskVectors counts, for the merge's summary, the non-zero entries of each task vector ("nonzero.<input>"), those
// of what is left of it ("survived.<input>") and, of several models, where at least two contribute ("overlap") and where
// they pull in opposite directions ("conflict"). left returns what contributes of input i's task vector; nil: all of it.
func (c *Chunk) reportTaskVectors(left func(i int) *Node) {
	if c.Base < 0 {
		return
	}
	if left == nil {
		left = c.Delta
	}
	c.left = func(i int) *Node {
		return c.memo(fmt.Sprintf("left over %d", i), func() *Node { return left(i) })
	}
	others := c.Others()
	var some, twice, up, down *Node
	either := func(a, b *Node) *Node {
		if a == nil {
			return b
		}
		return LogicalOr(a, b)
	}
	for _, i := range others {
		rest := c.left(i)
		here := c.NonZero(rest)
		c.Report(ReportName("nonzero", i), c.NonZero(c.Delta(i)))
		c.Report(ReportName("survived", i), here)
		if some != nil {
			twice = either(twice, LogicalAnd(some, here))
		}
		some = either(some, here)
		up, down = either(up, GreaterThan(rest, c.Zero())), either(down, LessThan(rest, c.Zero()))
	}
	if len(others) > 1 {
		c.Report("overlap", twice)
		c.Report("conflict", LogicalAnd(up, down))
	}
}
