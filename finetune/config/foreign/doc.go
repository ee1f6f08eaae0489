// Package foreign reads the training configurations of other tools and writes them as ours.
//
// Words. A key of theirs is taken when something of ours says the same; what nothing of ours says is dropped, and every dropped key is
// listed with the reason. Where a tool's default differs from ours, the default is written out, so that the run stays the one that was
// meant. Each tool is one file with a Tool and a line in tools.
package foreign
