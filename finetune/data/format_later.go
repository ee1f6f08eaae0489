package data

import "github.com/mergekit/mergekit/text/chat"

// The formats here are recognised so that nobody trains on such rows as if they were something else. A format moves to a file
// of its own when its method arrives.
var (
	preferenceFormat = &format{
		name: "preference", keys: `{"chosen", "rejected"}`, later: "preference methods such as DPO",
		has: func(o *chat.Object) bool { return has(o, "chosen", "rejected") },
	}
	unpairedFormat = &format{
		name: "unpaired", keys: `{"prompt", "completion", "label"}`, later: "KTO and BCO",
		has: func(o *chat.Object) bool {
			_, isBool := field(o, "label").(bool)
			return isBool && has(o, "prompt", "completion")
		},
	}
	ratedFormat = &format{
		name: "rated", keys: `{"prompt", "response", "helpfulness"}`, later: "reward models",
		has: func(o *chat.Object) bool { return has(o, "prompt", "response", "helpfulness") },
	}
	contrastiveFormat = &format{
		name: "contrastive", keys: `{"anchor", "positive"}`, later: "embedding methods",
		has: func(o *chat.Object) bool { return has(o, "anchor", "positive") },
	}
	editingFormat = &format{
		name: "editing", keys: `{"prefix", "suffix"}`, later: "model editing",
		has: func(o *chat.Object) bool { return has(o, "prefix", "suffix") || has(o, "prefix", "suffix1", "suffix2") },
	}
	mathsFormat = &format{
		name: "maths", keys: `{"problem", "solution", "answer"}`, later: "re-ranking of solutions",
		has: func(o *chat.Object) bool { return has(o, "problem", "solution") },
	}
)
