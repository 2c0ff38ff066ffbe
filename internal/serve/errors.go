package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// apiError is an answer that is no answer, as OpenAI writes it.
type apiError struct {
	status int
	body   errorBody
}

type errorBody struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (e *apiError) Error() string { return e.body.Message }

// refuse is an error with what was wanted and what came.
func refuse(status int, kind, param, code, format string, args ...any) *apiError {
	e := &apiError{status, errorBody{Message: fmt.Sprintf(format, args...), Type: kind}}
	if param != "" {
		e.body.Param = &param
	}
	if code != "" {
		e.body.Code = &code
	}
	return e
}

const (
	invalidRequest = "invalid_request_error"
	serverError    = "server_error"
)

// badRequest is about one field of a request.
func badRequest(param, format string, args ...any) *apiError {
	return refuse(http.StatusBadRequest, invalidRequest, param, "", format, args...)
}

// asAPI is any error as one of the API.
func asAPI(err error) *apiError {
	var api *apiError
	switch {
	case errors.As(err, &api):
		return api
	case errors.Is(err, errEnding):
		return refuse(http.StatusServiceUnavailable, serverError, "", "", "%v", err)
	case usererr.Is(err):
		return badRequest("", "%v", err)
	}
	return refuse(http.StatusInternalServerError, serverError, "", "", "%v", err)
}

// encoded is the error as JSON.
func (e *apiError) encoded() []byte {
	data, err := json.Marshal(map[string]errorBody{"error": e.body})
	if err != nil { // cannot be: these are strings
		return []byte(`{"error":{"message":"?","type":"server_error","param":null,"code":null}}`)
	}
	return data
}

func (e *apiError) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	if e.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(e.status)
	_, _ = w.Write(append(e.encoded(), '\n')) // a client that has gone needs no answer
}
