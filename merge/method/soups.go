package method

var soupCitation = Citation{
	Text: "Wortsman et al., 2022, \"Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time\", ICML",
	URL:  "https://arxiv.org/abs/2203.05482",
}

// needsAll refuses a model that lacks a tensor: it is no ingredient.
func needsAll(int, bool) Action { return ActFail }

// lineParam walks from the base to the soup.
var lineParam = Param{Name: "line", Kind: Int, Default: 0, Doc: "with base_model: so many points (21 in the paper) on the line from the base to the soup are measured on held_out, and the best is taken (WiSE-FT; Wortsman et al., 2022, CVPR); 0: the soup itself"}

// GreedySoup averages the models that help on held-out data (package merge/soup).
//
// Wortsman et al., 2022, "Model soups", recipe 1.
var GreedySoup = &Method{
	Name:    "greedy_soup",
	Title:   "Greedy soup",
	Summary: "Fine-tunes of one model are tried one by one, the best on held-out data first, and averaged as long as the average gets no worse there.",
	Formula: "S = {best}; for every other model i: S = S ∪ {i} if held_out(mean(S ∪ {i})) ≥ held_out(mean(S))\ny = mean(S)",
	Paper:   soupCitation,
	Base:    BaseOptional,
	Min:     2,
	Whole:   true, Blends: true, Selects: true,
	Missing: needsAll,
	Reads:   1,
	Params: []Param{
		{Name: "tie", Kind: Text, Default: "accept", Doc: "a model that changes nothing: accept (as the paper) or strict (left out, as its authors' code)"},
		{Name: "min_gain", Kind: Either, Default: 0.0, Doc: "by how much a model has to help: a number, or 1se: more than the luck of the draw of rows (paired bootstrap, p < 0.1)"},
		{Name: "order", Kind: Text, Default: "metric", Doc: "metric (best first), random or listed"},
		{Name: "with_replacement", Kind: Int, Default: 1, Doc: "how often a model may be in the soup"},
		{Name: "seed", Kind: Int, Default: 0, Doc: "of the random order and of the bootstrap"},
		lineParam,
	},
}

// LearnedSoup mixes models with weights that are learned on held-out data (package merge/soup).
//
// Wortsman et al., 2022, "Model soups", the appendix on learned soups.
var LearnedSoup = &Method{
	Name:    "learned_soup",
	Title:   "Learned soup",
	Summary: "The models' shares of the average go down the gradient of its loss on held-out data: one share each, or one for every layer or tensor.",
	Formula: "min_a,T  mean CE(f(x; Σ softmax(a)ᵢ·xᵢ)/T, label)  on held_out, by AdamW\ny = Σ softmax(a)ᵢ·xᵢ",
	Paper:   soupCitation,
	Base:    BaseOptional,
	Min:     2,
	Whole:   true, Blends: true, Selects: true,
	Missing: needsAll,
	Reads:   1,
	Params: []Param{
		{Name: "granularity", Kind: Text, Default: "model", Doc: "what has shares of its own: model, layer or tensor"},
		{Name: "lr", Kind: Float, Default: 0.1, Doc: "learning rate of AdamW"},
		{Name: "weight_decay", Kind: Float, Default: 0.0, Doc: "decoupled decay of a, which pulls towards equal shares"},
		{Name: "epochs", Kind: Int, Default: 3, Doc: "passes over held_out"},
		{Name: "batch", Kind: Int, Default: 64, Doc: "rows of a step: every step reads all models twice"},
		{Name: "temperature", Kind: Bool, Default: true, Doc: "fit a temperature before each epoch; it counts while learning only"},
		{Name: "seed", Kind: Int, Default: 0, Doc: "of the order of rows"},
		lineParam,
	},
}

// AdaMerging learns factors of task vectors without labels (package merge/soup).
//
// Yang et al., 2024, "AdaMerging: Adaptive Model Merging for Multi-Task Learning", ICLR.
var AdaMerging = &Method{
	Name:    "adamerging",
	Title:   "AdaMerging",
	Summary: "Factors of task vectors, one each or one for every layer, go down the gradient of the entropy of what the merge predicts on unlabelled inputs.",
	Formula: "min_λ  mean H(softmax f(x; b + Σ λᵢ·(xᵢ − b)))  on held_out, by Adam\ny = b + Σ λᵢ·(xᵢ − b)",
	Paper: Citation{
		Text: "Yang et al., 2024, \"AdaMerging: Adaptive Model Merging for Multi-Task Learning\", ICLR",
		URL:  "https://arxiv.org/abs/2310.02575",
	},
	Base:  BaseRequired,
	Min:   2,
	Whole: true, Blends: true, Selects: true,
	Missing: needsAll,
	Reads:   1,
	Params: []Param{
		{Name: "granularity", Kind: Text, Default: "layer", Doc: "what has factors of its own: model (task-wise), layer (layer-wise) or tensor (layer-wise as in the authors' code)"},
		{Name: "init", Kind: Float, Default: 0.3, Doc: "factors at the start"},
		{Name: "lr", Kind: Float, Default: 1e-3, Doc: "learning rate of Adam"},
		{Name: "steps", Kind: Int, Default: 500, Doc: "steps of Adam"},
		{Name: "batch", Kind: Int, Default: 16, Doc: "rows of a step: every step reads all models twice"},
		{Name: "clamp", Kind: Bool, Default: true, Doc: "keep factors from 0 to 1"},
		{Name: "seed", Kind: Int, Default: 0, Doc: "of the order of rows"},
	},
}

// Fisher averages by how much each model's own likelihood depends on an entry (package merge/soup).
//
// Matena and Raffel, 2022, "Merging Models with Fisher-Weighted Averaging", NeurIPS.
var Fisher = &Method{
	Name:    "fisher",
	Title:   "Fisher merging",
	Summary: "Every entry is averaged with the weights by which the models' likelihood of labelled data depends on it: the diagonal of the Fisher information.",
	Formula: "Fᵢ = mean over rows of (∂ log p(label | x; xᵢ))², at least 1e-6\ny = Σ wᵢ·Fᵢ·xᵢ / Σ wᵢ·Fᵢ",
	Paper: Citation{
		Text: "Matena and Raffel, 2022, \"Merging Models with Fisher-Weighted Averaging\", NeurIPS",
		URL:  "https://arxiv.org/abs/2111.09832",
	},
	Base:  BaseIgnored,
	Min:   2,
	Whole: true, Blends: true, Selects: true,
	Missing: needsAll,
	Check:   checkFisher,
	Reads:   1,
	Params: []Param{
		{Name: "weight", Kind: Float, PerInput: true, ForBase: true, Default: 1.0, Doc: "factor of this model's information, 0 or more"},
		{Name: "normalize", Kind: Bool, Default: false, Doc: "divide each model's information by its norm, so that models that fit their data badly do not outweigh others"},
		{Name: "per_model", Kind: Bool, Default: false, Doc: "the files of held_out: data belong to the models, in their order"},
	},
}

// checkFisher refuses weights by which the mean is none: entries are divided by the sum of weights times information.
func checkFisher(t *Task) error {
	sum := 0.0
	for i := range t.Inputs {
		w, _ := t.InputFloat("weight", i)
		if w < 0 {
			return t.Refuse("weight", i, "weight %g of model %d is below 0, and there is no less than no information; use 0 or more", w, i+1)
		}
		sum += w
	}
	if sum == 0 {
		return t.Refuse("weight", t.Inputs-1, "the weights of all models are 0; give one of them more")
	}
	return nil
}
