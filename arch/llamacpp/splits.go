package llamacpp

// split is how a byte-level tokenizer cuts text before it merges, and what goes with it.
type split struct {
	regex   string // of the pieces; "": GPT-2's
	digits  bool   // digits stand alone, before anything else
	nfc     bool   // text is composed first (Unicode normalisation form C)
	whole   bool   // a piece that is a token is taken without merging
	addsBOS bool   // a text begins with BOS when the file does not say
}

// The splits of model families, as their publishers' tokenizers have them.
const (
	splitLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	splitQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	splitTekken = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` +
		`|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*` +
		`|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// splits are the values of tokenizer.ggml.pre.
var splits = map[string]split{
	"gpt-2": {}, "mpt": {}, "olmo": {}, "jais": {}, "trillion": {}, "granite-docling": {},
	"smollm": {digits: true}, "starcoder": {digits: true}, "refact": {digits: true}, "command-r": {digits: true, nfc: true},
	"codeshell": {digits: true}, "exaone": {digits: true}, "minerva-7b": {digits: true},
	"llama-bpe": {regex: splitLlama3, whole: true, addsBOS: true}, "llama3": {regex: splitLlama3, whole: true, addsBOS: true},
	"llama-v3": {regex: splitLlama3, whole: true, addsBOS: true}, "falcon3": {regex: splitLlama3, whole: true, addsBOS: true},
	"pixtral": {regex: splitLlama3, whole: true, addsBOS: true},
	"dbrx":    {regex: splitLlama3}, "smaug-bpe": {regex: splitLlama3},
	"tekken": {regex: splitTekken, whole: true, addsBOS: true},
	"qwen2":  {regex: splitQwen2, nfc: true}, "stablelm2": {regex: splitQwen2}, "megrez": {regex: splitQwen2},
	"deepseek-r1-qwen": {regex: splitQwen2},
}
