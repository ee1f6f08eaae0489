package schedule

// rewarm warms finished weights up again and lets them decay over the new budget: the curve of cosine under the name by which continued
// pre-training knows it. The optimizer's state begins anew. Ibrahim et al., 2024.
var rewarm = &Kind{
	Name:    "rewarm",
	Summary: "warms finished weights up again and falls along half a cosine",
	after:   halfWave,
}
