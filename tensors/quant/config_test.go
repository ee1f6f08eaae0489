package quant

import "testing"

// The size of blocks is what all groups say that say one, whatever their order, which a map does not keep.
func TestBlock(t *testing.T) {
	const channel, wide, narrow = `{"weights":{"num_bits":8,"strategy":"channel"}}`, `{"weights":{"num_bits":4,"group_size":128}}`, `{"weights":{"num_bits":4,"group_size":16}}`
	for range 50 {
		for config, want := range map[string][2]int{
			`{"config_groups":{"a":` + channel + `,"b":` + wide + `,"c":{"targets":["Linear"]}}}`:                     {0, 128},
			`{"config_groups":{"a":` + channel + `,"b":` + wide + `,"c":` + narrow + `}}`:                             {0, 0},
			`{"config_groups":{"a":` + channel + `}}`:                                                                 {0, 0},
			`{"config_groups":{"a":{"weights":{"num_bits":8,"block_structure":[64,32]}},"b":` + channel + `}}`:        {64, 32},
			`{"quant_method":"fp8","weight_block_size":[128,64],"config_groups":{"a":{"weights":{"num_bits":8}}}}`:    {128, 64},
			`{"config_groups":{"a":{"weights":{"num_bits":8,"group_size":-1}},"b":` + wide + `,"c":` + channel + `}}`: {0, 128},
		} {
			c, err := ParseConfig([]byte(config))
			if err != nil {
				t.Fatalf("%s: %v", config, err)
			}
			if rows, cols := c.block(); rows != want[0] || cols != want[1] {
				t.Fatalf("%s: blocks of %d by %d, want %v", config, rows, cols, want)
			}
		}
	}
}
