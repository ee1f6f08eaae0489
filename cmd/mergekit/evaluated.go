package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/mergekit/mergekit/merge"
)

// printEvaluated prints what a recipe's evaluate: measured, a table for each set.
func printEvaluated(e *merge.Evaluated) {
	if e == nil {
		return
	}
	for _, set := range e.Sets() {
		fmt.Printf("\n%s\n", set.Heading())
		rows := set.Table()
		for i := range rows[0] {
			rows[0][i] = strings.ToUpper(rows[0][i])
		}
		table(os.Stdout, rows)
		if note := set.Note(); note != "" {
			fmt.Println(note)
		}
	}
}
