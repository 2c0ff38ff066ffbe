package doctor

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/hub"
)

// answers is how long the hub may take to answer.
const answers = 8 * time.Second

// hub asks the hub for an answer, and whose token is in use.
func (m *Machine) hub(ctx context.Context) Finding {
	if name := hub.OfflineVariable(); name != "" {
		return missing("unset "+name, "not asked, since %s is set; what `kvq list` names is here", name)
	}
	source, tokenErr := hub.TokenSource()
	if tokenErr != nil {
		return ill("kvq login, or unset the variable", "%v", tokenErr)
	}
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	at, err := hub.Reach(ctx, "")
	switch {
	case errors.Is(err, hub.ErrID):
		return ill("unset HF_ENDPOINT, or correct it", "%v", err)
	case err != nil:
		why, _, _ := strings.Cut(err.Error(), "; ") // without the advice, which is about downloads
		if ctx.Err() != nil {
			why = "no answer within " + answers.String()
		}
		return missing("look at the network, HTTPS_PROXY and HF_ENDPOINT; the small model runs without a hub", "%s is not reached: %s", at, why)
	case source == "":
		return well("%s answers; no token (gated models want one: kvq login)", at)
	}
	account, err := hub.WhoAmI(ctx, "")
	if errors.Is(err, hub.ErrToken) {
		return ill("a new token: kvq login", "%v", err)
	} else if err != nil {
		return well("%s answers; a token is in %s, whose it is was not said", at, source)
	}
	return well("%s answers; token of %s, in %s", at, account.Name, source)
}

// proxyVariables are those that Go reads, in its order, each in two spellings of which the first
// wins.
var proxyVariables = []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}

// proxy names the variables of the proxy, without what may be a password.
func (m *Machine) proxy(context.Context) Finding {
	var set []string
	for _, upper := range proxyVariables {
		lower := strings.ToLower(upper)
		name, value := upper, os.Getenv(upper)
		if value == "" {
			name, value = lower, os.Getenv(lower)
		}
		if value == "" {
			continue
		}
		if other := os.Getenv(lower); other != "" && other != value {
			return ill("set both to the same", "%s and %s differ: programs take one or the other", upper, lower)
		}
		if upper != "NO_PROXY" {
			address, err := proxyAddress(value)
			if err != nil {
				return ill("set it to an address such as http://proxy:3128", "%s is no address: %v", name, err)
			}
			value = address
		}
		set = append(set, name+"="+value)
	}
	all := cmp.Or(os.Getenv("ALL_PROXY"), os.Getenv("all_proxy"))
	switch {
	case len(set) > 0:
		return well("%s", strings.Join(set, ", "))
	case all != "":
		return ill("set HTTPS_PROXY too", "ALL_PROXY alone is set, which Go does not read")
	}
	return well("none is set")
}

// proxyAddress is a proxy's scheme and host. Go takes http where there is no scheme.
func proxyAddress(value string) (string, error) {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" {
		return "", errors.New("want a scheme and a host") // err quotes the value, which may hold a password
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return u.Scheme + "://" + u.Host, nil
	}
	return "", errors.New("want http, https or socks5, got " + u.Scheme)
}
