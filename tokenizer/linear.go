package tokenizer

import (
	"regexp/syntax"
	"slices"
	"unicode"
)

// A pattern such as a.*z|a makes words of one letter, and looks through the whole rest of the text
// for each. Published patterns do not: what an alternative has looked at in vain, another one takes
// as a whole. linear proves that of a pattern; what it cannot prove is counted, see splitter.

// maxAlternatives is up to how many alternatives are compared with each other.
const maxAlternatives = 64

// linear says that cutting a text by a pattern takes time in proportion to the text. It is
// cautious: true is a proof, false is none.
func linear(pattern string) bool {
	var alternatives [][]*syntax.Regexp
	all := topAlternatives(pattern)
	if len(all) > maxAlternatives {
		return false
	}
	for _, text := range all {
		re, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			return false
		}
		alternatives = append(alternatives, elements(re))
	}
	for i, list := range alternatives {
		for at, e := range list {
			if !unbounded(e) {
				continue
			}
			class := runOf(e)
			if class == nil {
				return false // more than a run of one class
			}
			if len(alternatives) == 1 && !lazy(e) {
				// What was looked at behind a match holds no further one, and nothing else matches
				// inside of it.
				continue
			}
			if inVain := slices.ContainsFunc(list[at+1:], func(e *syntax.Regexp) bool { return !nullable(e) }); !inVain {
				continue
			}
			if !startsOutside(list[:at], class) || !slices.ContainsFunc(others(alternatives, i), func(list []*syntax.Regexp) bool { return takes(list, class) }) {
				return false
			}
		}
	}
	return true
}

func others(alternatives [][]*syntax.Regexp, i int) [][]*syntax.Regexp {
	return slices.Delete(slices.Clone(alternatives), i, i+1)
}

// topAlternatives cuts a pattern at each | that is in no brackets. (syntax.Parse factors common
// beginnings out, which hides the alternatives.)
func topAlternatives(pattern string) []string {
	var list []string
	depth, class, start := 0, false, 0
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']' || i > 0 && (pattern[i-1] == '[' || pattern[i-1] == '^' && i > 1 && pattern[i-2] == '[')
		case c == '[':
			class = true
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == '|' && depth == 0:
			list = append(list, pattern[start:i])
			start = i + 1
		}
	}
	return append(list, pattern[start:])
}

// elements are the parts of a concatenation.
func elements(re *syntax.Regexp) []*syntax.Regexp {
	switch re.Op {
	case syntax.OpConcat:
		var list []*syntax.Regexp
		for _, sub := range re.Sub {
			list = append(list, elements(sub)...)
		}
		return list
	case syntax.OpCapture:
		return elements(re.Sub[0])
	case syntax.OpEmptyMatch:
		return nil
	}
	return []*syntax.Regexp{re}
}

// unbounded says that an element can match a text of any length.
func unbounded(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpStar, syntax.OpPlus:
		return true
	case syntax.OpRepeat:
		if re.Max < 0 {
			return true
		}
	}
	return slices.ContainsFunc(re.Sub, unbounded)
}

// lazy says that a repetition takes as little as it can.
func lazy(re *syntax.Regexp) bool { return re.Flags&syntax.NonGreedy != 0 }

// nullable says that an element can match nothing. Places such as ^ count as what can fail.
func nullable(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpStar, syntax.OpQuest, syntax.OpEmptyMatch:
		return true
	case syntax.OpRepeat:
		return re.Min == 0 || nullable(re.Sub[0])
	case syntax.OpPlus, syntax.OpCapture:
		return nullable(re.Sub[0])
	case syntax.OpConcat:
		return !slices.ContainsFunc(re.Sub, func(e *syntax.Regexp) bool { return !nullable(e) })
	case syntax.OpAlternate:
		return slices.ContainsFunc(re.Sub, nullable)
	}
	return false
}

// runOf is the class of a repetition of single characters, nil for other elements.
func runOf(re *syntax.Regexp) []rune {
	switch re.Op {
	case syntax.OpStar, syntax.OpPlus, syntax.OpRepeat:
		return classRanges(re.Sub[0])
	}
	return nil
}

// classRanges are the characters of an element that matches one, as pairs from and to; nil for
// other elements.
func classRanges(re *syntax.Regexp) []rune {
	switch re.Op {
	case syntax.OpCharClass:
		return re.Rune
	case syntax.OpLiteral:
		if len(re.Rune) == 1 && re.Flags&syntax.FoldCase == 0 {
			return []rune{re.Rune[0], re.Rune[0]}
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return []rune{0, unicode.MaxRune}
	case syntax.OpCapture:
		return classRanges(re.Sub[0])
	}
	return nil
}

// startsOutside says that a run of the class is looked at once only: what is before it in the
// alternative may match nothing, or begins with a character that is not in the run.
func startsOutside(before []*syntax.Regexp, class []rune) bool {
	for _, e := range before {
		if nullable(e) {
			continue
		}
		first := classRanges(e)
		return first != nil && !overlap(first, class)
	}
	return true
}

// takes says that an alternative takes a run of the class as a whole: it is a run of a class that
// contains it, with nothing beside it that can fail.
func takes(list []*syntax.Regexp, class []rune) bool {
	for at, e := range list {
		if !nullable(e) {
			return (e.Op == syntax.OpPlus || e.Op == syntax.OpRepeat && e.Min <= 1 && e.Max < 0) && contains(runOf(e), class) &&
				!slices.ContainsFunc(list[at+1:], func(e *syntax.Regexp) bool { return !nullable(e) })
		}
	}
	return false
}

// overlap says that a character is in both. Ranges are sorted and do not touch, as regexp/syntax
// makes them.
func overlap(a, b []rune) bool {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i+1] < b[j]:
			i += 2
		case b[j+1] < a[i]:
			j += 2
		default:
			return true
		}
	}
	return false
}

// contains says that all characters of b are in a.
func contains(a, b []rune) bool {
	i := 0
	for j := 0; j < len(b); j += 2 {
		for i < len(a) && a[i+1] < b[j] {
			i += 2
		}
		if i >= len(a) || a[i] > b[j] || b[j+1] > a[i+1] {
			return false
		}
	}
	return true
}
