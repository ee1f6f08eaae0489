package recipe

import "slices"

// Key is a key that may stand at a place of a recipe, for programs that help to write one.
type Key struct {
	Name   string
	Doc    string   // what it says, in a line
	Takes  Takes    // what kind of value it has
	Values []string // the words that it takes, if Takes is TakesWord
	Below  Place    // which keys stand below it, or below the items of its list
}

// Takes says what kind of value a key has.
type Takes uint8

// The kinds of values.
const (
	TakesText       Takes = iota // a number or a text of its own
	TakesWord                    // one of Values
	TakesBool                    // true or false
	TakesMethod                  // the name of a merge method
	TakesModel                   // a reference to a model
	TakesFile                    // the path of a file
	TakesMapping                 // keys below it
	TakesList                    // a list of items with keys
	TakesNamed                   // a mapping whose keys are the writer's, with the keys of Below below each
	TakesParameters              // parameters of the merge method
)

// Place is a mapping in a recipe that has keys of its own.
type Place uint8

// The places.
const (
	InNothing Place = iota
	InRecipe
	InModel           // an item of models
	InSlice           // an item of slices
	InSource          // an item of sources, below a slice
	InModule          // a module
	InCondition       // a value of a parameter that is for some tensors only
	InReference       // a model that is written as a mapping
	InAlign           // align
	InAlignGroups     // groups, below align
	InLearn           // learn, below align
	InAlignMap        // an item of map, below align
	InRepair          // repair
	InCalibration     // calibration
	InTokenizer       // tokenizer
	InToken           // a token, below tokens
	InEvaluate        // evaluate
	InMeasure         // held_out or report, below evaluate
	InSearch          // search
	InSearchParameter // an item of parameters, below search
)

// Keys lists the keys of a place, the ones that are needed most first.
func Keys(p Place) []Key { return slices.Clone(places[p]) }

var (
	paramsKey = Key{Name: "parameters", Doc: "parameters of the merge method, for all that is in here", Takes: TakesParameters}
	modelsKey = Key{Name: "models", Doc: "whole models to merge", Takes: TakesList, Below: InModel}
	slicesKey = Key{Name: "slices", Doc: "runs of layers, stacked in this order", Takes: TakesList, Below: InSlice}
	modelKey  = Key{Name: "model", Doc: "a directory, a hub's name, or the name of another document; PATH+ADAPTER puts an adapter on it", Takes: TakesModel}

	// Rows of data are described alike wherever they are used.
	dataKey       = Key{Name: "data", Doc: "file, or list of files, with rows", Takes: TakesFile}
	fieldKey      = Key{Name: "field", Doc: "key of a row that holds the text"}
	batchKey      = Key{Name: "batch", Doc: "rows that are computed together"}
	divideKey     = Key{Name: "divide", Doc: "what the numbers of CSV files are divided by"}
	labelFirstKey = Key{Name: "label_first", Doc: "labels of CSV files stand before the numbers", Takes: TakesBool}
	seqLenKey     = Key{Name: "seq_len", Doc: "tokens of a row"}
)

