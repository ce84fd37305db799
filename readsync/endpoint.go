package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/redact"
	"observability-hub/lib/sysexits"
)

// syncPath is the path of the endpoint.
const syncPath = "/api/sync/reading"

// maxRequest limits the body of a call, which is ignored.
const maxRequest = 64 << 10

// endpoint is the HTTP handler of serve: POST /api/sync/reading syncs.
type endpoint struct {
	env   *cli.Env
	hosts []string // names that a call may use in addition to those of this machine
	sync  func(context.Context) (processed int64, err error)

	// stopping ends the sync when the process is to stop. If the caller disconnects, the
	// sync continues.
	stopping context.Context

	leftBehind bool // the sync could not sync or mark all documents
	reported   bool // the caller reports that itself, if it gets the answer
}

// ServeHTTP answers one call.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			// The details go to the journal only, not to the caller.
			e.env.Diag.Error(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			e.refuse(w, http.StatusInternalServerError, "internal error")
		}
	}()
	switch {
	case !e.addressed(r.Host):
		e.turnAway(w, r, "the call is addressed to a name that --allow-host does not allow")
	case http.NewCrossOriginProtection().Check(r) != nil:
		e.turnAway(w, r, "the call comes from a page of another site in a browser")
	case r.URL.Path != syncPath:
		e.refuse(w, http.StatusNotFound, "not found: the only endpoint is POST "+syncPath)
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		e.refuse(w, http.StatusMethodNotAllowed, "method not allowed: use POST")
	default:
		e.call(w, r)
	}
}

// call syncs and answers with the number of documents that are rows now.
func (e *endpoint) call(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxRequest)); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			e.refuse(w, http.StatusRequestEntityTooLarge, "the body is too large; a call needs no body")
		} else {
			e.refuse(w, http.StatusBadRequest, "the body of the call is incomplete")
		}
		return
	}
	n, err := e.sync(e.stopping)
	if err != nil && e.stopping.Err() == nil {
		e.env.Diag.Error(err)
	}
	code := sysexits.Code(err)
	left := ""
	if code == sysexits.Partial || code == sysexits.DataErr {
		e.leftBehind, e.reported = true, r.Header.Get(reportsHeader) != ""
		left = shortened(err.Error(), 200)
	}
	switch {
	case err == nil, code == sysexits.Partial:
		// Rejected and differing documents do not make the call fail, because calling
		// again would not change them.
		e.answer(w, http.StatusOK, answer{Status: answerSuccess, Processed: &n, LeftBehind: left})
	case e.stopping.Err() != nil:
		w.Header().Set("Retry-After", "1")
		e.refuse(w, http.StatusServiceUnavailable, "the service is stopping; committed rows are kept")
	case code == sysexits.TempFail:
		e.busy(w)
	case code == sysexits.Unavailable:
		e.refuse(w, http.StatusServiceUnavailable, err.Error())
	default:
		e.answer(w, http.StatusInternalServerError, answer{Status: answerError, Message: shortened(err.Error(), maxMessage), LeftBehind: left})
	}
}

// verdict returns an error if the sync could not sync or mark all documents, because
// the caller may have got a success. It returns nil if the caller reports that itself,
// as readsync trigger does: one unit fails, not two. It returns nil after other
// failures: the caller got an error, and retries or fails itself.
func (e *endpoint) verdict(delivered bool) error {
	if !e.leftBehind || e.reported && delivered {
		return nil
	}
	return sysexits.New(sysexits.Partial, "left_behind", errors.New("the sync could not sync or mark all documents")).
		WithHint("read the errors and warnings before this one: journalctl -u 'reading-sync-api@*' -p warning")
}

// busyWait is the Retry-After of a call during another sync.
const busyWait = 5 * time.Second

func (e *endpoint) busy(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(int(busyWait.Seconds())))
	e.refuse(w, http.StatusConflict, "another sync is running")
}

// turnAway refuses a call that may come from a browser, and prints a warning.
func (e *endpoint) turnAway(w http.ResponseWriter, r *http.Request, why string) {
	e.env.Diag.Warn("call_refused", fmt.Sprintf("%s (Host %.100q, Origin %.100q)", why, r.Host, r.Header.Get("Origin")))
	e.refuse(w, http.StatusForbidden, why)
}

// addressed reports whether a Host header names this machine. This prevents DNS
// rebinding: a page in a browser could make its own name resolve to 127.0.0.1 and call
// the endpoint. An empty header comes from an HTTP/1.0 client, which is not a browser.
func (e *endpoint) addressed(host string) bool {
	if host == "" {
		return true
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return true
	}
	return slices.ContainsFunc(e.hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// refuse answers with an error.
func (e *endpoint) refuse(w http.ResponseWriter, status int, message string) {
	e.answer(w, status, answer{Status: answerError, Message: shortened(message, maxMessage)})
}

// maxMessage limits the message of an answer, in bytes.
const maxMessage = 1000

// shortened returns a text for an answer, redacted and with at most limit bytes.
func shortened(message string, limit int) string {
	message = redact.Text(message)
	if len(message) > limit {
		message = strings.ToValidUTF8(message[:limit], "") + "…"
	}
	return message
}

// answer writes the answer a.
func (e *endpoint) answer(w http.ResponseWriter, status int, a answer) {
	a.Service = family
	a.Timestamp = time.Now().UTC().Format(record.TimeFormat)
	body, err := json.Marshal(a)
	if err != nil {
		panic(err) // cannot happen: the answer has only texts and a number
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
