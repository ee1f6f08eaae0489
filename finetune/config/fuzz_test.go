package config

import "testing"

// FuzzParse wants of any document and any set: an error, or a configuration that is written and read back as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole), "optim.lr=1e-5")
	f.Add([]byte(small), "data.train[0].path=x")
	f.Add([]byte(".a: &a {r: 4}\nlora: {<<: *a, rank_pattern: {\"a\\x01\": 2}}\n"+small), "lora.alpha_pattern={q: 1}")
	f.Add([]byte("a: &a [*a]\nmodel: *a\n"), "model[0][0].x=1")
	f.Add([]byte("data: {train: [t], buckets: [1, 2, 9999]}\nmodel: {base: \"null\"}\n"), "model.adapter_in=auto")
	f.Add([]byte("tune: sparse\nsparse: {count: 1e3, full: {epochs: .5}, masked: {max_steps: 3, reg: 0}, norms: whole, on_top_of: [\"null\", de]}\n"+small), "sparse.masked.epochs=2")
	f.Fuzz(func(t *testing.T, data []byte, set string) {
		for _, sets := range [][]string{nil, {set}, {set, set}} {
			c, err := Parse("run.yml", data, sets)
			if err != nil {
				if c != nil {
					t.Error("a configuration and an error")
				}
				continue
			}
			roundTrip(t, c)
		}
	})
}