// places holds the keys of each place. A test compares them with what the decoder knows.
var places = map[Place][]Key{
	InRecipe: {
		{Name: "merge_method", Doc: "how tensors are merged", Takes: TakesMethod},
		{Name: "base_model", Doc: "the model that task vectors are differences from", Takes: TakesModel},
		modelsKey, slicesKey,
		{Name: "modules", Doc: "the parts of a model that has several, such as text and vision", Takes: TakesNamed, Below: InModule},
		paramsKey,
		{Name: "dtype", Doc: "dtype in which inputs are taken and the output is written", Takes: TakesWord, Values: dtypes},
		{Name: "out_dtype", Doc: "dtype of the output, if it is another one", Takes: TakesWord, Values: dtypes},
		{Name: "tokenizer_source", Doc: "whose tokenizer the output has: union, base or a model", Takes: TakesModel, Values: []string{TokenizerUnion, TokenizerBase}},
		{Name: "tokenizer", Doc: "the output's tokens, and where the embedding of each comes from", Takes: TakesMapping, Below: InTokenizer},
		{Name: "chat_template", Doc: "auto, the name of a template, or Jinja", Takes: TakesWord, Values: append([]string{"auto"}, ChatTemplates()...)},
		{Name: "align", Doc: "bring models into the coordinates of a reference before they are merged", Takes: TakesMapping, Below: InAlign},
		{Name: "repair", Doc: "restore the scale of units after the merge", Takes: TakesMapping, Below: InRepair},
		{Name: "calibration", Doc: "rows of data for what has to see activations", Takes: TakesMapping, Below: InCalibration},
		{Name: "save_alignment", Doc: "name of the file in the output that keeps the maps of an alignment"},
		{Name: "evaluate", Doc: "measure the result on rows of data", Takes: TakesMapping, Below: InEvaluate},
		{Name: "search", Doc: "look for the numbers with which held-out rows come out best", Takes: TakesMapping, Below: InSearch},
		{Name: "requires", Doc: "features without which the recipe must not run", Takes: TakesWord, Values: features},
		{Name: "name", Doc: "what other documents of this file call the result"},
	},
	InModel: {modelKey, paramsKey},
	InSlice: {
		{Name: "sources", Doc: "models with the layers that are taken from each", Takes: TakesList, Below: InSource},
		{Name: "base_model", Doc: "the base of this slice alone", Takes: TakesModel},
		paramsKey,
		{Name: "residual_weight", Doc: "has no effect and never had"},
	},
	InSource: {
		modelKey,
		{Name: "layer_range", Doc: "[first, end]: layers are counted from 0, and the end is not among them"},
		paramsKey,
	},
	InModule:    {modelsKey, slicesKey, paramsKey},
	InCondition: {{Name: "filter", Doc: "part of the names of the tensors that the value is for"}, {Name: "value", Doc: "a value, or a list that is a gradient over the layers"}},
	InReference: {
		{Name: "model", Doc: "path or name; a mapping of path and revision where it holds + or @", Takes: TakesModel},
		{Name: "lora", Doc: "path of an adapter on the model", Takes: TakesModel},
		{Name: "override_architecture", Doc: "architecture that takes the place of the configuration's"},
	},
	InAlign: {
		{Name: "reference", Doc: "the model whose coordinates count, or universe for a consensus of all", Takes: TakesModel, Values: []string{UniverseReference}},
		{Name: "method", Doc: "how maps are found", Takes: TakesWord, Values: alignMethods},
		{Name: "symmetry", Doc: "what maps may do", Takes: TakesWord, Values: symmetries},
		{Name: "groups", Doc: "which groups are aligned", Takes: TakesMapping, Below: InAlignGroups},
		{Name: "spec", Doc: "file with the symmetries of the architecture; auto: the built-in ones", Takes: TakesFile},
		{Name: "rounds", Doc: "rounds of residual stream and layers in turns"},
		{Name: "restarts", Doc: "further runs from other beginnings, of which the best counts"},
		{Name: "normalize", Doc: "what tensors weigh against each other", Takes: TakesWord, Values: normalizations},
		{Name: "init", Doc: "where matching begins", Takes: TakesWord, Values: initialMaps},
		{Name: "seed", Doc: "seed of the random beginnings"},
		{Name: "lambda", Doc: "method dual: share of the activations, from 0 to 1"},
		{Name: "learn", Doc: "how maps are learned", Takes: TakesMapping, Below: InLearn},
		{Name: "on_same_base", Doc: "what becomes of models with a common origin", Takes: TakesWord, Values: sameBase},
		{Name: "map", Doc: "saved alignments to apply in place of matching", Takes: TakesList, Below: InAlignMap},
	},
	InAlignGroups: {
		{Name: "residual", Doc: "the residual stream", Takes: TakesWord, Values: residualKinds},
		{Name: "mlp", Doc: "units of the MLP", Takes: TakesBool},
		{Name: "heads", Doc: "heads of attention", Takes: TakesBool},
		{Name: "qk", Doc: "coordinates in which queries meet keys", Takes: TakesBool},
		{Name: "vo", Doc: "coordinates of values within a head", Takes: TakesWord, Values: voKinds},
	},
	InLearn: {
		{Name: "groups", Doc: "what is learned: residual, phases, vo, qk, or ids of groups"},
		{Name: "steps", Doc: "steps of gradient descent"},
		{Name: "lr", Doc: "learning rate"},
		{Name: "lambda", Doc: "[low, high]: where between the models the loss is measured"},
		{Name: "batch", Doc: "rows in a step"},
		{Name: "held_out", Doc: "share of the calibration data by which the best step is chosen"},
	},
	InAlignMap: {
		{Name: "model", Doc: "the model whose map it is", Takes: TakesModel},
		{Name: "file", Doc: "the saved alignment", Takes: TakesFile},
	},
	InRepair: {
		{Name: "mode", Doc: "what is restored", Takes: TakesWord, Values: repairModes},
		{Name: "samples", Doc: "rows of the calibration data that are used"},
	},
	InCalibration: {
		dataKey,
		fieldKey,
		{Name: "samples", Doc: "rows that are used"},
		seqLenKey,
		{Name: "seed", Doc: "by which rows are chosen"},
		batchKey,
		divideKey,
		labelFirstKey,
	},
	InTokenizer: {
		{Name: "source", Doc: "union, base or a model", Takes: TakesModel, Values: []string{TokenizerUnion, TokenizerBase}},
		{Name: "tokens", Doc: "rules for single tokens", Takes: TakesNamed, Below: InToken},
		{Name: "pad_to_multiple_of", Doc: "rows of the embedding are filled up to a multiple of this"},
	},
	InToken: {
		{Name: "source", Doc: "the model whose embedding it has, {kind: zero}, or {kind: model_token, model: M, token: T}", Takes: TakesModel},
		{Name: "force", Doc: "also for models that have the token", Takes: TakesBool},
	},
	InEvaluate: {
		{Name: "held_out", Doc: "rows by which methods and searches may select", Takes: TakesMapping, Below: InMeasure},
		{Name: "report", Doc: "rows that nothing is selected by", Takes: TakesMapping, Below: InMeasure},
		{Name: "flips", Doc: "count the rows that a parent has right and the merge wrong", Takes: TakesBool},
		{Name: "ensemble", Doc: "measure the mean of the parents' probabilities, too", Takes: TakesBool},
		{Name: "temperature", Doc: "fit one temperature and report calibrated figures, too", Takes: TakesBool},
	},
	InMeasure: {
		dataKey,
		{Name: "task", Doc: "what a row asks for", Takes: TakesWord, Values: tasks},
		{Name: "metric", Doc: "what counts", Takes: TakesWord, Values: metrics},
		fieldKey,
		{Name: "limit", Doc: "rows that are used; 0: all"},
		seqLenKey,
		batchKey,
		{Name: "seed", Doc: "by which rows are chosen"},
		divideKey,
		labelFirstKey,
	},
	InSearch: {
		{Name: "method", Doc: "how numbers are looked for", Takes: TakesWord, Values: searchMethods},
		{Name: "trials", Doc: "merges that are measured, the recipe as it stands among them"},
		{Name: "parameters", Doc: "the numbers that are looked for", Takes: TakesList, Below: InSearchParameter},
		{Name: "parallel", Doc: "trials at once; it changes no result"},
		{Name: "seed", Doc: "seed of the search"},
		{Name: "sigma", Doc: "first step as a share of each range"},
		{Name: "keep", Doc: "keep the merges of all trials", Takes: TakesBool},
	},
	InSearchParameter: {
		{Name: "path", Doc: "where the number stands, such as models.*.parameters.weight"},
		{Name: "range", Doc: "[low, high]"},
		{Name: "start", Doc: "where the search begins"},
		{Name: "scale", Doc: "on which steps are taken", Takes: TakesWord, Values: scales},
	},
}
