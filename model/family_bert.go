package model

import "strings"

// bertFamily is BERT and the MiniLM sentence encoders (Devlin et al., 2019; Wang et al., 2020): post-norm, both directions.
var bertFamily = &Family{
	Types: []string{"bert"},
	Describe: func(c *config, d *Description) {
		n := Names{
			Embed: "embeddings.word_embeddings", Positions: "embeddings.position_embeddings",
			Types: "embeddings.token_type_embeddings", EmbedNorm: "embeddings.LayerNorm", Layer: "encoder.layer.%d.",
			Q: "attention.self.query", K: "attention.self.key", V: "attention.self.value", O: "attention.output.dense",
			Up: "intermediate.dense", Down: "output.dense", AttnNorm: "attention.output.LayerNorm", MLPNorm: "output.LayerNorm",
			Pooler: "pooler.dense", Classifier: "classifier",
		}
		d.Prefixes = []string{"", "bert."}
		d.Head = HeadNone
		if isSequenceClassifier(d.Architecture) {
			d.Head = HeadClassifier
		}
		if d.Architecture != "" && d.Architecture != "BertModel" { // classes with a head keep the encoder under its name
			for _, name := range []*string{&n.Embed, &n.Positions, &n.Types, &n.EmbedNorm, &n.Layer, &n.Pooler} {
				*name = "bert." + *name
			}
		}
		d.Names = n
		d.Heads = c.need("num_attention_heads")
		d.KVHeads, d.HeadDim = d.Heads, d.Hidden/d.Heads
		d.FFN = c.need("intermediate_size")
		d.MaxPositions = c.size("max_position_embeddings", 512)
		d.LearnedPositions = d.MaxPositions
		d.TokenTypes = c.size("type_vocab_size", 2)
		d.Norm = Norm{LayerNorm, c.number("layer_norm_eps", 1e-12)}
		d.PostNorm = true
		d.Activation = c.text("hidden_act", "gelu")
		d.Scale = 1 / sqrt(d.HeadDim)
		c.bias(d, n.Q, n.K, n.V, n.O, n.Up, n.Down)
		if kind := c.text("position_embedding_type", "absolute"); kind != "absolute" {
			c.fail("position_embedding_type %q is not supported; absolute is", kind)
		}
		for range min(c.need("num_hidden_layers"), 1<<14+1) {
			d.Layers = append(d.Layers, LayerKind{Rope: -1})
		}
	},
}

// isSequenceClassifier reports whether a Hugging Face class puts a classification or reward head on the model.
func isSequenceClassifier(class string) bool {
	return strings.HasSuffix(class, "ForSequenceClassification")
}
