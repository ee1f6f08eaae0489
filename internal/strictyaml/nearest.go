package strictyaml

import "strings"

// Nearest returns the one of the words in among that was most likely meant by word, "" when nothing is near. Near is an edit
// distance (insert, delete, replace, swap of neighbours) of at most a third of the longer word, or else a word that is part of the
// other ("method" of "merge_method"). Letter case does not count, and "-" and " " equal "_". Of equally near words the first wins.
func Nearest(word string, among []string) string {
	const longest = 64 // nobody mistypes a longer name, and the distance takes quadratic time
	w := plainWord(word)
	if len(w) == 0 || len(w) > longest {
		return ""
	}
	best, bestDistance := "", 0
	for _, candidate := range among {
		c := plainWord(candidate)
		if len(c) == 0 || len(c) > longest {
			continue
		}
		d := editDistance(w, c)
		// One letter for another says nothing about names of one letter.
		if d > max(1, max(len(w), len(c))/3) || d >= min(len(w), len(c)) {
			continue
		}
		if best == "" || d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	if best != "" {
		return best
	}
	for _, candidate := range among {
		c := plainWord(candidate)
		if min(len(w), len(c)) < 4 || !strings.Contains(string(c), string(w)) && !strings.Contains(string(w), string(c)) {
			continue
		}
		if best == "" || len(candidate) < len(best) {
			best = candidate
		}
	}
	return best
}

func plainWord(s string) []rune {
	return []rune(strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(s)))
}

// editDistance counts insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
func editDistance(a, b []rune) int {
	before := make([]int, len(b)+1) // row i-2
	above := make([]int, len(b)+1)  // row i-1
	row := make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := above[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, above[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}
