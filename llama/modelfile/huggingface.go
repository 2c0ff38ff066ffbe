package modelfile

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// folderSource is a folder in Hugging Face's layout.
type folderSource struct {
	dir string
	all map[string]stored
	tie bool
}

// Names in such a folder.
const (
	configFile     = "config.json"
	generationFile = "generation_config.json"
	weightsFile    = "model.safetensors"
	indexFile      = "model.safetensors.index.json"
)

func openFolder(dir string) (Config, *folderSource, []string, error) {
	configPath := filepath.Join(dir, configFile)
	data, err := filesys.Read(configPath)
	if err != nil {
		return Config{}, nil, nil, missing(err, "%s: no %s; want a folder in Hugging Face's layout", dir, configFile)
	}
	generation, err := filesys.Read(filepath.Join(dir, generationFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil, nil, err
	}
	config, warnings, err := parseConfig(data, generation)
	if err != nil {
		return Config{}, nil, nil, usererr.New("%s: %w", configPath, err)
	}
	s := &folderSource{dir: dir, tie: config.TieEmbeddings}
	if s.all, err = safetensorsIn(dir); err != nil {
		return Config{}, nil, nil, err
	}
	s.all = addBaseName(s.all)
	untied, err := s.tieHead(&config)
	return config, s, append(warnings, untied...), err
}

// missing is a line about bad input when the cause is a file that is not there, else the cause as
// it is.
func missing(err error, format string, args ...any) error {
	if errors.Is(err, fs.ErrNotExist) {
		return usererr.New(format, args...)
	}
	return err
}

// safetensorsIn lists the tensors of a folder, in the order in which transformers looks: of the
// single file where there is one, whatever an index says that an earlier save left behind; else of
// the shards that the index names. Other safetensors files beside them, such as Mistral's
// consolidated.safetensors, hold the same weights by other names.
func safetensorsIn(dir string) (map[string]stored, error) {
	all, err := safetensorsHeader(filepath.Join(dir, weightsFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return all, err
	}
	indexPath := filepath.Join(dir, indexFile)
	data, err := filesys.Read(indexPath)
	if err != nil {
		return nil, missing(err, "%s: no %s and no %s; want the weights as safetensors", dir, weightsFile, indexFile)
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, usererr.New("%s: not an index of shards: %w", indexPath, err)
	}
	if len(index.WeightMap) == 0 {
		return nil, usererr.New("%s: weight_map is empty or absent, want the shard of every tensor", indexPath)
	}
	shards := make(map[string]map[string]stored)
	for _, name := range sortedKeys(index.WeightMap) {
		shard := index.WeightMap[name]
		if _, read := shards[shard]; read {
			continue
		}
		if shard != filepath.Base(shard) || filepath.Ext(shard) != ".safetensors" {
			return nil, usererr.New("%s: tensor %q is in %q, want a .safetensors file of this folder", indexPath, name, shard)
		}
		path := filepath.Join(dir, shard)
		if shards[shard], err = safetensorsHeader(path); err != nil {
			return nil, missing(err, "%s: no such shard, wanted by %s for tensor %q", path, indexFile, name)
		}
	}
	all = make(map[string]stored, len(index.WeightMap))
	for name, shard := range index.WeightMap {
		s, found := shards[shard][name]
		if !found {
			return nil, usererr.New("%s: tensor %q is missing, %s places it here", filepath.Join(dir, shard), name, indexFile)
		}
		all[name] = s
	}
	return all, nil
}

// maxSafetensorsHeader is the limit of the format itself.
const maxSafetensorsHeader = 100_000_000

// safetensorsHeader lists the tensors of one file. It does not use go-huggingface's parser, which
// keeps the offset of the data to itself and trusts sizes; the data is read straight from the file
// (see load.go). Format: https://huggingface.co/docs/safetensors
func safetensorsHeader(path string) (map[string]stored, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var length uint64
	if err := binary.Read(file, binary.LittleEndian, &length); err != nil {
		return nil, usererr.New("%s: cut off: %d bytes are no safetensors file", path, info.Size())
	}
	if length > maxSafetensorsHeader {
		return nil, usererr.New("%s: not a safetensors file: header of %d bytes, want at most %d", path, length, maxSafetensorsHeader)
	}
	start := int64(8 + length)
	if start > info.Size() {
		return nil, usererr.New("%s: cut off: want a header of %d bytes, came a file of %d", path, length, info.Size())
	}
	header := make([]byte, length)
	if _, err := io.ReadFull(file, header); err != nil {
		return nil, err
	}
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(header, &entries); err != nil {
		return nil, usererr.New("%s: the header is not JSON: %w", path, err)
	}
	all := make(map[string]stored, len(entries))
	for _, name := range sortedKeys(entries) {
		if name == "__metadata__" {
			continue
		}
		s := stored{name: name, file: path}
		if err := s.fromHeader(entries[name], start, info.Size()); err != nil {
			return nil, usererr.New("%s: tensor %q: %w", path, name, err)
		}
		all[name] = s
	}
	if err := noOverlap(all); err != nil {
		return nil, usererr.New("%s: %w", path, err)
	}
	return all, nil
}

// noOverlap refuses a file of which two tensors share bytes, as the reference reader does: there
// every tensor begins where the one before ends.
func noOverlap(all map[string]stored) error {
	list := make([]stored, 0, len(all))
	for _, s := range all {
		if s.size > 0 {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b stored) int { return cmp.Or(cmp.Compare(a.offset, b.offset), strings.Compare(a.name, b.name)) })
	for i := 1; i < len(list); i++ {
		if a, b := list[i-1], list[i]; b.offset < a.offset+a.size {
			return usererr.New("tensors %q and %q share bytes of the file", a.name, b.name)
		}
	}
	return nil
}

// safetensorsTypes are the element types that a model of this architecture may have.
var safetensorsTypes = map[string]dtypes.DType{"F32": dtypes.Float32, "F16": dtypes.Float16, "BF16": dtypes.BFloat16}

func (s *stored) fromHeader(entry json.RawMessage, dataStart, fileSize int64) error {
	var e struct {
		DType   string  `json:"dtype"`
		Shape   []int64 `json:"shape"`
		Offsets []int64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(entry, &e); err != nil || len(e.Offsets) != 2 || e.DType == "" {
		return usererr.New("came %s, want dtype, shape and two data_offsets", clip(entry))
	}
	first, last := e.Offsets[0], e.Offsets[1]
	if first < 0 || last < first {
		return usererr.New("data_offsets %v, want 0 <= first <= last", e.Offsets)
	}
	if last > fileSize-dataStart {
		return usererr.New("the file is cut off: want %d bytes of data, came %d", last, fileSize-dataStart)
	}
	elements := int64(1)
	s.dims = make([]int, len(e.Shape))
	for i, d := range e.Shape {
		if d < 0 || d > 0 && elements > math.MaxInt64/8/d {
			return usererr.New("shape %v is absurd", e.Shape)
		}
		elements *= d
		s.dims[i] = int(d)
	}
	s.format, s.offset, s.size = e.DType, dataStart+first, last-first
	// none for others: checkTensors refuses them, where they matter
	s.dtype = safetensorsTypes[e.DType]
	if s.dtype != dtypes.InvalidDType && s.size != elements*int64(s.dtype.Size()) {
		return usererr.New("%d bytes, want %d for %s %v", s.size, elements*int64(s.dtype.Size()), e.DType, e.Shape)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (s *folderSource) name(w Weight) string                { return w.HF }
func (s *folderSource) tensors() map[string]stored          { return s.all }
func (s *folderSource) pairedRows() bool                    { return false }
func (s *folderSource) open(t stored) (tensorReader, error) { return openSection(t) }

// inverseFrequencies are tables that older files carry; they follow from the configuration.
var inverseFrequencies = regexp.MustCompile(`(^|\.)rotary_emb\.inv_freq$`)

// ignored also lets pass what belongs to a head that is the embeddings: see tieHead.
func (s *folderSource) ignored(name string) bool {
	return inverseFrequencies.MatchString(name) || s.tie && strings.HasPrefix(name, "lm_head.")
}

func (s *folderSource) tokenizer() (*tokenizer.Tokenizer, error) { return tokenizer.FromFolder(s.dir) }
