package policy

import "strings"

// Suggest returns the accepted word that was probably meant, or "".
func Suggest(got string, accepted []string) string {
	best, bestDistance := "", len(got)/3+2 // a third of the letters wrong is no near miss any more
	for _, word := range accepted {
		lower, want := strings.ToLower(got), strings.ToLower(word)
		d := distance(lower, want)
		if len(lower) >= 4 && strings.HasPrefix(want, lower) {
			d = min(d, 1) // a word left unfinished
		}
		if d < bestDistance {
			best, bestDistance = word, d
		}
	}
	return best
}

// distance counts the insertions, deletions and replacements between two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
