package hub

import (
	"io"
	"log"
	"net/http/httptest"
	"testing"
)

// newTLS starts a server whose certificate nobody trusts.
func newTLS(t *testing.T) string {
	s := httptest.NewUnstartedServer(nil)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}
