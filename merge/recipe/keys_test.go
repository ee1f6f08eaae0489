package recipe

import (
	"slices"
	"testing"
)

// TestKeys holds the documented keys to those that the decoder accepts.
func TestKeys(t *testing.T) {
	accepted := map[Place][]string{
		InRecipe: recipeKeys, InModel: modelKeys, InSlice: sliceKeys, InSource: sourceKeys, InModule: moduleKeys, InCondition: condKeys, InReference: refKeys,
		InAlign: alignKeys, InAlignGroups: groupKeys, InLearn: learnKeys, InAlignMap: alignMapKeys, InRepair: repairKeys, InCalibration: calibrationKeys,
		InTokenizer: tokenizerKeys, InToken: tokenKeys, InEvaluate: evaluateKeys, InMeasure: measureKeys, InSearch: searchKeys, InSearchParameter: searchParameterKeys,
	}
	for p := InRecipe; p <= InSearchParameter; p++ {
		var names []string
		for _, k := range Keys(p) {
			names = append(names, k.Name)
			if k.Doc == "" {
				t.Errorf("place %d: %s says nothing", p, k.Name)
			}
			if k.Takes == TakesWord && len(k.Values) == 0 {
				t.Errorf("place %d: %s takes a word, and there are none", p, k.Name)
			}
			if inner := k.Takes == TakesMapping || k.Takes == TakesList || k.Takes == TakesNamed; inner != (k.Below != InNothing) {
				t.Errorf("place %d: %s has keys below it, or not: %d", p, k.Name, k.Below)
			}
		}
		want := slices.Clone(accepted[p])
		slices.Sort(want)
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Errorf("place %d: documented %v, accepted %v", p, names, want)
		}
	}
}
