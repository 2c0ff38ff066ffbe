package solutions

// Parameters counts a Llama's weights, with as many key/value heads as query heads and tables of
// the vocabulary of its own at both ends.
func Parameters(vocab, hidden, inner, layers int) int64 {
	v, h, i := int64(vocab), int64(hidden), int64(inner)
	layer := 4*h*h + 3*h*i + 2*h
	return 2*v*h + int64(layers)*layer + h
}

// StepFloor is bytes over bandwidth: 1 GB/s are 10⁶ bytes a millisecond.
func StepFloor(weights, cacheOfRow int64, rows int, gbPerSecond float64) float64 {
	return float64(weights+int64(rows)*cacheOfRow) / (gbPerSecond * 1e6)
}

// RowsToOutweigh is the least number of rows whose caches are larger than the weights.
func RowsToOutweigh(weights, perToken int64, tokens int) int {
	return int(weights/(perToken*int64(tokens))) + 1
}
