package tokenizer

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// spaceMark is how SentencePiece writes a blank.
const spaceMark = "▁"

// prefixed says which texts get a blank put in front, so that a word at the beginning has the token
// it has elsewhere.
type prefixed string

const (
	prefixNone  prefixed = "none"
	prefixFirst prefixed = "first" // the text's beginning alone
	// also what follows an added token: Llama-2's tokenizer.json, "legacy" in transformers
	prefixEach prefixed = "each"
)

func prefixScheme(dummyPrefix bool, scheme prefixed) prefixed {
	if !dummyPrefix {
		return prefixNone
	}
	return scheme
}

// newSentencePiece makes a tokenizer of SentencePiece's BPE: pieces with scores, the best of which
// joins first, and among equals the leftmost (Kudo and Richardson 2018, "SentencePiece").
func newSentencePiece(pieces []string, scores []float64, types []int, scheme prefixed) (*Tokenizer, error) {
	if len(scores) != len(pieces) {
		return nil, usererr.New("%d scores for %d tokens, want one each", len(scores), len(pieces))
	}
	vocabulary := make(map[string]int, len(pieces))
	for id, piece := range pieces {
		if _, twice := vocabulary[piece]; twice {
			return nil, usererr.New("token %q has two ids, %d and %d", piece, vocabulary[piece], id)
		}
		if math.IsNaN(scores[id]) {
			return nil, usererr.New("token %q has no number as its score", piece)
		}
		vocabulary[piece] = id
	}
	t := &Tokenizer{bos: -1, eos: -1, pad: -1, unknown: -1, special: make(map[Token]bool)}
	var err error
	if t.model, err = newBPE(vocabulary); err != nil {
		return nil, err
	}
	t.model.fuseUnknown = true
	t.model.addScoredMerges(pieces, scores, types)
	if slices.Contains(types, typeByte) {
		if err := t.model.findBytes(); err != nil {
			return nil, err
		}
	}
	if id := slices.Index(types, typeUnknown); id >= 0 {
		t.model.unknown = Token(id)
	}
	t.decoder = decoder{replacement: spaceMark, byteFallback: true}
	switch scheme {
	case prefixEach:
		t.normalize = func(text string) string {
			if text == "" {
				return text
			}
			return spaceMark + strings.ReplaceAll(text, " ", spaceMark)
		}
		t.decoder.strip = 1
	case prefixFirst:
		t.preTokenize = metaspace(spaceMark, "first", false)
		t.decoder.strip = 1
	default:
		t.normalize = func(text string) string { return strings.ReplaceAll(text, " ", spaceMark) }
	}
	return t, t.setAdded(addedByType(pieces, types))
}

// addScoredMerges makes a merge of every way to cut a piece into two symbols. Symbols are normal
// pieces and single characters of pieces; the latter may be joined although they are no pieces
// themselves.
func (m *bpe) addScoredMerges(pieces []string, scores []float64, types []int) {
	joins := func(id int) bool { // SentencePiece keeps the other types out of its table of pieces
		return types[id] == typeNormal || types[id] == typeUserDefined || types[id] == typeUnused
	}
	m.inner = make(map[string]int32)
	ids := make(map[string]int32, len(pieces)) // of symbols
	order := make([]int, 0, len(pieces))
	for id, piece := range pieces {
		if !joins(id) {
			continue
		}
		ids[piece] = int32(id)
		order = append(order, id)
	}
	for _, id := range order {
		for _, r := range pieces[id] {
			char := string(r)
			if _, found := ids[char]; !found {
				symbol := int32(len(m.tokens) + len(m.inner))
				m.inner[char], ids[char] = symbol, symbol
			}
		}
	}
	// Ranks: equal scores have equal ranks.
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	m.merges = make(map[pair]merge, 2*len(pieces))
	rank := int32(-1)
	for i, id := range order {
		if i == 0 || scores[order[i-1]] != scores[id] {
			rank++
		}
		piece := pieces[id]
		for cut := range piece {
			if cut == 0 {
				continue
			}
			left, foundLeft := ids[piece[:cut]]
			right, foundRight := ids[piece[cut:]]
			if foundLeft && foundRight {
				m.merges[pair{left, right}] = merge{rank, int32(id)}
			}
		}
	}
}

