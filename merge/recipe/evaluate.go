package recipe

import (
	"crypto/sha256"
	"encoding/hex"
)

// What is measured. TaskAuto and MetricAuto leave it to the rows of the data.
const (
	TaskAuto     = "auto"
	TaskLM       = "lm"       // the likelihood of text
	TaskChoice   = "choice"   // which of several answers is likeliest
	TaskClassify = "classify" // the class that a head or a network of layers gives

	MetricAuto     = "auto" // accuracy where rows have choices or classes, else loss
	MetricLoss     = "loss"
	MetricAccuracy = "accuracy"
	MetricMacroF1  = "macro_f1"
)

// Evaluate says what the merge is measured on.
type Evaluate struct {
	Pos     Pos      // of the key
	HeldOut *Measure // data by which methods and searches may select
	Report  *Measure // data that nothing is selected by

	Flips       bool // count, against each parent, the rows that it has right and the merge wrong
	Ensemble    bool // measure the mean of the parents' probabilities too
	Temperature bool // fit one temperature and report calibrated figures too
}

// Measure is data and what is measured on it.
type Measure struct {
	Pos     Pos      // of the key
	Data    []string // files, relative to the working directory or to the recipe; at least one
	DataPos Pos
	Task    string // one of the Task constants; default TaskAuto
	Metric  string // one of the Metric constants; default MetricAuto
	Field   string // key of a row that holds the text; default "": by the form of the row
	Limit   int    // rows that are used, chosen by seed; default 0: all
	SeqLen  int    // tokens of a row; default 512
	Batch   int    // rows that are computed together; default 8
	Seed    uint64 // default 0

	Divide     float64 // what the numbers of CSV files are divided by; default 1
	LabelFirst bool    // labels of CSV files stand before the numbers; default false
}

// The ways of searching.
const (
	SearchCMAES  = "cma_es"
	SearchRandom = "random"
)

// The scales on which a parameter is searched.
const (
	ScaleLinear = "linear"
	ScaleLog    = "log"
)

// Search optimises numeric parameters of the recipe by what evaluate.held_out measures. Trial 0 is the recipe as it stands.
type Search struct {
	Pos        Pos     // of the key
	Method     string  // SearchCMAES (default) or SearchRandom
	Trials     int     // merges that are measured, trial 0 among them; default 50
	Parallel   int     // trials at once; default 1. It changes no result.
	Seed       uint64  // default 0
	Sigma      float64 // first step size as a share of each range; default 0.3
	Keep       bool    // keep the merges of all trials
	Parameters []SearchParameter
}

// SearchParameter is a number that is searched.
type SearchParameter struct {
	Pos       Pos // of the item
	Path      Path
	Low, High float64  // Low < High
	Start     *float64 // where the search begins; nil: at the recipe's own value, or the method's default
	Scale     string   // ScaleLinear (default) or ScaleLog
}

// DefaultMeasure is a measure without data that says nothing else.
func DefaultMeasure() *Measure {
	return &Measure{Task: TaskAuto, Metric: MetricAuto, SeqLen: 512, Batch: 8, Divide: 1}
}

// DefaultSearch is a search without parameters that says nothing else.
func DefaultSearch() *Search {
	return &Search{Method: SearchCMAES, Trials: 50, Parallel: 1, Sigma: 0.3}
}

// Fingerprint is the SHA-256, in hexadecimal, of what is measured, for methods whose result depends on it.
func (m *Measure) Fingerprint() string {
	p := print{sha256.New()}
	p.text("measure 1")
	p.count(len(m.Data))
	for _, file := range m.Data {
		p.text(cleanPath(file))
	}
	for _, s := range []string{m.Task, m.Metric, m.Field} {
		p.text(s)
	}
	for _, n := range []int{m.Limit, m.SeqLen, m.Batch, int(m.Seed)} {
		p.count(n)
	}
	p.number(m.Divide)
	p.flag(m.LabelFirst)
	return hex.EncodeToString(p.Sum(nil))
}
