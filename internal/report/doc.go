// Package report turns what a training run has logged into a page that people read: curves, settings and results in one HTML file.
//
// The page stands alone. Its curves are drawings inside of it, it has no script, and it asks the network for nothing. It is as legible
// on a telephone as on a desk, on light ground and on dark.
package report
