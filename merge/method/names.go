package method

import "fmt"

// weightName is the run-time name of input i's weight.
func weightName(i int) string { return fmt.Sprintf("w.%d", i) }
