package kvq

// Backend names a policy, which decides when tokens become codes, together with the quantizer that
// makes them where a configuration names none.
type Backend string

const (
	// Full keeps everything in full precision. It is the zero value.
	Full Backend = ""
	// Quanto is the tutorial's: min-max groups with a float zero point, and transformers' policy.
	// Source: transformers 4.57 cache_utils.py (QuantoQuantizedLayer) and optimum-quanto 0.2.7
	// (MaxOptimizer).
	Quanto Backend = "quanto"
	// HQQ searches the zero point by half-quadratic splitting, with transformers' policy. Source:
	// transformers 4.57 cache_utils.py (HQQQuantizedLayer) and hqq 0.2.8
	// (optimize_weights_proximal_legacy), axis 1.
	HQQ Backend = "hqq"
	// Blocks is this library's own: the newest ResidualLength tokens are always exact, the prompt's
	// too, and older ones leave the window a block at a time. It takes every quantizer. Every
	// preset uses it.
	Blocks Backend = "blocks"
)

// backends is the table of all backends but Full.
var backends = []*backend{
	{name: Quanto, policy: newWholeWindow, quantizer: MinMax},
	{name: HQQ, policy: newWholeWindow, quantizer: HalfQuadratic, perToken: true, wholeRow: true},
	{name: Blocks, policy: newNewestExact, quantizer: MinMax, scales: ScaleFloat16, free: true},
}

// backend is an entry of the table.
type backend struct {
	name      Backend
	policy    func(c Config, block int) policy
	quantizer Quantizer   // where a configuration names none
	scales    ScaleFormat // likewise; empty: the cache's dtype
	free      bool        // takes every quantizer, and rotation
	// groups run along the head dimension , and axis 1 is another name for that
	perToken bool
	wholeRow bool // see numbers.Spec
}

// backendNames lists the names in the table.
func backendNames() []string {
	var names []string
	for _, b := range backends {
		names = append(names, string(b.name))
	}
	return names
}

// find looks a backend up; nil where there is none, and for Full.
func (b Backend) find() *backend {
	for _, entry := range backends {
		if entry.name == b {
			return entry
		}
	}
	return nil
}