// sentencePieceFile is what this package needs of a tokenizer.model: SentencePiece's ModelProto.
// Field numbers: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
type sentencePieceFile struct {
	pieces                    []string
	scores                    []float64
	types                     []int
	modelType                 uint64 // 1 unigram, 2 BPE
	suffixSpace               bool   // treat_whitespace_as_suffix
	byteFallback              bool
	unknown, bos, eos, pad    Token
	normalizer                string
	charsMap                  []byte // a compiled table of replacements
	dummyPrefix, removeSpaces bool
}

func parseSentencePiece(data []byte) (*sentencePieceFile, error) {
	// The defaults of the proto file.
	f := &sentencePieceFile{modelType: 1, unknown: 0, bos: 1, eos: 2, pad: -1, dummyPrefix: true, removeSpaces: true}
	err := eachField(data, func(number int, v fieldValue) error {
		switch number {
		case 1:
			return f.addPiece(v.bytes)
		case 2:
			return eachField(v.bytes, f.trainerField)
		case 3:
			return eachField(v.bytes, f.normalizerField)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	switch {
	case len(f.pieces) == 0:
		return nil, usererr.New("no pieces: not a SentencePiece model")
	case f.modelType != 2:
		return nil, usererr.New("model type %d, want 2 (BPE)", f.modelType)
	case f.suffixSpace:
		return nil, usererr.New("treat_whitespace_as_suffix is not supported")
	case len(f.charsMap) > 0 && f.normalizer != "identity":
		return nil, usererr.New("normalizer %q is not supported, want identity", f.normalizer)
	case f.removeSpaces:
		return nil, usererr.New("remove_extra_whitespaces is not supported")
	}
	return f, nil
}

func (f *sentencePieceFile) addPiece(data []byte) error {
	piece, score, kind := "", float64(0), typeNormal
	err := eachField(data, func(number int, v fieldValue) error {
		switch number {
		case 1:
			piece = string(v.bytes)
		case 2:
			score = float64(math.Float32frombits(uint32(v.number)))
		case 3:
			kind = int(v.number)
		}
		return nil
	})
	if err == nil && !utf8.ValidString(piece) {
		err = usererr.New("piece %d is not UTF-8", len(f.pieces))
	}
	f.pieces, f.scores, f.types = append(f.pieces, piece), append(f.scores, score), append(f.types, kind)
	return err
}

func (f *sentencePieceFile) trainerField(number int, v fieldValue) error {
	switch number {
	case 3:
		f.modelType = v.number
	case 24:
		f.suffixSpace = v.number != 0
	case 35:
		f.byteFallback = v.number != 0
	case 40:
		f.unknown = Token(v.number)
	case 41:
		f.bos = Token(v.number)
	case 42:
		f.eos = Token(v.number)
	case 43:
		f.pad = Token(v.number)
	}
	return nil
}

func (f *sentencePieceFile) normalizerField(number int, v fieldValue) error {
	switch number {
	case 1:
		f.normalizer = string(v.bytes)
	case 2:
		f.charsMap = v.bytes
	case 3:
		f.dummyPrefix = v.number != 0
	case 4:
		f.removeSpaces = v.number != 0
	}
	return nil
}

// fieldValue is a protobuf field: bytes, or a number of any width.
type fieldValue struct {
	bytes  []byte
	number uint64
}

// eachField visits the fields of a protobuf message.
func eachField(data []byte, visit func(number int, v fieldValue) error) error {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return usererr.New("not a SentencePiece model: %w", protowire.ParseError(n))
		}
		data = data[n:]
		var v fieldValue
		switch kind {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(data)
			v.number = uint64(x)
		case protowire.Fixed64Type:
			v.number, n = protowire.ConsumeFixed64(data)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return usererr.New("not a SentencePiece model, or cut off: %w", protowire.ParseError(n))
		}
		if err := visit(int(number), v); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// fromSentencePiece makes the tokenizer of a tokenizer.model.
func fromSentencePiece(data []byte, scheme prefixed) (*Tokenizer, error) {
	f, err := parseSentencePiece(data)
	if err != nil {
		return nil, err
	}
	t, err := newSentencePiece(f.pieces, f.scores, f.types, prefixScheme(f.dummyPrefix, scheme))
	if err != nil {
		return nil, err
	}
	if !f.byteFallback {
		t.model.byteIDs = nil
	}
	exists := func(id Token) Token {
		if id < 0 || int(id) >= len(f.pieces) {
			return -1
		}
		return id
	}
	t.bos, t.eos, t.pad, t.unknown = exists(f.bos), exists(f.eos), exists(f.pad), exists(f.unknown)
	return t, nil
}
